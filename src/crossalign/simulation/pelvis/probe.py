"""The ultrasound probe: its beams, and where it lies in the moving scan."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.geometry import Rigid, euler_to_rotation
from crossalign.simulation.pairs import Poses
from crossalign.simulation.random_fields import bernoulli, signed_uniform, uniform
from crossalign.simulation.settings import UltrasoundSettings


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


SWEEP_MM = 45.0  # half of what the probe sweeps; what is imaged of it ends at the imaged box


def draw_sector(
    moving_surface_mm: Tensor, poses: Poses, settings: UltrasoundSettings, generator: torch.Generator
) -> Sector:
    """Place a probe behind each gland, whose surface points (b, n, 3) are given in the moving frame.

    The frame is the probe's: its sweep runs along the grid's z, but for a small tilt; end-fire probes look upwards.
    """
    count = len(moving_surface_mm)
    end_fire = bernoulli(settings.end_fire_fraction, (count,), generator)
    tilt = torch.stack([signed_uniform((0, limit), (count,), generator) for limit in (4.0, 3.0, 5.0)], -1)
    tilt[:, 0] += torch.where(end_fire, -uniform((5, 55), (count,), generator), torch.zeros(count))
    # Probe axes: x sideways = patient x, y along the beam = patient -y (anterior), z along the sweep = patient -z.
    to_patient = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    rotation = poses.header_rotation.rotation @ euler_to_rotation(tilt * (torch.pi / 180)) @ to_patient
    local = (moving_surface_mm - poses.patient_to_moving.translation_mm[:, None]) @ rotation
    near = torch.where(end_fire, uniform((4, 10), (count,), generator), uniform((8.2, 12), (count,), generator))
    gap = uniform(settings.gap_mm, (count,), generator)
    behind = near + gap - _back_mm(local)
    middle = (local.amin(1) + local.amax(1)) / 2
    side = middle[:, 0] + uniform(settings.side_mm, (count,), generator)
    up = uniform(settings.along_mm, (count,), generator)
    half = (local[..., 2].amax(1) - local[..., 2].amin(1)) / 2
    origin = torch.stack((side, -behind, middle[:, 2] - up), -1)
    center = poses.patient_to_moving.translation_mm + (rotation @ origin[..., None])[..., 0]
    axis = torch.where(end_fire, uniform((2, 40), (count,), generator), uniform((300, 900), (count,), generator))
    phi = torch.atan2(torch.full_like(axis, SWEEP_MM), axis + behind)
    theta = uniform(settings.half_angle_deg, (count,), generator) * (torch.pi / 180)
    far = near + uniform((75, 110), (count,), generator)
    return Sector(Rigid(rotation, center), near, far, theta, phi, axis, gap, up, half)


def _back_mm(local_mm: Tensor) -> Tensor:
    """Return where the middle of each gland's back lies (b,) along the beam, of surface points (b, n, 3)."""
    middle = (local_mm[..., 0].abs() < 8) & (local_mm[..., 2].abs() < 12) & (local_mm[..., 1] < 0)
    return torch.where(middle, local_mm[..., 1], local_mm[..., 1].amax(1, keepdim=True)).amin(1)
