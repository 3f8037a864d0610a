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
    EllipsoidSampler,
    absent,
    quadric_coefficients,
)
from crossalign.simulation.pelvis.surroundings import ANY_ROTATION, draw_surroundings, pelvic_wall
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
    draw = EllipsoidSampler(half_axes, generator)
    outer, wall = draw_surroundings(draw), pelvic_wall(draw)
    if not settings.surroundings:
        outer, wall = [absent(one) for one in outer], wall * 0
        wall[..., 9] = ABSENT
    zero, one = torch.zeros(count, 3), torch.ones(count)
    gland = Ellipsoid("gland", zero, half_axes, zero, one * EDGE_MM, one.bool())
    inner = _zones(draw)
    for wanted, ellipsoids in (
        (settings.nodules, _nodules(draw)),
        (settings.lesions, _lesions(draw)),
        (settings.cysts, _cyst(draw)),
        (settings.calcifications, _calcifications(draw)),
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


def _zones(draw: EllipsoidSampler) -> list[Ellipsoid]:
    half = draw.half_axes_mm
    volume_ml = 4 / 3 * torch.pi * half.prod(-1) / 1000
    grown = (0.42 + 0.1 * torch.log2(volume_ml / 20)).clamp(0.45, 0.78) + draw.uniform(-0.05, 0.1)
    center = half * draw.xyz((-0.05, 0.05), (-0.3, -0.1), (-0.1, 0.15))
    transition = draw.ellipsoid("transition", center, half * (grown[:, None] * torch.tensor([1.0, 0.95, 1.3])))
    front = half * draw.xyz((-0.05, 0.05), (-0.95, -0.75), (-0.2, 0.2))
    stroma = draw.ellipsoid("stroma", front, half * draw.xyz((0.3, 0.6), (0.15, 0.35), (0.5, 0.8)))
    middle = half * draw.xyz((-0.05, 0.05), (-0.15, 0.15), (0, 0))
    width = draw.column(1.2, 4.5)
    axes = torch.cat((width, width, torch.full_like(width, ENDLESS_MM)), -1)
    urethra = draw.ellipsoid("urethra", middle, axes, ((-25, 15), (-4, 4), (0, 0)), 0.9)
    base = half * draw.xyz((-0.1, 0.1), (-0.5, 0.1), (0.8, 1.1))
    axes = half * draw.xyz((0.5, 0.95), (0.5, 0.9), (0.3, 0.65))
    central = draw.ellipsoid("central", base, axes, ((-15, 15), (-8, 8), (0, 0)), 0.9)
    return [transition, central, stroma, urethra]


def _nodules(draw: EllipsoidSampler) -> list[Ellipsoid]:
    half, ellipsoids = draw.half_axes_mm, []
    for k in range(NODULES):
        center = half * (draw.directions() * draw.column(0.1, 0.5) + torch.tensor([0.0, -0.15, 0.1]))
        axes = half.mean(-1, keepdim=True) * draw.xyz(*[(0.12, 0.34)] * 3)
        ellipsoids.append(draw.ellipsoid(f"nodule{k}", center, axes, ANY_ROTATION, 0.7))
    return ellipsoids


def _lesions(draw: EllipsoidSampler) -> list[Ellipsoid]:
    ellipsoids = []
    for _ in range(LESIONS):
        direction = torch.randn(draw.count, 3, generator=draw.generator) + torch.tensor([0.0, 1.0, -0.2])
        center = draw.half_axes_mm * torch.nn.functional.normalize(direction, dim=-1) * draw.column(0.65, 0.9)
        ellipsoids.append(draw.ellipsoid("lesion", center, draw.xyz(*[(2.5, 8)] * 3), probability=0.45))
    return ellipsoids


def _cyst(draw: EllipsoidSampler) -> list[Ellipsoid]:
    center = draw.half_axes_mm * draw.xyz((-0.5, 0.5), (-0.4, 0.5), (-0.2, 0.7))
    return [draw.ellipsoid("cyst", center, draw.xyz(*[(2, 5)] * 3), probability=0.25)]


def _calcifications(draw: EllipsoidSampler) -> list[Ellipsoid]:
    ellipsoids = []
    for _ in range(CALCIFICATIONS):
        center = draw.half_axes_mm * draw.xyz((-0.5, 0.5), (-0.2, 0.4), (-0.5, 0.5))
        axes = draw.xyz((1.0, 3.5), (0.8, 1.6), (1.0, 3.0))
        ellipsoids.append(draw.ellipsoid("calcification", center, axes, probability=0.35))
    return ellipsoids
