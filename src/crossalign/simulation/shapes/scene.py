"""What "any two modalities" are drawn from: scenes of smooth random shapes, and two unrelated views of them."""

from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import permutations, product

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import euler_to_rotation
from crossalign.simulation.deformation import draw_shape
from crossalign.simulation.ellipsoids import LONG_MM, Body, quadric_coefficients
from crossalign.simulation.fields import signed, uniform
from crossalign.simulation.pelvis.anatomy import Anatomy
from crossalign.simulation.settings import DeformationSettings, PoseSettings, Range


@dataclass(frozen=True)
class ShapeSettings:
    """Scenes and views. The defaults are wide; set a range to (0, 0) or a share to 0 to leave that part out.

    `radius_mm` is the main body's mean half axis, `crowd` the share of the bodies around and inside it that are there,
    and `turn_deg` how far a scene is turned off its axis orientation. `related_share` of the pairs show one hidden
    property through two maps; in the others each body has a property of its own in each view. `monotone_share` of the
    maps rise or fall throughout. `unseen_share` of the bodies are missing in a view. `texture` is what both views see
    of the property's waves, `grain` and `speckle` are each view's own, and `partial_share` of the views show a part.
    """

    radius_mm: Range = (14.0, 34.0)
    asymmetry_mm: Range = (0.3, 3.5)
    crowd: Range = (0.3, 1.0)
    turn_deg: Range = (0.0, 25.0)
    related_share: float = 0.5
    monotone_share: float = 0.4
    unseen_share: float = 0.15
    texture: Range = (0.0, 0.12)
    grain: Range = (0.02, 0.25)
    speckle: Range = (0.0, 0.4)
    noise: Range = (0.002, 0.04)
    bias: Range = (0.0, 0.4)
    slice_mm: Range = (1.5, 4.0)
    blur_mm: Range = (0.6, 4.0)
    partial_share: float = 0.6
    edge_mm: Range = (0.5, 10.0)
    pose: PoseSettings = field(default_factory=lambda: PoseSettings(turned_share=0.0))
    deformation: DeformationSettings = field(default_factory=DeformationSettings)

    def __post_init__(self) -> None:
        for item in fields(self):
            value, where = getattr(self, item.name), f"ShapeSettings.{item.name}"
            if isinstance(value, tuple) and not (len(value) == 2 and 0 <= value[0] <= value[1] < 1e3):
                raise InputError(f"{where} must be a range (low, high) from 0 upwards, got {value}")
            if item.name.endswith("_share") and not 0 <= value <= 1:
                raise InputError(f"{where} must lie in 0..1, got {value}")
        if self.radius_mm[0] < 5 or self.edge_mm[0] <= 0 or self.crowd[1] > 1:
            raise InputError(
                "ShapeSettings needs radius_mm of 5 or more, edge_mm over 0 and crowd in 0..1, "
                f"got {self.radius_mm}, {self.edge_mm} and {self.crowd}"
            )
        if self.pose.turned_share:
            raise InputError(
                "ShapeSettings.pose.turned_share must be 0, since all axis orientations occur anyway, "
                f"got {self.pose.turned_share}"
            )


# How many of a kind, how far from the main body's surface (mm) and how large (half axes, mm), in order of painting.
LARGE: tuple[int, Range, Range] = (4, (12, 55), (16, 55))
MEDIUM: tuple[int, Range, Range] = (6, (0, 30), (6, 20))
SMALL: tuple[int, Range, Range] = (6, (2, 28), (2, 6))
SHELLS, TUBES, LAYERS, NODULES, SPECKS = 2, 3, 2, 4, 2


def draw_scene(count: int, largest_mm: float, settings: ShapeSettings, generator: torch.Generator) -> Anatomy:
    """Draw scenes about the main body's centre; a main body with a half axis over `largest_mm` is shrunk to it."""
    low, high = settings.radius_mm
    ratio = uniform((0.65, 1.35), (count, 3), generator)
    radius = low * (high / low) ** torch.rand(count, 1, generator=generator)
    axes = ratio * (radius / ratio.prod(-1, keepdim=True).pow(1 / 3))
    axes = axes * (largest_mm / axes.amax(-1, keepdim=True)).clamp(max=1)
    drawn = _Drawer(axes, uniform(settings.crowd, (count,), generator), generator)
    outer = [*drawn.around("large", *LARGE), *drawn.shells(), *drawn.tubes(TUBES, outside=True)]
    outer += [*drawn.around("medium", *MEDIUM), *drawn.around("small", *SMALL)]
    zero = torch.zeros(count, 3)
    edge = uniform((0.5, 1.2), (count,), generator)
    main = Body("main", zero, axes, zero, edge, torch.ones(count, dtype=torch.bool))
    inner = [*drawn.layers(), *drawn.tubes(1, outside=False), *drawn.inside("nodule", NODULES, (0.12, 0.4))]
    inner += drawn.inside("speck", SPECKS, (0.06, 0.14))
    shape = draw_shape(axes, settings.asymmetry_mm, generator)
    rows = quadric_coefficients([*outer, main, *inner])
    return Anatomy(tuple(b.name for b in outer), tuple(b.name for b in inner), rows, axes, shape)


@lru_cache(maxsize=1)
def axis_orientations() -> Tensor:
    """Return the matrices that bring axes to axes, (48, 3, 3): 24 rotations and 24 that mirror."""
    unit = torch.eye(3)
    found = [
        unit[list(order)] * torch.tensor(signs)[:, None]
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
    ]
    return torch.stack(found)


def draw_orientations(count: int, turn_deg: Range, generator: torch.Generator) -> Tensor:
    """Draw any of the 48, after a turn by up to `turn_deg` about each axis: (b, 3, 3), from scene to patient."""
    number = torch.randint(0, 48, (count,), generator=generator)
    angle = signed(turn_deg, (count, 3), generator) * (torch.pi / 180)
    return axis_orientations()[number] @ euler_to_rotation(angle)


class _Drawer:
    """Draws bodies for main bodies of these half axes (b, 3); each is there with the probability `crowd` (b,)."""

    def __init__(self, half_axes_mm: Tensor, crowd: Tensor, generator: torch.Generator) -> None:
        self.half_axes_mm, self.crowd, self.generator = half_axes_mm, crowd, generator
        self.count = len(half_axes_mm)

    def around(self, name: str, number: int, distance_mm: Range, size_mm: Range) -> list[Body]:
        """Blobs whose centres lie outside."""
        bodies = []
        for k in range(number):
            center = self._way() * (self.half_axes_mm + self._uniform(distance_mm, 1))
            bodies.append(self._body(f"{name}{k}", center, self._uniform(size_mm, 3)))
        return bodies

    def inside(self, name: str, number: int, size: Range) -> list[Body]:
        """Blobs inside; `size` is their share of the main body's mean half axis."""
        mean, bodies = self.half_axes_mm.mean(-1, keepdim=True), []
        for k in range(number):
            center = self._way() * self.half_axes_mm * self._uniform((0.1, 0.75), 1)
            bodies.append(self._body(f"{name}{k}", center, mean * self._uniform(size, 3)))
        return bodies

    def shells(self) -> list[Body]:
        """Layers around the main body, the outermost first."""
        bodies, thick = [], self._uniform((3, 16), 1)
        for k in range(SHELLS):
            center = self._uniform((-3, 3), 3)
            bodies.append(self._body(f"shell{k}", center, self.half_axes_mm + thick, turned=False))
            thick = thick * self._uniform((0.3, 0.7), 1)
        return bodies

    def layers(self) -> list[Body]:
        """Layers inside the main body, the outermost first."""
        bodies, share = [], self._uniform((0.5, 0.88), 1)
        for k in range(LAYERS):
            center = self.half_axes_mm * self._uniform((-0.15, 0.15), 3)
            axes = self.half_axes_mm * share * self._uniform((0.85, 1.15), 3)
            bodies.append(self._body(f"layer{k}", center, axes, turned=False))
            share = share * self._uniform((0.4, 0.75), 1)
        return bodies

    def tubes(self, number: int, outside: bool) -> list[Body]:
        """Tubes without end, each with a wall and a lumen."""
        bodies = []
        for k in range(number):
            away = self.half_axes_mm + self._uniform((4, 30), 1) if outside else self._uniform((0, 8), 1)
            radius = self._uniform((2, 12) if outside else (1.5, 5), 1)
            endless = torch.full((self.count, 1), LONG_MM)
            lumen = self._body(f"lumen{k}", self._way() * away, torch.cat((radius, radius, endless), -1))
            thick = radius + self._uniform((1, 4), 1)
            axes = torch.cat((thick, thick, endless), -1)
            wall = Body(f"wall{k}", lumen.center_mm, axes, lumen.angle_deg, lumen.edge_mm, lumen.present)
            bodies += [wall, lumen]
        return bodies

    def _body(self, name: str, center_mm: Tensor, half_axes_mm: Tensor, turned: bool = True) -> Body:
        angle = self._uniform((-180, 180), 3) * float(turned)
        edge = uniform((0.5, 1.2), (self.count,), self.generator)
        present = torch.rand(self.count, generator=self.generator) < self.crowd
        return Body(name, center_mm, half_axes_mm, angle, edge, present)

    def _way(self) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(self.count, 3, generator=self.generator), dim=-1)

    def _uniform(self, bounds: Range, columns: int) -> Tensor:
        return uniform(bounds, (self.count, columns), self.generator)
