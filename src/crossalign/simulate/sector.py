"""Where a probe's beams run: depth r, angle theta in the plane, angle phi of the plane; and back to beams."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.geometry import Rigid


@dataclass(frozen=True, eq=False)
class Sector:
    """Fans (b) swept about an axis `axis_mm` behind the probe's centre: short is an end-fire fan, long a stepper.

    `probe_to_moving` maps (x sideways, y along the central beam, z along the sweep), mm, from the probe's centre.
    `gap_mm` lies between the near face and the middle of the gland's back. Along the sweep the gland's middle lies at
    `gland_up_mm`, and it reaches `gland_half_mm` to either side.
    """

    probe_to_moving: Rigid
    near_mm: Tensor
    far_mm: Tensor
    theta_rad: Tensor
    phi_rad: Tensor
    axis_mm: Tensor
    gap_mm: Tensor
    gland_up_mm: Tensor
    gland_half_mm: Tensor

    def beam_to_moving(self, unit: Tensor) -> Tensor:
        """Map (n, 3) in [-1, 1], ordered (r, theta, phi), to points of the moving frame (b, n, 3), mm."""
        r, theta, phi = unit[None].unbind(-1)
        r = self.near_mm[:, None] + (r + 1) / 2 * (self.far_mm - self.near_mm)[:, None]
        theta, phi = theta * self.theta_rad[:, None], phi * self.phi_rad[:, None]
        arm = r * theta.cos() + self.axis_mm[:, None]
        points = torch.stack((r * theta.sin(), arm * phi.cos() - self.axis_mm[:, None], arm * phi.sin()), -1)
        return self.probe_to_moving.apply(points)

    def moving_to_beam(self, points_mm: Tensor) -> tuple[Tensor, Tensor]:
        """Map points (b, n, 3) to (r, theta, phi), -1 and 1 at the sector's faces, and to the depth inside it (b, n).

        The second is in mm, and negative outside the sector.
        """
        x, y, z = self.probe_to_moving.inverse().apply(points_mm).unbind(-1)
        axis, near, far = self.axis_mm[:, None], self.near_mm[:, None], self.far_mm[:, None]
        arm = torch.hypot(y + axis, z)
        phi, forward = torch.atan2(z, y + axis), arm - axis
        r, theta = torch.hypot(x, forward), torch.atan2(x, forward)
        inside = torch.minimum(r - near, far - r)
        inside = torch.minimum(inside, (self.theta_rad[:, None] - theta.abs()) * r)
        inside = torch.minimum(inside, (self.phi_rad[:, None] - phi.abs()) * arm)
        unit = ((r - near) * (2 / (far - near)) - 1, theta / self.theta_rad[:, None], phi / self.phi_rad[:, None])
        return torch.stack(unit, -1), inside
