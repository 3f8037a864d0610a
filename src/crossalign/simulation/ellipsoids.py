"""Ellipsoids in batches, and how much of each lies at a point: one matrix product for all of them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossalign.geometry import euler_to_rotation
from crossalign.simulation.fields import chance, uniform
from crossalign.simulation.settings import Range

NOWHERE = -1e3  # a membership before clamping that no point reaches
LONG_MM = 400.0  # the half axis of a body without end, such as the rectum
Three = tuple[Range, Range, Range]
NO_TILT: Three = ((0, 0), (0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Body:
    """One ellipsoid for each of the batch: centre, half axes, angles about x, y, z (b, 3), edge and presence (b,)."""

    name: str
    center_mm: Tensor
    half_axes_mm: Tensor
    angle_deg: Tensor
    edge_mm: Tensor
    present: Tensor


def triple(ranges: Three, count: int, generator: torch.Generator) -> Tensor:
    """Draw (count, 3), one range a column."""
    return torch.stack([uniform(bounds, (count,), generator) for bounds in ranges], -1)


def random_body(
    name: str,
    center_mm: Tensor,
    half_axes_mm: Tensor,
    generator: torch.Generator,
    angle_deg: Three = NO_TILT,
    share: float = 1.0,
) -> Body:
    """Make an ellipsoid that is there in a `share` of the pelves, its angles drawn from `angle_deg`."""
    count = len(center_mm)
    angle, edge = triple(angle_deg, count, generator), uniform((0.5, 1.2), (count,), generator)
    return Body(name, center_mm, half_axes_mm.expand(count, 3), angle, edge, chance(share, (count,), generator))


def mirrored(name: str, left: Body, generator: torch.Generator, share: float = 1.0) -> list[Body]:
    """Make a body and its mirror image across the midline, slightly changed."""
    count = len(left.center_mm)
    mirror, turn = torch.tensor([-1.0, 1.0, 1.0]), torch.tensor([1.0, -1.0, -1.0])
    center = left.center_mm * mirror + triple(((-2, 2),) * 3, count, generator)
    axes = left.half_axes_mm * triple(((0.85, 1.15),) * 3, count, generator)
    present = left.present & chance(share, (count,), generator)
    return [left, Body(name, center, axes, left.angle_deg * turn, left.edge_mm, present)]


def absent(body: Body) -> Body:
    """Leave a body out of every pelvis."""
    return replace(body, present=torch.zeros_like(body.present))


def quadric_coefficients(bodies: list[Body]) -> Tensor:
    """Make rows (b, k, 10) over (x, y, z, xx, yy, zz, xy, xz, yz, 1) whose products are memberships before clamping.

    A membership is 1 inside, 0 outside and 1/2 on the surface, linear over twice `edge_mm` where the body is thinnest.
    """
    center = torch.stack([body.center_mm for body in bodies], 1)
    axes = torch.stack([body.half_axes_mm for body in bodies], 1)
    rotation = euler_to_rotation(torch.stack([body.angle_deg for body in bodies], 1) * (torch.pi / 180))
    edge = torch.stack([body.edge_mm for body in bodies], 1)
    present = torch.stack([body.present for body in bodies], 1)
    form = (rotation / axes.square()[:, :, None]) @ rotation.mT
    linear = -2 * (form @ center[..., None])[..., 0]
    constant = (center * (form @ center[..., None])[..., 0]).sum(-1)
    squares = form.diagonal(dim1=-2, dim2=-1)
    cross = 2 * torch.stack((form[..., 0, 1], form[..., 0, 2], form[..., 1, 2]), -1)
    steepness = axes.amin(-1) / (4 * edge)
    rows = torch.cat((linear, squares, cross, constant[..., None] - 1), -1) * -steepness[..., None]
    rows[..., 9] += 0.5
    rows = torch.where(present[..., None], rows, torch.zeros_like(rows))
    rows[..., 9] = torch.where(present, rows[..., 9], torch.full_like(rows[..., 9], NOWHERE))
    return rows


def memberships(coefficients: Tensor, points_mm: Tensor) -> Tensor:
    """Evaluate coefficients (b, k, 10) at points (b, 3, n): memberships before clamping (b, k, n)."""
    x, y, z = points_mm.unbind(1)
    basis = torch.stack((x, y, z, x * x, y * y, z * z, x * y, x * z, y * z, torch.ones_like(x)), 1)
    return torch.bmm(coefficients, basis)
