"""Seeded male pelves made of ellipsoids about the gland's centre: x left, y posterior, z superior, mm."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossalign.simulate.bodies import LONG_MM, Body, quadric_coefficients
from crossalign.simulate.deformation import Shape, draw_shape
from crossalign.simulate.draws import chance, uniform
from crossalign.simulate.settings import AnatomySettings, Range

NODULES, LESIONS, CALCIFICATIONS, LOOSE = 5, 2, 3, 5
Three = tuple[Range, Range, Range]
NO_TILT: Three = ((0, 0), (0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Pelves (b): rows (b, k, 10) of the bodies outside the gland, the gland, the bodies inside, and their shape map.

    Bodies are painted in the order of `outer_names` and `inner_names`; left and right share a name, hence a tissue.
    """

    outer_names: tuple[str, ...]
    inner_names: tuple[str, ...]
    coefficients: Tensor
    half_axes_mm: Tensor
    shape: Shape


def draw_anatomy(count: int, largest_mm: float, settings: AnatomySettings, generator: torch.Generator) -> Anatomy:
    """Draw pelves; a gland with a half axis over `largest_mm` is shrunk to it, so that it fits its volume."""
    half_axes = _draw_half_axes(count, largest_mm, settings.volume_ml, generator)
    outer = [*_muscles(half_axes, generator), *_front(half_axes, generator), *_loose(half_axes, generator)]
    outer += [*_bladder(half_axes, generator), *_seminal_vesicles(half_axes, generator), *_rectum(half_axes, generator)]
    if not settings.surroundings:
        outer = [_absent(body) for body in outer]
    zero = torch.zeros(count, 3)
    gland = Body("gland", zero, half_axes, zero, torch.full((count,), 0.7), torch.ones(count, dtype=torch.bool))
    inner = [*_zones(half_axes, generator)]
    for wanted, bodies in (
        (settings.nodules, _nodules(half_axes, generator)),
        (settings.lesions, _lesions(half_axes, generator)),
        (settings.cysts, _cyst(half_axes, generator)),
        (settings.calcifications, _calcifications(half_axes, generator)),
    ):
        inner += bodies if wanted else [_absent(body) for body in bodies]
    shape = draw_shape(half_axes, settings.asymmetry_mm, generator)
    rows = quadric_coefficients([*outer, gland, *inner])
    return Anatomy(tuple(b.name for b in outer), tuple(b.name for b in inner), rows, half_axes, shape)


def _draw_half_axes(count: int, largest_mm: float, volume_ml: Range, generator: torch.Generator) -> Tensor:
    low, high = volume_ml
    volume = low * (high / low) ** torch.rand(count, generator=generator).pow(0.9)
    ratio = torch.stack([uniform(r, (count,), generator) for r in ((0.95, 1.35), (0.75, 1.1), (0.7, 1.2))], -1)
    axes = ratio * (volume * 1000 * 3 / (4 * torch.pi) / ratio.prod(-1)).pow(1 / 3)[:, None]
    return axes * (largest_mm / axes.amax(-1, keepdim=True)).clamp(max=1)


def _triple(ranges: Three, count: int, generator: torch.Generator) -> Tensor:
    return torch.stack([uniform(bounds, (count,), generator) for bounds in ranges], -1)


def _body(
    name: str,
    center_mm: Tensor,
    half_axes_mm: Tensor,
    generator: torch.Generator,
    angle_deg: Three = NO_TILT,
    share: float = 1.0,
) -> Body:
    count = len(center_mm)
    angle, edge = _triple(angle_deg, count, generator), uniform((0.5, 1.2), (count,), generator)
    return Body(name, center_mm, half_axes_mm.expand(count, 3), angle, edge, chance(share, (count,), generator))


def _pair(name: str, left: Body, generator: torch.Generator, share: float = 1.0) -> list[Body]:
    """Make a body and its mirror image across the midline, slightly changed."""
    count = len(left.center_mm)
    mirror, turn = torch.tensor([-1.0, 1.0, 1.0]), torch.tensor([1.0, -1.0, -1.0])
    center = left.center_mm * mirror + _triple(((-2, 2),) * 3, count, generator)
    axes = left.half_axes_mm * _triple(((0.85, 1.15),) * 3, count, generator)
    present = left.present & chance(share, (count,), generator)
    return [left, Body(name, center, axes, left.angle_deg * turn, left.edge_mm, present)]


def _absent(body: Body) -> Body:
    return replace(body, present=torch.zeros_like(body.present))


def _muscles(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, (hx, hy, hz) = len(half_axes), half_axes.unbind(-1)
    out, back, up = _triple(((13, 26), (-16, 4), (-14, 14)), n, generator).unbind(-1)
    obturator = _body(
        "obturator",
        torch.stack((hx + out, back, up), -1),
        _triple(((8, 20), (20, 40), (22, 42)), n, generator),
        generator,
        ((-10, 10), (8, 35), (-25, 5)),
    )
    out, back, up = _triple(((2, 7), (0.0, 0.5), (-0.9, -0.2)), n, generator).unbind(-1)
    levator = _body(
        "levator",
        torch.stack((hx + out, back * hy, up * hz), -1),
        _triple(((2.5, 8), (16, 32), (18, 36)), n, generator),
        generator,
        ((-10, 10), (12, 42), (-15, 15)),
    )
    down = uniform((9, 28), (n,), generator)
    floor = _body(
        "floor",
        torch.stack((torch.zeros(n), -5 * torch.ones(n), -hz - down), -1),
        _triple(((18, 42), (18, 40), (7, 18)), n, generator),
        generator,
        ((-15, 15), (-6, 6), (0, 0)),
        0.9,
    )
    out, back, up = _triple(((4, 16), (10, 28), (-1.2, 0.2)), n, generator).unbind(-1)
    fossa = _body(
        "fossa",
        torch.stack((hx + out, hy + back, up * hz), -1),
        _triple(((7, 18), (12, 28), (14, 34)), n, generator),
        generator,
        ((-20, 20), (-10, 25), (-40, 0)),
        0.85,
    )
    muscles = [*_pair("obturator", obturator, generator), floor, *_pair("fossa", fossa, generator)]
    # The levator hugs the lower gland as a funnel: what shows of an ellipsoid that is wider and lower than the gland.
    down, thick = uniform((0.3, 1.1), (n, 1), generator), _triple(((1, 9), (0, 6), (4, 24)), n, generator)
    center = torch.cat((torch.zeros(n, 1), 0.1 * half_axes[:, 1:2], -down * half_axes[:, 2:]), -1)
    sling = _body("sling", center, half_axes + thick, generator, ((-12, 12), (0, 0), (0, 0)), 0.8)
    return [*muscles, *_pair("levator", levator, generator), sling]


def _front(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, hy = len(half_axes), half_axes[:, 1]
    out, front, up = _triple(((9, 19), (12, 24), (-22, 2)), n, generator).unbind(-1)
    pubis = _body(
        "pubis",
        torch.stack((out, -hy - front, up), -1),
        _triple(((10, 20), (6, 11), (12, 22)), n, generator),
        generator,
        ((-40, -5), (-10, 10), (-5, 30)),
    )
    front, up = uniform((2, 7), (n,), generator), uniform((-0.4, 0.2), (n,), generator)
    veins = _body(
        "veins",
        torch.stack((torch.zeros(n), -hy - front, up * half_axes[:, 2]), -1),
        _triple(((8, 20), (3, 8), (8, 18)), n, generator),
        generator,
        ((-20, 20), (0, 0), (-8, 8)),
        0.8,
    )
    return [*_pair("pubis", pubis, generator), veins]


def _loose(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    """Vessels, bowel and septa that have no fixed place: marks in the fat that both scans can see."""
    n, bodies = len(half_axes), []
    for k in range(LOOSE):
        way = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
        center = way * (half_axes + uniform((6, 26), (n, 1), generator))
        axes = _triple(((3, 14), (4, 20), (4, 26)), n, generator)
        bodies.append(_body(f"loose{k}", center, axes, generator, ((-90, 90), (-90, 90), (-90, 90)), 0.8))
    return bodies


def _bladder(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, (_, hy, hz) = len(half_axes), half_axes.unbind(-1)
    lumen = _triple(((22, 55), (18, 48), (8, 40)), n, generator)
    side, front, overlap = _triple(((-8, 8), (-0.9, 0.1), (0.95, 1.8)), n, generator).unbind(-1)
    center = torch.stack((side, front * hy, hz + lumen[:, 2] * overlap), -1)
    inside = _body("urine", center, lumen, generator, ((-25, 10), (-8, 8), (0, 0)), 0.85)
    wall = uniform((2, 6), (n, 1), generator)
    outside = Body("bladder_wall", center, lumen + wall, inside.angle_deg, inside.edge_mm, inside.present)
    return [outside, inside]


def _seminal_vesicles(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, (_, hy, hz) = len(half_axes), half_axes.unbind(-1)
    out, back, up = _triple(((9, 18), (0.55, 0.9), (-2, 6)), n, generator).unbind(-1)
    vesicle = _body(
        "vesicles",
        torch.stack((out, back * hy, hz + up), -1),
        _triple(((11, 20), (3.5, 7), (4, 9)), n, generator),
        generator,
        ((-10, 30), (-35, -5), (-5, 30)),
        0.92,
    )
    return _pair("vesicles", vesicle, generator, 0.95)


def _rectum(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, hy = len(half_axes), half_axes[:, 1]
    radius = uniform((5, 22), (n,), generator)
    wall, gap, side = _triple(((2, 4.5), (-1, 3), (-4, 4)), n, generator).unbind(-1)
    center = torch.stack((side, hy + gap + wall + radius, torch.zeros(n)), -1)
    endless = torch.full((n,), LONG_MM)
    lumen = torch.stack((radius * uniform((0.9, 1.6), (n,), generator), radius, endless), -1)
    content = _body("rectum_content", center, lumen, generator, ((-22, 14), (-5, 5), (0, 0)))
    outer = torch.stack((lumen[:, 0] + wall, lumen[:, 1] + wall, endless), -1)
    return [Body("rectum_wall", center, outer, content.angle_deg, content.edge_mm, content.present), content]


def _zones(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n = len(half_axes)
    volume_ml = 4 / 3 * torch.pi * half_axes.prod(-1) / 1000
    grown = (0.42 + 0.1 * torch.log2(volume_ml / 20)).clamp(0.35, 0.78) + uniform((-0.08, 0.1), (n,), generator)
    scale = grown[:, None] * torch.tensor([1.0, 0.95, 1.05])
    center = half_axes * _triple(((-0.05, 0.05), (-0.3, -0.1), (0.0, 0.15)), n, generator)
    transition = _body("transition", center, half_axes * scale, generator)
    front = half_axes * _triple(((-0.05, 0.05), (-0.95, -0.75), (-0.2, 0.2)), n, generator)
    axes = half_axes * _triple(((0.3, 0.6), (0.15, 0.35), (0.5, 0.8)), n, generator)
    stroma = _body("stroma", front, axes, generator)
    middle = half_axes * _triple(((-0.05, 0.05), (-0.15, 0.15), (0, 0)), n, generator)
    width = uniform((1.2, 4.5), (n, 1), generator)
    axes = torch.cat((width, width, torch.full((n, 1), LONG_MM)), -1)
    urethra = _body("urethra", middle, axes, generator, ((-25, 15), (-4, 4), (0, 0)), 0.9)
    return [transition, stroma, urethra]


def _nodules(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, bodies = len(half_axes), []
    for k in range(NODULES):
        way = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
        center = half_axes * (way * uniform((0.1, 0.5), (n, 1), generator) + torch.tensor([0.0, -0.15, 0.1]))
        axes = half_axes.mean(-1, keepdim=True) * _triple(((0.12, 0.34),) * 3, n, generator)
        bodies.append(_body(f"nodule{k}", center, axes, generator, ((-90, 90), (-90, 90), (-90, 90)), 0.7))
    return bodies


def _lesions(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, bodies = len(half_axes), []
    for _ in range(LESIONS):
        way = torch.randn(n, 3, generator=generator) + torch.tensor([0.0, 1.0, -0.2])
        center = half_axes * torch.nn.functional.normalize(way, dim=-1) * uniform((0.65, 0.9), (n, 1), generator)
        bodies.append(_body("lesion", center, _triple(((2.5, 8),) * 3, n, generator), generator, share=0.45))
    return bodies


def _cyst(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    center = half_axes * _triple(((-0.5, 0.5), (-0.4, 0.5), (-0.2, 0.7)), len(half_axes), generator)
    return [_body("cyst", center, _triple(((2, 5),) * 3, len(half_axes), generator), generator, share=0.25)]


def _calcifications(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    bodies = []
    for _ in range(CALCIFICATIONS):
        center = half_axes * _triple(((-0.5, 0.5), (-0.2, 0.4), (-0.5, 0.5)), len(half_axes), generator)
        axes = _triple(((1.0, 3.5), (0.8, 1.6), (1.0, 3.0)), len(half_axes), generator)
        bodies.append(_body("calcification", center, axes, generator, share=0.35))
    return bodies
