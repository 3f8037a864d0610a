"""What lies around the gland: muscles, fat, bones, vessels, bladder, seminal vesicles, rectum; x left, y posterior, mm.

Their places were set by the mean brightness of real pairs along rays and columns (docs/simulation.md).
"""

import torch
from torch import Tensor

from crossalign.simulation.ellipsoids import LONG_MM, Body, mirrored, random_body, triple
from crossalign.simulation.fields import uniform

LOOSE = 5


def draw_surroundings(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    """Draw the bodies around glands with these half axes (b, 3), mm, in the order in which they are painted."""
    bodies = [*_muscles(half_axes, generator), *_front(half_axes, generator), *_loose(half_axes, generator)]
    bodies += [*_bladder(half_axes, generator), *_seminal_vesicles(half_axes, generator)]
    bodies.append(_behind(half_axes, generator))
    return [*bodies, *_rectum(half_axes, generator), _neck(half_axes, generator), _coat(half_axes, generator)]


def pelvic_wall(half_axes: Tensor, generator: torch.Generator) -> Tensor:
    """Make the row (b, 1, 10) of the muscles of the pelvic wall: all that lies outside a cone that opens upwards."""
    n, (hx, hy, _) = len(half_axes), half_axes.unbind(-1)
    gap, slope, front, back, edge = (
        uniform(bounds, (n,), generator) for bounds in ((-4, 6), (0.6, 1.05), (2, 14), (28, 46), (0.7, 2.0))
    )
    apex = -(hx + gap) / slope
    tall = (2 * hy + front + back) / 2 / -apex
    middle = (back - front) / 2
    zero = torch.zeros(n)
    form = torch.stack((1 / slope.square(), 1 / tall.square(), -torch.ones(n), zero, zero, zero), -1)
    linear = torch.stack((zero, -2 * middle / tall.square(), 2 * apex), -1)
    constant = middle.square() / tall.square() - apex.square()
    steepness = slope / (4 * edge * -apex)
    row = torch.cat((linear, form, constant[:, None]), -1) * steepness[:, None]
    row[:, 9] += 0.5
    return row[:, None]


def _muscles(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, (hx, hy, hz) = len(half_axes), half_axes.unbind(-1)
    out, back, up = triple(((13, 26), (-16, 4), (-14, 14)), n, generator).unbind(-1)
    obturator = random_body(
        "obturator",
        torch.stack((hx + out, back, up), -1),
        triple(((8, 20), (20, 40), (22, 42)), n, generator),
        generator,
        ((-10, 10), (8, 35), (-25, 5)),
    )
    out, back, up = triple(((2, 7), (0.0, 0.5), (-0.9, -0.2)), n, generator).unbind(-1)
    levator = random_body(
        "levator",
        torch.stack((hx + out, back * hy, up * hz), -1),
        triple(((2.5, 8), (16, 32), (18, 36)), n, generator),
        generator,
        ((-10, 10), (12, 42), (-15, 15)),
    )
    thick = triple(((18, 42), (18, 40), (8, 18)), n, generator)
    down = thick[:, 2] + uniform((-3, 5), (n,), generator)
    floor = random_body(
        "floor",
        torch.stack((torch.zeros(n), -5 * torch.ones(n), -hz - down), -1),
        thick,
        generator,
        ((-15, 15), (-6, 6), (0, 0)),
        0.9,
    )
    out, back, up = triple(((-10, 4), (3, 19), (-1.2, 0.2)), n, generator).unbind(-1)
    fossa = random_body(
        "fossa",
        torch.stack((hx + out, hy + back, up * hz), -1),
        triple(((7, 18), (12, 28), (14, 34)), n, generator),
        generator,
        ((-20, 20), (-10, 25), (-40, 0)),
        0.85,
    )
    muscles = [*mirrored("obturator", obturator, generator), floor, *mirrored("fossa", fossa, generator)]
    # The levator hugs the lower gland as a funnel: what shows of an ellipsoid that is wider and lower than the gland.
    down, thick = uniform((0.3, 1.1), (n, 1), generator), triple(((1, 9), (0, 6), (4, 24)), n, generator)
    center = torch.cat((torch.zeros(n, 1), 0.1 * half_axes[:, 1:2], -down * half_axes[:, 2:]), -1)
    sling = random_body("sling", center, half_axes + thick, generator, ((-12, 12), (0, 0), (0, 0)), 0.5)
    return [*muscles, *mirrored("levator", levator, generator), sling]


def _front(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, hy = len(half_axes), half_axes[:, 1]
    out, front, up = triple(((9, 19), (12, 24), (-22, 2)), n, generator).unbind(-1)
    pubis = random_body(
        "pubis",
        torch.stack((out, -hy - front, up), -1),
        triple(((10, 20), (6, 11), (12, 22)), n, generator),
        generator,
        ((-40, -5), (-10, 10), (-5, 30)),
    )
    front, up = uniform((2, 7), (n,), generator), uniform((-0.4, 0.2), (n,), generator)
    veins = random_body(
        "veins",
        torch.stack((torch.zeros(n), -hy - front, up * half_axes[:, 2]), -1),
        triple(((8, 20), (3, 8), (8, 18)), n, generator),
        generator,
        ((-20, 20), (0, 0), (-8, 8)),
        0.8,
    )
    return [*mirrored("pubis", pubis, generator), veins]


def _coat(half_axes: Tensor, generator: torch.Generator) -> Body:
    """Make the fibres between the gland and what lies before and above it: what shows of a body behind the gland."""
    n = len(half_axes)
    center = half_axes * triple(((-0.03, 0.03), (-0.15, -0.02), (0.05, 0.2)), n, generator)
    thick = triple(((-1, 2), (0.5, 4), (1, 6)), n, generator)
    return random_body("coat", center, half_axes + thick, generator)


def _neck(half_axes: Tensor, generator: torch.Generator) -> Body:
    """Make the muscle of the bladder's neck and what else lies on the base."""
    n, (_, hy, hz) = len(half_axes), half_axes.unbind(-1)
    thick = triple(((0.6, 1.1), (0.6, 1.2), (0.25, 0.6)), n, generator)
    up, back = uniform((-0.3, 0.4), (n,), generator), uniform((-0.4, 0.2), (n,), generator)
    center = torch.stack((torch.zeros(n), back * hy, hz * (1 + up * thick[:, 2])), -1)
    return random_body("neck", center, half_axes * thick, generator, ((-20, 20), (-6, 6), (0, 0)), 0.9)


def _loose(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    """Vessels, bowel and septa that have no fixed place: marks in the fat that both scans can see."""
    n, bodies = len(half_axes), []
    for k in range(LOOSE):
        way = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
        center = way * (half_axes + uniform((6, 26), (n, 1), generator))
        axes = triple(((3, 14), (4, 20), (4, 26)), n, generator)
        bodies.append(random_body(f"loose{k}", center, axes, generator, ((-90, 90), (-90, 90), (-90, 90)), 0.5))
    return bodies


def _bladder(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, (_, hy, hz) = len(half_axes), half_axes.unbind(-1)
    lumen = triple(((22, 55), (18, 48), (8, 40)), n, generator)
    side, front, overlap = triple(((-8, 8), (-2.2, -0.5), (0.45, 1.1)), n, generator).unbind(-1)
    center = torch.stack((side, front * hy, hz + lumen[:, 2] * overlap), -1)
    inside = random_body("urine", center, lumen, generator, ((-25, 10), (-8, 8), (0, 0)), 0.9)
    wall = uniform((2, 6), (n, 1), generator)
    outside = Body("bladder_wall", center, lumen + wall, inside.angle_deg, inside.edge_mm, inside.present)
    return [outside, inside]


def _seminal_vesicles(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, (_, hy, hz) = len(half_axes), half_axes.unbind(-1)
    out, back, up = triple(((9, 18), (0.55, 0.9), (-2, 6)), n, generator).unbind(-1)
    vesicle = random_body(
        "vesicles",
        torch.stack((out, back * hy, hz + up), -1),
        triple(((11, 20), (3.5, 7), (4, 9)), n, generator),
        generator,
        ((-10, 30), (-35, -5), (-5, 30)),
        0.92,
    )
    return mirrored("vesicles", vesicle, generator, 0.95)


def _behind(half_axes: Tensor, generator: torch.Generator) -> Body:
    """Make the tissue between the gland and the rectum, which fills in where the gland's back recedes."""
    n, hy = len(half_axes), half_axes[:, 1]
    axes = triple(((12, 24), (10, 18), (50, 90)), n, generator)
    side, gap = (uniform(bounds, (n,), generator) for bounds in ((-3, 3), (-4, 2)))
    center = torch.stack((side, 0.8 * hy + gap + axes[:, 1], torch.zeros(n)), -1)
    return random_body("behind", center, axes, generator, ((-18, 12), (-5, 5), (0, 0)), 0.9)


def _rectum(half_axes: Tensor, generator: torch.Generator) -> list[Body]:
    n, hy = len(half_axes), half_axes[:, 1]
    radius = uniform((5, 22), (n,), generator)
    wall, gap, side = triple(((2, 4.5), (-1, 3), (-4, 4)), n, generator).unbind(-1)
    center = torch.stack((side, hy + gap + wall + radius, torch.zeros(n)), -1)
    endless = torch.full((n,), LONG_MM)
    lumen = torch.stack((radius * uniform((0.9, 1.6), (n,), generator), radius, endless), -1)
    content = random_body("rectum_content", center, lumen, generator, ((-22, 14), (-5, 5), (0, 0)))
    outer = torch.stack((lumen[:, 0] + wall, lumen[:, 1] + wall, endless), -1)
    return [Body("rectum_wall", center, outer, content.angle_deg, content.edge_mm, content.present), content]
