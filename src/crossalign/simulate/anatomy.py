"""Seeded male pelves made of ellipsoids about the gland's centre: x left, y posterior, z superior, mm."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.simulate.bodies import LONG_MM, NOWHERE, Body, absent, quadric_coefficients, random_body, triple
from crossalign.simulate.deformation import Shape
from crossalign.simulate.draws import uniform
from crossalign.simulate.gland import EDGE_MM, GlandShape, draw_gland_shape
from crossalign.simulate.settings import AnatomySettings, Range
from crossalign.simulate.surroundings import draw_surroundings, pelvic_wall

NODULES, LESIONS, CALCIFICATIONS = 5, 2, 3


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Pelves (b): rows (b, k, 10) of the bodies outside the gland, the gland, the bodies inside, and their shape map.

    Bodies are painted in the order of `outer_names` and `inner_names`; left and right share a name, hence a tissue.
    """

    outer_names: tuple[str, ...]
    inner_names: tuple[str, ...]
    coefficients: Tensor
    half_axes_mm: Tensor
    shape: GlandShape | Shape


def draw_anatomy(count: int, largest_mm: float, settings: AnatomySettings, generator: torch.Generator) -> Anatomy:
    """Draw pelves; a gland with a half axis over `largest_mm` is shrunk to it, so that it fits its volume."""
    half_axes = _draw_half_axes(count, largest_mm, settings.volume_ml, generator)
    outer, wall = draw_surroundings(half_axes, generator), pelvic_wall(half_axes, generator)
    if not settings.surroundings:
        outer, wall = [absent(body) for body in outer], wall * 0
        wall[..., 9] = NOWHERE
    zero = torch.zeros(count, 3)
    gland = Body("gland", zero, half_axes, zero, torch.full((count,), EDGE_MM), torch.ones(count, dtype=torch.bool))
    inner = [*_zones(half_axes, generator)]
    for wanted, bodies in (
        (settings.nodules, _nodules(half_axes, generator)),
        (settings.lesions, _lesions(half_axes, generator)),
        (settings.cysts, _cyst(half_axes, generator)),
        (settings.calcifications, _calcifications(half_axes, generator)),
    ):
        inner += bodies if wanted else [absent(body) for body in bodies]
    shape = draw_gland_shape(half_axes, settings, generator)
    rows = torch.cat((wall, quadric_coefficients([*outer, gland, *inner])), dim=1)
    return Anatomy(("wall", *(b.name for b in outer)), tuple(b.name for b in inner), rows, half_axes, shape)


def _draw_half_axes(count: int, largest_mm: float, volume_ml: Range, generator: torch.Generator) -> Tensor:
    low, high = volume_ml
    volume = low * (high / low) ** torch.rand(2, count, generator=generator).mean(0)
    ratio = torch.stack([uniform(r, (count,), generator) for r in ((0.95, 1.25), (0.8, 1.02), (0.82, 1.2))], -1)
    axes = 1.05 * ratio * (volume * 1000 * 3 / (4 * torch.pi) / ratio.prod(-1)).pow(1 / 3)[:, None]
    return axes * (largest_mm / axes.amax(-1, keepdim=True)).clamp(max=1)


def _zones(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n = len(half_axes)
    volume_ml = 4 / 3 * torch.pi * half_axes.prod(-1) / 1000
    grown = (0.42 + 0.1 * torch.log2(volume_ml / 20)).clamp(0.45, 0.78) + uniform((-0.05, 0.1), (n,), generator)
    scale = grown[:, None] * torch.tensor([1.0, 0.95, 1.3])
    center = half_axes * triple(((-0.05, 0.05), (-0.3, -0.1), (-0.1, 0.15)), n, generator)
    transition = random_body("transition", center, half_axes * scale, generator)
    front = half_axes * triple(((-0.05, 0.05), (-0.95, -0.75), (-0.2, 0.2)), n, generator)
    axes = half_axes * triple(((0.3, 0.6), (0.15, 0.35), (0.5, 0.8)), n, generator)
    stroma = random_body("stroma", front, axes, generator)
    middle = half_axes * triple(((-0.05, 0.05), (-0.15, 0.15), (0, 0)), n, generator)
    width = uniform((1.2, 4.5), (n, 1), generator)
    axes = torch.cat((width, width, torch.full((n, 1), LONG_MM)), -1)
    urethra = random_body("urethra", middle, axes, generator, ((-25, 15), (-4, 4), (0, 0)), 0.9)
    base = half_axes * triple(((-0.1, 0.1), (-0.5, 0.1), (0.8, 1.1)), n, generator)
    axes = half_axes * triple(((0.5, 0.95), (0.5, 0.9), (0.3, 0.65)), n, generator)
    central = random_body("central", base, axes, generator, ((-15, 15), (-8, 8), (0, 0)), 0.9)
    return [transition, central, stroma, urethra]


def _nodules(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, bodies = len(half_axes), []
    for k in range(NODULES):
        way = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
        center = half_axes * (way * uniform((0.1, 0.5), (n, 1), generator) + torch.tensor([0.0, -0.15, 0.1]))
        axes = half_axes.mean(-1, keepdim=True) * triple(((0.12, 0.34),) * 3, n, generator)
        bodies.append(random_body(f"nodule{k}", center, axes, generator, ((-90, 90), (-90, 90), (-90, 90)), 0.7))
    return bodies


def _lesions(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, bodies = len(half_axes), []
    for _ in range(LESIONS):
        way = torch.randn(n, 3, generator=generator) + torch.tensor([0.0, 1.0, -0.2])
        center = half_axes * torch.nn.functional.normalize(way, dim=-1) * uniform((0.65, 0.9), (n, 1), generator)
        bodies.append(random_body("lesion", center, triple(((2.5, 8),) * 3, n, generator), generator, share=0.45))
    return bodies


def _cyst(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    center = half_axes * triple(((-0.5, 0.5), (-0.4, 0.5), (-0.2, 0.7)), len(half_axes), generator)
    return [random_body("cyst", center, triple(((2, 5),) * 3, len(half_axes), generator), generator, share=0.25)]


def _calcifications(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    bodies = []
    for _ in range(CALCIFICATIONS):
        center = half_axes * triple(((-0.5, 0.5), (-0.2, 0.4), (-0.5, 0.5)), len(half_axes), generator)
        axes = triple(((1.0, 3.5), (0.8, 1.6), (1.0, 3.0)), len(half_axes), generator)
        bodies.append(random_body("calcification", center, axes, generator, share=0.35))
    return bodies
