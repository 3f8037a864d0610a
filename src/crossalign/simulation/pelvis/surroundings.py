"""What lies around the gland: muscles, fat, bones, vessels, bladder, seminal vesicles, rectum; x left, y posterior, mm.

Their positions were set by the mean brightness of real pairs along rays and columns (docs/concepts/simulation.md).
"""

import torch
from torch import Tensor

from crossalign.simulation.ellipsoids import ENDLESS_MM, Ellipsoid, random_ellipsoid, uniform_xyz, with_mirror_image
from crossalign.simulation.random_fields import uniform

LOOSE = 5


def draw_surroundings(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    """Draw the ellipsoids around glands with these half axes (b, 3), mm; later ones cover earlier ones."""
    ellipsoids = [*_muscles(half_axes, generator), *_front(half_axes, generator), *_loose(half_axes, generator)]
    ellipsoids += [*_bladder(half_axes, generator), *_seminal_vesicles(half_axes, generator)]
    ellipsoids.append(_behind(half_axes, generator))
    return [*ellipsoids, *_rectum(half_axes, generator), _neck(half_axes, generator), _coat(half_axes, generator)]


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


def _muscles(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    n, (hx, hy, hz) = len(half_axes), half_axes.unbind(-1)
    out, back, up = uniform_xyz(((13, 26), (-16, 4), (-14, 14)), n, generator).unbind(-1)
    obturator = random_ellipsoid(
        "obturator",
        torch.stack((hx + out, back, up), -1),
        uniform_xyz(((8, 20), (20, 40), (22, 42)), n, generator),
        generator,
        ((-10, 10), (8, 35), (-25, 5)),
    )
    out, back, up = uniform_xyz(((2, 7), (0.0, 0.5), (-0.9, -0.2)), n, generator).unbind(-1)
    levator = random_ellipsoid(
        "levator",
        torch.stack((hx + out, back * hy, up * hz), -1),
        uniform_xyz(((2.5, 8), (16, 32), (18, 36)), n, generator),
        generator,
        ((-10, 10), (12, 42), (-15, 15)),
    )
    thick = uniform_xyz(((18, 42), (18, 40), (8, 18)), n, generator)
    down = thick[:, 2] + uniform((-3, 5), (n,), generator)
    floor = random_ellipsoid(
        "floor",
        torch.stack((torch.zeros(n), -5 * torch.ones(n), -hz - down), -1),
        thick,
        generator,
        ((-15, 15), (-6, 6), (0, 0)),
        0.9,
    )
    out, back, up = uniform_xyz(((-10, 4), (3, 19), (-1.2, 0.2)), n, generator).unbind(-1)
    fossa = random_ellipsoid(
        "fossa",
        torch.stack((hx + out, hy + back, up * hz), -1),
        uniform_xyz(((7, 18), (12, 28), (14, 34)), n, generator),
        generator,
        ((-20, 20), (-10, 25), (-40, 0)),
        0.85,
    )
    muscles = [*with_mirror_image(obturator, generator), floor, *with_mirror_image(fossa, generator)]
    # The levator is a funnel about the lower gland: what the gland leaves of a wider and lower ellipsoid.
    down, thick = uniform((0.3, 1.1), (n, 1), generator), uniform_xyz(((1, 9), (0, 6), (4, 24)), n, generator)
    center = torch.cat((torch.zeros(n, 1), 0.1 * half_axes[:, 1:2], -down * half_axes[:, 2:]), -1)
    sling = random_ellipsoid("sling", center, half_axes + thick, generator, ((-12, 12), (0, 0), (0, 0)), 0.5)
    return [*muscles, *with_mirror_image(levator, generator), sling]


def _front(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    n, hy = len(half_axes), half_axes[:, 1]
    out, front, up = uniform_xyz(((9, 19), (12, 24), (-22, 2)), n, generator).unbind(-1)
    pubis = random_ellipsoid(
        "pubis",
        torch.stack((out, -hy - front, up), -1),
        uniform_xyz(((10, 20), (6, 11), (12, 22)), n, generator),
        generator,
        ((-40, -5), (-10, 10), (-5, 30)),
    )
    front, up = uniform((2, 7), (n,), generator), uniform((-0.4, 0.2), (n,), generator)
    veins = random_ellipsoid(
        "veins",
        torch.stack((torch.zeros(n), -hy - front, up * half_axes[:, 2]), -1),
        uniform_xyz(((8, 20), (3, 8), (8, 18)), n, generator),
        generator,
        ((-20, 20), (0, 0), (-8, 8)),
        0.8,
    )
    return [*with_mirror_image(pubis, generator), veins]


def _coat(half_axes: Tensor, generator: torch.Generator) -> Ellipsoid:
    """Make the fibres before and above the gland: what the gland leaves of an ellipsoid."""
    n = len(half_axes)
    center = half_axes * uniform_xyz(((-0.03, 0.03), (-0.15, -0.02), (0.05, 0.2)), n, generator)
    thick = uniform_xyz(((-1, 2), (0.5, 4), (1, 6)), n, generator)
    return random_ellipsoid("coat", center, half_axes + thick, generator)


def _neck(half_axes: Tensor, generator: torch.Generator) -> Ellipsoid:
    """Make the muscle of the bladder's neck and what else lies on the base."""
    n, (_, hy, hz) = len(half_axes), half_axes.unbind(-1)
    thick = uniform_xyz(((0.6, 1.1), (0.6, 1.2), (0.25, 0.6)), n, generator)
    up, back = uniform((-0.3, 0.4), (n,), generator), uniform((-0.4, 0.2), (n,), generator)
    center = torch.stack((torch.zeros(n), back * hy, hz * (1 + up * thick[:, 2])), -1)
    return random_ellipsoid("neck", center, half_axes * thick, generator, ((-20, 20), (-6, 6), (0, 0)), 0.9)


def _loose(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    """Vessels, bowel and septa that have no fixed position: structures in the fat that both scans show."""
    n, ellipsoids = len(half_axes), []
    for k in range(LOOSE):
        direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
        center = direction * (half_axes + uniform((6, 26), (n, 1), generator))
        axes = uniform_xyz(((3, 14), (4, 20), (4, 26)), n, generator)
        ellipsoids.append(
            random_ellipsoid(f"loose{k}", center, axes, generator, ((-90, 90), (-90, 90), (-90, 90)), 0.5)
        )
    return ellipsoids


def _bladder(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    n, (_, hy, hz) = len(half_axes), half_axes.unbind(-1)
    lumen = uniform_xyz(((22, 55), (18, 48), (8, 40)), n, generator)
    side, front, overlap = uniform_xyz(((-8, 8), (-2.2, -0.5), (0.45, 1.1)), n, generator).unbind(-1)
    center = torch.stack((side, front * hy, hz + lumen[:, 2] * overlap), -1)
    inside = random_ellipsoid("urine", center, lumen, generator, ((-25, 10), (-8, 8), (0, 0)), 0.9)
    wall = uniform((2, 6), (n, 1), generator)
    outside = Ellipsoid("bladder_wall", center, lumen + wall, inside.angle_deg, inside.edge_mm, inside.present)
    return [outside, inside]


def _seminal_vesicles(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    n, (_, hy, hz) = len(half_axes), half_axes.unbind(-1)
    out, back, up = uniform_xyz(((9, 18), (0.55, 0.9), (-2, 6)), n, generator).unbind(-1)
    vesicle = random_ellipsoid(
        "vesicles",
        torch.stack((out, back * hy, hz + up), -1),
        uniform_xyz(((11, 20), (3.5, 7), (4, 9)), n, generator),
        generator,
        ((-10, 30), (-35, -5), (-5, 30)),
        0.92,
    )
    return with_mirror_image(vesicle, generator, 0.95)


def _behind(half_axes: Tensor, generator: torch.Generator) -> Ellipsoid:
    """Make the tissue between the gland and the rectum, which fills in where the gland's back recedes."""
    n, hy = len(half_axes), half_axes[:, 1]
    axes = uniform_xyz(((12, 24), (10, 18), (50, 90)), n, generator)
    side, gap = (uniform(bounds, (n,), generator) for bounds in ((-3, 3), (-4, 2)))
    center = torch.stack((side, 0.8 * hy + gap + axes[:, 1], torch.zeros(n)), -1)
    return random_ellipsoid("behind", center, axes, generator, ((-18, 12), (-5, 5), (0, 0)), 0.9)


def _rectum(half_axes: Tensor, generator: torch.Generator) -> list[Ellipsoid]:
    n, hy = len(half_axes), half_axes[:, 1]
    radius = uniform((5, 22), (n,), generator)
    wall, gap, side = uniform_xyz(((2, 4.5), (-1, 3), (-4, 4)), n, generator).unbind(-1)
    center = torch.stack((side, hy + gap + wall + radius, torch.zeros(n)), -1)
    endless = torch.full((n,), ENDLESS_MM)
    lumen = torch.stack((radius * uniform((0.9, 1.6), (n,), generator), radius, endless), -1)
    content = random_ellipsoid("rectum_content", center, lumen, generator, ((-22, 14), (-5, 5), (0, 0)))
    outer = torch.stack((lumen[:, 0] + wall, lumen[:, 1] + wall, endless), -1)
    return [Ellipsoid("rectum_wall", center, outer, content.angle_deg, content.edge_mm, content.present), content]
