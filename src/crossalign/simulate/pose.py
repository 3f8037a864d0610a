"""Where the patient lies in each scan, and where the probe is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.geometry import Rigid, euler_to_rotation
from crossalign.simulate.draws import chance, signed, uniform
from crossalign.simulate.sector import Sector
from crossalign.simulate.settings import PoseSettings, UltrasoundSettings

SWEEP_MM = 45.0  # half of what the probe sweeps; what is seen of it ends at the imaged box


@dataclass(frozen=True, eq=False)
class Poses:
    """Rigid transforms (b) from the patient (gland's centre at 0) to both scans; `turn` is what the headers add."""

    patient_to_fixed: Rigid
    patient_to_moving: Rigid
    turn: Rigid


def draw_poses(reach_mm: Tensor, half_mm: Tensor, settings: PoseSettings, generator: torch.Generator) -> Poses:
    """Draw poses that keep glands that reach so far from their centre (b,) in a lattice of these half widths (3,)."""
    count = len(reach_mm)
    quarter = torch.randint(1, 4, (count,), generator=generator) * chance(settings.turned_share, (count,), generator)
    about_z = torch.zeros(count, 3)
    about_z[:, 2] = quarter * (torch.pi / 2)
    turn = euler_to_rotation(about_z)
    room = (half_mm - reach_mm[:, None] - 4.0).clamp(min=0)
    fixed_center = torch.minimum(uniform(settings.fixed_offset_mm, (count, 3), generator), room)
    fixed_center = fixed_center * (chance(0.5, (count, 3), generator).float() * 2 - 1)
    shift = signed(settings.translation_mm, (count, 3), generator)
    moving_center = torch.minimum(torch.maximum(fixed_center + shift, -room), room)
    # One share for all three angles: some patients lie alike in both scans, others turn far about every axis.
    angle = signed(settings.rotation_deg, (count, 3), generator) * torch.rand(count, 1, generator=generator)
    rotation = euler_to_rotation(angle * (torch.pi / 180))
    still = torch.zeros(count, 3)
    return Poses(Rigid(turn, fixed_center), Rigid(rotation @ turn, moving_center), Rigid(turn, still))


def draw_sector(on_moving_mm: Tensor, poses: Poses, settings: UltrasoundSettings, generator: torch.Generator) -> Sector:
    """Place a probe behind each gland, whose surface points (b, n, 3) are given in the moving frame.

    The frame is the probe's: its sweep runs along the lattice's z, but for a small tilt; end-fire probes look upwards.
    """
    count = len(on_moving_mm)
    end_fire = chance(settings.end_fire_share, (count,), generator)
    tilt = torch.stack([signed((0, limit), (count,), generator) for limit in (4.0, 3.0, 5.0)], -1)
    tilt[:, 0] += torch.where(end_fire, -uniform((5, 55), (count,), generator), torch.zeros(count))
    # Probe axes: x sideways = patient x, y along the beam = patient -y (anterior), z along the sweep = patient -z.
    to_patient = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    rotation = poses.turn.rotation @ euler_to_rotation(tilt * (torch.pi / 180)) @ to_patient
    local = (on_moving_mm - poses.patient_to_moving.translation_mm[:, None]) @ rotation
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
