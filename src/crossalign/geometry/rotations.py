"""Static-axis x-y-z Euler angles: R = Rz Ry Rx, the papers' convention."""

import torch
from torch import Tensor

from crossalign.types import Rotations, Vectors


def euler_to_rotation(angle_rad: Vectors) -> Rotations:
    """Turn angles (*b, 3) about the static x, y and z axes, applied in that order, into matrices (*b, 3, 3)."""
    (sx, sy, sz), (cx, cy, cz) = angle_rad.sin().unbind(-1), angle_rad.cos().unbind(-1)
    rows = (
        torch.stack((cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz), dim=-1),
        torch.stack((cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz), dim=-1),
        torch.stack((-sy, sx * cy, cx * cy), dim=-1),
    )
    return torch.stack(rows, dim=-2)


def rotation_to_euler(rotation: Rotations) -> Vectors:
    """Recover the angles (*b, 3), rad, of `euler_to_rotation`; y lies in [-pi/2, pi/2], and x is 0 in gimbal lock."""
    cos_y = torch.hypot(rotation[..., 0, 0], rotation[..., 1, 0])
    y = torch.atan2(-rotation[..., 2, 0], cos_y)
    locked = cos_y < 1e-7
    x = torch.where(locked, torch.zeros_like(y), torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2]))
    # z from R Rx^T = Rz Ry rather than from its own two entries, which near gimbal lock are rounding noise as x's are:
    # so z always makes up for x, and the three angles together give the rotation back.
    sin_z = x.sin() * rotation[..., 0, 2] - x.cos() * rotation[..., 0, 1]
    cos_z = x.cos() * rotation[..., 1, 1] - x.sin() * rotation[..., 1, 2]
    return torch.stack((x, y, torch.atan2(sin_z, cos_z)), dim=-1)


def quarter_turn(quarters: int) -> Tensor:
    """Return the rotation (3, 3), float64, of so many quarter turns about z, from x to y; its entries are exact."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters % 4]
    return torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
