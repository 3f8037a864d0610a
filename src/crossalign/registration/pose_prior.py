"""What anatomy says of the rotation between two scans before they are looked at: a Gaussian about a mean rotation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.geometry import Grid, Rigid, axis_orientations, euler_to_rotation
from crossalign.types import Triple

# Of the initial transform from the mean: within the first the way in which the moving axes lie is clear, within the
# second the headers' way is believed, beyond the last the axes do not mean what the prior says.
CLEAR_DEG, BELIEVED_DEG, FARTHEST_DEG = 30.0, 60.0, 40.0


@dataclass(frozen=True)
class RotationPrior:
    """The rotation from a fixed to a moving scan, each in its patient's axes: Gaussian, three angles in degrees.

    `mean_deg` and `sd_deg` are the mean and the standard deviation of the static x-y-z Euler angles about the patient's
    left (x), posterior (y) and superior (z) axes. `source` says in words what it is of and where it is from.
    """

    mean_deg: Triple
    sd_deg: Triple
    source: str

    def rotation(self) -> Tensor:
        """Return the mean rotation (3, 3), float64, fixed to moving, in the patient's axes."""
        return euler_to_rotation(torch.tensor(self.mean_deg, dtype=torch.float64) * (math.pi / 180))

    def precision(self) -> Tensor:
        """Return the inverse covariance (3, 3) of a small rotation vector, radians, in the patient's axes."""
        sd = torch.tensor(self.sd_deg, dtype=torch.float64) * (math.pi / 180)
        return torch.diag(1 / sd.square())

    def text(self) -> str:
        """Return it in words, for reports."""
        mean, sd = (" ".join(f"{value:g}" for value in one) for one in (self.mean_deg, self.sd_deg))
        return f"{self.source}: {mean} +- {sd} degrees about the patient's L, P and S axes"


# The probe in the rectum tilts the ultrasound's axes. Measured over the reference transforms of the training split
# (40 patients) of the public MR-ultrasound pairs, rounded: docs/concepts/rotation-prior.md. The references' own angles
# are uncertain by several degrees, which is part of the deviations.
TRANSRECTAL = RotationPrior((-7.5, 0.0, -1.5), (9.5, 6.5, 8.5), "prostate MR to transrectal ultrasound")


@dataclass(frozen=True, eq=False)
class ExpectedRotation:
    """A prior in the coordinates of two scans' worlds.

    `rotation` (3, 3) is the mean rotation of fixed_to_moving. `precision` (3, 3) is the inverse covariance of the
    rotation vector w (radians, along the fixed world's axes) in fixed_to_moving = rotation @ exp(w).
    """

    rotation: Tensor
    precision: Tensor

    def deviation_deg(self, fixed_to_moving: Rigid) -> float:
        """Return the angle between a transform's rotation and the mean."""
        turned = self.rotation.mT @ fixed_to_moving.rotation.to(self.rotation)
        return float(Rigid(turned, torch.zeros(3, dtype=torch.float64)).angle_deg())

    def in_frames(self, fixed_to_frame: Rigid, moving_to_frame: Rigid) -> ExpectedRotation:
        """Return the same expectation between two other worlds."""
        fixed, moving = fixed_to_frame.rotation, moving_to_frame.rotation
        return ExpectedRotation(moving @ self.rotation @ fixed.mT, fixed @ self.precision @ fixed.mT)

    def attraction(self) -> Tensor:
        """Return the matrix A (3, 3) whose trace tr(R^T A) falls off from the mean as the Gaussian's logarithm does.

        To second order: tr(R^T A) = constant - w^T precision w / 2. Added to a covariance it makes the closed-form fit
        of matched points (`geometry.fit.fit_rigid`) the maximum a posteriori fit.
        """
        shared = torch.eye(3, dtype=torch.float64) * self.precision.diagonal().sum() / 2 - self.precision
        return self.rotation @ (shared + 0.0)


def expected_rotation(
    prior: RotationPrior, moving: Grid, initial: Rigid, fixed_to_patient: Tensor, headers: bool = True
) -> ExpectedRotation | None:
    """Express a prior in the scans' worlds; None where the initial transform turns too far from it.

    `fixed_to_patient` (3, 3) rotates the fixed world's axes to the patient's. The moving grid's axes are taken for the
    patient's in the one of 24 ways that the initial transform agrees with best: what its header says of them does not
    matter. Farther than 30 degrees from the mean the ways are hard to tell apart: there the moving header is believed,
    or that it is wrong as the fixed one is, up to 60 degrees from the mean; `headers` False leaves that out, as in a
    frame that has turned the moving world alone. Otherwise the best way counts up to 40
    degrees, and beyond that no way agrees, as where a tracker's axes lie aslant to the probe's.
    """
    mean, precision = prior.rotation(), fixed_to_patient.mT @ prior.precision() @ fixed_to_patient

    def through(moving_to_patient: Tensor) -> ExpectedRotation:
        return ExpectedRotation(moving_to_patient.mT @ mean @ fixed_to_patient, precision)

    axes, turns = nearest_axes(moving), axis_orientations().double()
    ways = [through(way @ axes) for way in turns[torch.linalg.det(turns) > 0]]
    best = min(ways, key=lambda one: one.deviation_deg(initial))
    if best.deviation_deg(initial) <= CLEAR_DEG:
        return best
    farthest = best if best.deviation_deg(initial) <= FARTHEST_DEG else None
    if not headers:
        return farthest
    believed = (through(torch.eye(3, dtype=torch.float64)), through(fixed_to_patient))
    nearer = min(believed, key=lambda one: one.deviation_deg(initial))
    return nearer if nearer.deviation_deg(initial) <= BELIEVED_DEG else farthest


def nearest_axes(grid: Grid) -> Tensor:
    """Return the rotation (3, 3) from the world's axes to a grid's own, the last one reversed where they mirror."""
    axes = torch.tensor(grid.direction, dtype=torch.float64).mT.clone()
    if float(torch.linalg.det(axes)) < 0:
        axes[2] = -axes[2]
    return axes
