"""Ellipsoids in batches, and how much of each lies at a point: one matrix product for all of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.geometry import euler_to_rotation

LONG_MM = 400.0  # the half axis of a body without end, such as the rectum


@dataclass(frozen=True, eq=False)
class Body:
    """One ellipsoid for each of the batch: centre, half axes, angles about x, y, z (b, 3), edge and presence (b,)."""

    name: str
    center_mm: Tensor
    half_axes_mm: Tensor
    angle_deg: Tensor
    edge_mm: Tensor
    present: Tensor


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
    rows[..., 9] = torch.where(present, rows[..., 9], torch.full_like(rows[..., 9], -1e3))
    return rows


def memberships(coefficients: Tensor, points_mm: Tensor) -> Tensor:
    """Evaluate coefficients (b, k, 10) at points (b, 3, n): memberships before clamping (b, k, n)."""
    x, y, z = points_mm.unbind(1)
    basis = torch.stack((x, y, z, x * x, y * y, z * z, x * y, x * z, y * z, torch.ones_like(x)), 1)
    return torch.bmm(coefficients, basis)
