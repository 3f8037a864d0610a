"""Seeded male pelves: ellipsoids about the prostate's centre, and the prostate's shape. LPS, mm."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.simulation.deformation import PlaneWaves, ShapeMap, draw_plane_waves, hollowed
from crossalign.simulation.ellipsoids import (
    ABSENT,
    ENDLESS_MM,
    Ellipsoid,
    EllipsoidModel,
    absent,
    quadric_coefficients,
    random_ellipsoid,
    uniform_xyz,
)
from crossalign.simulation.pelvis.surroundings import draw_surroundings, pelvic_wall
from crossalign.simulation.random_fields import uniform
from crossalign.simulation.settings import AnatomySettings, Range

EDGE_MM = 0.7
NARROWEST = 0.12


@dataclass(frozen=True, eq=False)
class GlandShape:
    """Glands (b): half axes (b, 3), mm, narrowing to the apex along x and y (b, 2), barrel, hollow and lean (b,).

    The ranges were set by fits to 112 outlined glands (docs/concepts/simulation.md).
    """

    half_axes_mm: Tensor
    taper: Tensor
    barrel: Tensor
    hollow: Tensor
    lean: Tensor
    waves: PlaneWaves

    def apply(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3) of the patient to the frame of the ellipsoids: they lean, and are displaced."""
        x, y, z = points_mm.unbind(-1)
        _, hy, hz = self.half_axes_mm[:, :, None].unbind(1)
        leaning = y + self.lean[:, None] * z * (hy / hz)
        return torch.stack((x, leaning, z), dim=-1) + self.waves.at(points_mm)

    def radius(self, points_mm: Tensor) -> Tensor:
        """Return (b, n) below 1 inside the gland, at points (b, 3, n) of the frame of the ellipsoids."""
        u, v, w = (points_mm / self.half_axes_mm[:, :, None]).unbind(1)
        height = 1.5 * torch.tanh(w / 1.5)
        barrel = 1 - self.barrel[:, None] * height.square()
        narrow_x, narrow_y = ((barrel + t[:, None] * height).clamp_(min=NARROWEST) for t in self.taper.unbind(1))
        v_new = v / narrow_y + self.hollow[:, None] * hollowed(u, v)
        return (u / narrow_x).square_() + v_new.square_() + w.square().pow_(5)


def gland_membership(shape: ShapeMap, points_mm: Tensor) -> Tensor:
    """Return memberships before clamping (b, n) at points (b, 3, n), as `memberships` does for ellipsoids."""
    steepness = shape.half_axes_mm.amin(-1, keepdim=True) / (4 * EDGE_MM)
    return 0.5 + steepness * (1 - shape.radius(points_mm))


def draw_gland_shape(half_axes_mm: Tensor, settings: AnatomySettings, generator: torch.Generator) -> GlandShape:
    """Draw the shapes of glands with these half axes (b, 3), mm."""
    count = len(half_axes_mm)
    waves = draw_plane_waves(count, settings.asymmetry_mm, (32.0, 80.0), generator)
    taper = torch.stack([uniform(bounds, (count,), generator) for bounds in (settings.taper_x, settings.taper_y)], -1)
    barrel, back, lean = (
        uniform(bounds, (count,), generator) for bounds in (settings.barrel, settings.hollow, settings.lean)
    )
    return GlandShape(half_axes_mm, taper, barrel, back, lean, waves)


NODULES, LESIONS, CALCIFICATIONS = 5, 2, 3


def draw_anatomy(
    count: int, largest_mm: float, settings: AnatomySettings, generator: torch.Generator
) -> EllipsoidModel:
    """Draw pelves; a gland with a half axis over `largest_mm` is shrunk to it, so that it fits its volume."""
    half_axes = _draw_half_axes(count, largest_mm, settings.volume_ml, generator)
    outer, wall = draw_surroundings(half_axes, generator), pelvic_wall(half_axes, generator)
    if not settings.surroundings:
        outer, wall = [absent(one) for one in outer], wall * 0
        wall[..., 9] = ABSENT
    zero = torch.zeros(count, 3)
    gland = Ellipsoid(
        "gland", zero, half_axes, zero, torch.full((count,), EDGE_MM), torch.ones(count, dtype=torch.bool)
    )
    inner = _zones(half_axes, generator)
    for wanted, ellipsoids in (
        (settings.nodules, _nodules(half_axes, generator)),
        (settings.lesions, _lesions(half_axes, generator)),
        (settings.cysts, _cyst(half_axes, generator)),
        (settings.calcifications, _calcifications(half_axes, generator)),
    ):
        inner += ellipsoids if wanted else [absent(one) for one in ellipsoids]
    shape = draw_gland_shape(half_axes, settings, generator)
    rows = torch.cat((wall, quadric_coefficients([*outer, gland, *inner])), dim=1)
    return EllipsoidModel(("wall", *(b.name for b in outer)), tuple(b.name for b in inner), rows, half_axes, shape)


def _draw_half_axes(count: int, largest_mm: float, volume_ml: Range, generator: torch.Generator) -> Tensor:
    low, high = volume_ml
    volume = low * (high / low) ** torch.rand(2, count, generator=generator).mean(0)
    ratio = torch.stack([uniform(r, (count,), generator) for r in ((0.95, 1.25), (0.8, 1.02), (0.82, 1.2))], -1)
    axes = 1.05 * ratio * (volume * 1000 * 3 / (4 * torch.pi) / ratio.prod(-1)).pow(1 / 3)[:, None]
    return axes * (largest_mm / axes.amax(-1, keepdim=True)).clamp(max=1)


def _zones(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    n = len(half_axes)
    volume_ml = 4 / 3 * torch.pi * half_axes.prod(-1) / 1000
    grown = (0.42 + 0.1 * torch.log2(volume_ml / 20)).clamp(0.45, 0.78) + uniform((-0.05, 0.1), (n,), generator)
    scale = grown[:, None] * torch.tensor([1.0, 0.95, 1.3])
    center = half_axes * uniform_xyz(((-0.05, 0.05), (-0.3, -0.1), (-0.1, 0.15)), n, generator)
    transition = random_ellipsoid("transition", center, half_axes * scale, generator)
    front = half_axes * uniform_xyz(((-0.05, 0.05), (-0.95, -0.75), (-0.2, 0.2)), n, generator)
    axes = half_axes * uniform_xyz(((0.3, 0.6), (0.15, 0.35), (0.5, 0.8)), n, generator)
    stroma = random_ellipsoid("stroma", front, axes, generator)
    middle = half_axes * uniform_xyz(((-0.05, 0.05), (-0.15, 0.15), (0, 0)), n, generator)
    width = uniform((1.2, 4.5), (n, 1), generator)
    axes = torch.cat((width, width, torch.full((n, 1), ENDLESS_MM)), -1)
    urethra = random_ellipsoid("urethra", middle, axes, generator, ((-25, 15), (-4, 4), (0, 0)), 0.9)
    base = half_axes * uniform_xyz(((-0.1, 0.1), (-0.5, 0.1), (0.8, 1.1)), n, generator)
    axes = half_axes * uniform_xyz(((0.5, 0.95), (0.5, 0.9), (0.3, 0.65)), n, generator)
    central = random_ellipsoid("central", base, axes, generator, ((-15, 15), (-8, 8), (0, 0)), 0.9)
    return [transition, central, stroma, urethra]


def _nodules(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    n, ellipsoids = len(half_axes), []
    for k in range(NODULES):
        direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
        center = half_axes * (direction * uniform((0.1, 0.5), (n, 1), generator) + torch.tensor([0.0, -0.15, 0.1]))
        axes = half_axes.mean(-1, keepdim=True) * uniform_xyz(((0.12, 0.34),) * 3, n, generator)
        ellipsoids.append(
            random_ellipsoid(f"nodule{k}", center, axes, generator, ((-90, 90), (-90, 90), (-90, 90)), 0.7)
        )
    return ellipsoids


def _lesions(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    n, ellipsoids = len(half_axes), []
    for _ in range(LESIONS):
        direction = torch.randn(n, 3, generator=generator) + torch.tensor([0.0, 1.0, -0.2])
        center = half_axes * torch.nn.functional.normalize(direction, dim=-1) * uniform((0.65, 0.9), (n, 1), generator)
        ellipsoids.append(
            random_ellipsoid("lesion", center, uniform_xyz(((2.5, 8),) * 3, n, generator), generator, probability=0.45)
        )
    return ellipsoids


def _cyst(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    center = half_axes * uniform_xyz(((-0.5, 0.5), (-0.4, 0.5), (-0.2, 0.7)), len(half_axes), generator)
    return [
        random_ellipsoid(
            "cyst", center, uniform_xyz(((2, 5),) * 3, len(half_axes), generator), generator, probability=0.25
        )
    ]


def _calcifications(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    ellipsoids = []
    for _ in range(CALCIFICATIONS):
        center = half_axes * uniform_xyz(((-0.5, 0.5), (-0.2, 0.4), (-0.5, 0.5)), len(half_axes), generator)
        axes = uniform_xyz(((1.0, 3.5), (0.8, 1.6), (1.0, 3.0)), len(half_axes), generator)
        ellipsoids.append(random_ellipsoid("calcification", center, axes, generator, probability=0.35))
    return ellipsoids
