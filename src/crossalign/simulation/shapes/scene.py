"""Scenes of random smooth shapes: a main shape, which is the structure, and others about and inside it."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from crossalign.geometry import axis_orientations, euler_to_rotation
from crossalign.simulation.deformation import draw_smooth_shape
from crossalign.simulation.ellipsoids import ENDLESS_MM, Ellipsoid, EllipsoidModel, quadric_coefficients
from crossalign.simulation.random_fields import signed_uniform, uniform
from crossalign.simulation.settings import Range, ShapeSettings

# How many of a kind, how far from the main shape's surface (mm) and how large (half axes, mm).
LARGE: tuple[int, Range, Range] = (4, (12, 55), (16, 55))
MEDIUM: tuple[int, Range, Range] = (6, (0, 30), (6, 20))
SMALL: tuple[int, Range, Range] = (6, (2, 28), (2, 6))
SHELLS, TUBES, LAYERS, NODULES, SPECKS = 2, 3, 2, 4, 2


def draw_scene(count: int, largest_mm: float, settings: ShapeSettings, generator: torch.Generator) -> EllipsoidModel:
    """Draw scenes about the main shape's centre; a main shape with a half axis over `largest_mm` is shrunk to it."""
    low, high = settings.radius_mm
    ratio = uniform((0.65, 1.35), (count, 3), generator)
    radius = low * (high / low) ** torch.rand(count, 1, generator=generator)
    axes = ratio * (radius / ratio.prod(-1, keepdim=True).pow(1 / 3))
    axes = axes * (largest_mm / axes.amax(-1, keepdim=True)).clamp(max=1)
    drawn = _Scene(axes, uniform(settings.density, (count,), generator), generator)
    outer = [*drawn.around("large", *LARGE), *drawn.shells(), *drawn.tubes(TUBES, outside=True)]
    outer += [*drawn.around("medium", *MEDIUM), *drawn.around("small", *SMALL)]
    zero = torch.zeros(count, 3)
    edge = uniform((0.5, 1.2), (count,), generator)
    main = Ellipsoid("main", zero, axes, zero, edge, torch.ones(count, dtype=torch.bool))
    inner = [*drawn.layers(), *drawn.tubes(1, outside=False), *drawn.inside("nodule", NODULES, (0.12, 0.4))]
    inner += drawn.inside("speck", SPECKS, (0.06, 0.14))
    shape = draw_smooth_shape(axes, settings.asymmetry_mm, generator)
    rows = quadric_coefficients([*outer, main, *inner])
    return EllipsoidModel(tuple(one.name for one in outer), tuple(one.name for one in inner), rows, axes, shape)


@lru_cache(maxsize=1)
def draw_orientations(count: int, rotation_deg: Range, generator: torch.Generator) -> Tensor:
    """Draw any of the 48, after rotations of `rotation_deg` about each axis: (b, 3, 3), from scene to patient."""
    number = torch.randint(0, 48, (count,), generator=generator)
    angle = signed_uniform(rotation_deg, (count, 3), generator) * (torch.pi / 180)
    return axis_orientations()[number] @ euler_to_rotation(angle)


class _Scene:
    """Draws ellipsoids for main shapes of these half axes (b, 3); each is there with the probability `density` (b,)."""

    def __init__(self, half_axes_mm: Tensor, density: Tensor, generator: torch.Generator) -> None:
        self.half_axes_mm, self.density, self.generator = half_axes_mm, density, generator
        self.count = len(half_axes_mm)

    def around(self, name: str, number: int, distance_mm: Range, size_mm: Range) -> list[Ellipsoid]:
        """Ellipsoids whose centres lie outside."""
        found = []
        for k in range(number):
            center = self._direction() * (self.half_axes_mm + self._uniform(distance_mm, 1))
            found.append(self._ellipsoid(f"{name}{k}", center, self._uniform(size_mm, 3)))
        return found

    def inside(self, name: str, number: int, size: Range) -> list[Ellipsoid]:
        """Ellipsoids inside; `size` is relative to the main shape's mean half axis."""
        mean, found = self.half_axes_mm.mean(-1, keepdim=True), []
        for k in range(number):
            center = self._direction() * self.half_axes_mm * self._uniform((0.1, 0.75), 1)
            found.append(self._ellipsoid(f"{name}{k}", center, mean * self._uniform(size, 3)))
        return found

    def shells(self) -> list[Ellipsoid]:
        """Layers around the main shape, the outermost first."""
        found, thick = [], self._uniform((3, 16), 1)
        for k in range(SHELLS):
            center = self._uniform((-3, 3), 3)
            found.append(self._ellipsoid(f"shell{k}", center, self.half_axes_mm + thick, rotated=False))
            thick = thick * self._uniform((0.3, 0.7), 1)
        return found

    def layers(self) -> list[Ellipsoid]:
        """Layers inside the main shape, the outermost first."""
        found, size = [], self._uniform((0.5, 0.88), 1)
        for k in range(LAYERS):
            center = self.half_axes_mm * self._uniform((-0.15, 0.15), 3)
            axes = self.half_axes_mm * size * self._uniform((0.85, 1.15), 3)
            found.append(self._ellipsoid(f"layer{k}", center, axes, rotated=False))
            size = size * self._uniform((0.4, 0.75), 1)
        return found

    def tubes(self, number: int, outside: bool) -> list[Ellipsoid]:
        """Tubes without end, each with a wall and a lumen."""
        found = []
        for k in range(number):
            away = self.half_axes_mm + self._uniform((4, 30), 1) if outside else self._uniform((0, 8), 1)
            radius = self._uniform((2, 12) if outside else (1.5, 5), 1)
            endless = torch.full((self.count, 1), ENDLESS_MM)
            lumen = self._ellipsoid(f"lumen{k}", self._direction() * away, torch.cat((radius, radius, endless), -1))
            thick = radius + self._uniform((1, 4), 1)
            found += [replace(lumen, name=f"wall{k}", half_axes_mm=torch.cat((thick, thick, endless), -1)), lumen]
        return found

    def _ellipsoid(self, name: str, center_mm: Tensor, half_axes_mm: Tensor, rotated: bool = True) -> Ellipsoid:
        angle = self._uniform((-180, 180), 3) * float(rotated)
        edge = uniform((0.5, 1.2), (self.count,), self.generator)
        present = torch.rand(self.count, generator=self.generator) < self.density
        return Ellipsoid(name, center_mm, half_axes_mm, angle, edge, present)

    def _direction(self) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(self.count, 3, generator=self.generator), dim=-1)

    def _uniform(self, bounds: Range, columns: int) -> Tensor:
        return uniform(bounds, (self.count, columns), self.generator)
