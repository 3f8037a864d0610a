"""What lies around the gland: muscles, fat, bones, vessels, bladder, seminal vesicles, rectum; x left, y posterior, mm.

Their positions were set by the mean brightness of real pairs along rays and columns (docs/concepts/simulation.md).
"""

from dataclasses import replace

import torch
from torch import Tensor

from crossalign.simulation.ellipsoids import ENDLESS_MM, Ellipsoid, EllipsoidSampler, RangeXYZ

LOOSE = 5
ANY_ROTATION: RangeXYZ = ((-90, 90), (-90, 90), (-90, 90))


def draw_surroundings(draw: EllipsoidSampler) -> list[Ellipsoid]:
    """Draw the ellipsoids around glands; later ones cover earlier ones."""
    ellipsoids = [*_muscles(draw), *_front(draw), *_loose(draw), *_bladder(draw), *_seminal_vesicles(draw)]
    return [*ellipsoids, _behind(draw), *_rectum(draw), _neck(draw), _coat(draw)]


def pelvic_wall(draw: EllipsoidSampler) -> Tensor:
    """Make the row (b, 1, 10) of the muscles of the pelvic wall: all that lies outside a cone that opens upwards."""
    n, (hx, hy, _) = draw.count, draw.half_axes_mm.unbind(-1)
    gap, slope, front, back, edge = (
        draw.uniform(*bounds) for bounds in ((-4, 6), (0.6, 1.05), (2, 14), (28, 46), (0.7, 2.0))
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


def _muscles(draw: EllipsoidSampler) -> list[Ellipsoid]:
    hx, hy, hz = draw.half_axes_mm.unbind(-1)
    out, back, up = draw.xyz((13, 26), (-16, 4), (-14, 14)).unbind(-1)
    axes = draw.xyz((8, 20), (20, 40), (22, 42))
    obturator = draw.ellipsoid("obturator", (hx + out, back, up), axes, ((-10, 10), (8, 35), (-25, 5)))
    out, back, up = draw.xyz((2, 7), (0.0, 0.5), (-0.9, -0.2)).unbind(-1)
    axes = draw.xyz((2.5, 8), (16, 32), (18, 36))
    levator = draw.ellipsoid("levator", (hx + out, back * hy, up * hz), axes, ((-10, 10), (12, 42), (-15, 15)))
    axes = draw.xyz((18, 42), (18, 40), (8, 18))
    down = axes[:, 2] + draw.uniform(-3, 5)
    floor = draw.ellipsoid("floor", (0.0, -5.0, -hz - down), axes, ((-15, 15), (-6, 6), (0, 0)), 0.9)
    out, back, up = draw.xyz((-10, 4), (3, 19), (-1.2, 0.2)).unbind(-1)
    axes = draw.xyz((7, 18), (12, 28), (14, 34))
    fossa = draw.ellipsoid("fossa", (hx + out, hy + back, up * hz), axes, ((-20, 20), (-10, 25), (-40, 0)), 0.85)
    muscles = [*draw.with_mirror_image(obturator), floor, *draw.with_mirror_image(fossa)]
    # The levator is a funnel about the lower gland: what the gland leaves of a wider and lower ellipsoid.
    down, thick = draw.uniform(0.3, 1.1), draw.xyz((1, 9), (0, 6), (4, 24))
    axes = draw.half_axes_mm + thick
    sling = draw.ellipsoid("sling", (0.0, 0.1 * hy, -down * hz), axes, ((-12, 12), (0, 0), (0, 0)), 0.5)
    return [*muscles, *draw.with_mirror_image(levator), sling]


def _front(draw: EllipsoidSampler) -> list[Ellipsoid]:
    _, hy, hz = draw.half_axes_mm.unbind(-1)
    out, front, up = draw.xyz((9, 19), (12, 24), (-22, 2)).unbind(-1)
    axes = draw.xyz((10, 20), (6, 11), (12, 22))
    pubis = draw.ellipsoid("pubis", (out, -hy - front, up), axes, ((-40, -5), (-10, 10), (-5, 30)))
    front, up = draw.uniform(2, 7), draw.uniform(-0.4, 0.2)
    axes = draw.xyz((8, 20), (3, 8), (8, 18))
    veins = draw.ellipsoid("veins", (0.0, -hy - front, up * hz), axes, ((-20, 20), (0, 0), (-8, 8)), 0.8)
    return [*draw.with_mirror_image(pubis), veins]


def _coat(draw: EllipsoidSampler) -> Ellipsoid:
    """Make the fibres before and above the gland: what the gland leaves of an ellipsoid."""
    center = draw.half_axes_mm * draw.xyz((-0.03, 0.03), (-0.15, -0.02), (0.05, 0.2))
    return draw.ellipsoid("coat", center, draw.half_axes_mm + draw.xyz((-1, 2), (0.5, 4), (1, 6)))


def _neck(draw: EllipsoidSampler) -> Ellipsoid:
    """Make the muscle of the bladder's neck and what else lies on the base."""
    _, hy, hz = draw.half_axes_mm.unbind(-1)
    thick = draw.xyz((0.6, 1.1), (0.6, 1.2), (0.25, 0.6))
    up, back = draw.uniform(-0.3, 0.4), draw.uniform(-0.4, 0.2)
    center = (0.0, back * hy, hz * (1 + up * thick[:, 2]))
    return draw.ellipsoid("neck", center, draw.half_axes_mm * thick, ((-20, 20), (-6, 6), (0, 0)), 0.9)


def _loose(draw: EllipsoidSampler) -> list[Ellipsoid]:
    """Vessels, bowel and septa that have no fixed position: structures in the fat that both scans show."""
    ellipsoids = []
    for k in range(LOOSE):
        center = draw.directions() * (draw.half_axes_mm + draw.column(6, 26))
        axes = draw.xyz((3, 14), (4, 20), (4, 26))
        ellipsoids.append(draw.ellipsoid(f"loose{k}", center, axes, ANY_ROTATION, 0.5))
    return ellipsoids


def _bladder(draw: EllipsoidSampler) -> list[Ellipsoid]:
    _, hy, hz = draw.half_axes_mm.unbind(-1)
    lumen = draw.xyz((22, 55), (18, 48), (8, 40))
    side, front, overlap = draw.xyz((-8, 8), (-2.2, -0.5), (0.45, 1.1)).unbind(-1)
    center = (side, front * hy, hz + lumen[:, 2] * overlap)
    inside = draw.ellipsoid("urine", center, lumen, ((-25, 10), (-8, 8), (0, 0)), 0.9)
    return [replace(inside, name="bladder_wall", half_axes_mm=lumen + draw.column(2, 6)), inside]


def _seminal_vesicles(draw: EllipsoidSampler) -> list[Ellipsoid]:
    _, hy, hz = draw.half_axes_mm.unbind(-1)
    out, back, up = draw.xyz((9, 18), (0.55, 0.9), (-2, 6)).unbind(-1)
    axes = draw.xyz((11, 20), (3.5, 7), (4, 9))
    vesicle = draw.ellipsoid("vesicles", (out, back * hy, hz + up), axes, ((-10, 30), (-35, -5), (-5, 30)), 0.92)
    return draw.with_mirror_image(vesicle, 0.95)


def _behind(draw: EllipsoidSampler) -> Ellipsoid:
    """Make the tissue between the gland and the rectum, which fills in where the gland's back recedes."""
    axes = draw.xyz((12, 24), (10, 18), (50, 90))
    side, gap = draw.uniform(-3, 3), draw.uniform(-4, 2)
    center = (side, 0.8 * draw.half_axes_mm[:, 1] + gap + axes[:, 1], 0.0)
    return draw.ellipsoid("behind", center, axes, ((-18, 12), (-5, 5), (0, 0)), 0.9)


def _rectum(draw: EllipsoidSampler) -> list[Ellipsoid]:
    radius = draw.uniform(5, 22)
    wall, gap, side = draw.xyz((2, 4.5), (-1, 3), (-4, 4)).unbind(-1)
    center = (side, draw.half_axes_mm[:, 1] + gap + wall + radius, 0.0)
    lumen = torch.stack((radius * draw.uniform(0.9, 1.6), radius, torch.full_like(radius, ENDLESS_MM)), -1)
    content = draw.ellipsoid("rectum_content", center, lumen, ((-22, 14), (-5, 5), (0, 0)))
    outer = lumen + wall[:, None] * torch.tensor([1.0, 1.0, 0.0])
    return [replace(content, name="rectum_wall", half_axes_mm=outer), content]
