"""The axes that crops are cut along, and what is known of the rotation beforehand.

The twins of `registration.frame` and `registration.pose_prior`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from crossalign.onnx_runtime.motions import Array, Motion, rotation_of_angles
from crossalign.onnx_runtime.scans import Lattice

ALIGNED, DECIMALS = 1e-6, 9
# The prior `transrectal` of `registration.pose_prior`, with the angles within which it is used.
MEAN_DEG, SD_DEG = (-7.5, 0.0, -1.5), (9.5, 6.5, 8.5)
CLEAR_DEG, BELIEVED_DEG, FARTHEST_DEG = 30.0, 60.0, 40.0
PRIOR_TEXT = (
    "prostate MR to transrectal ultrasound: -7.5 0 -1.5 +- 9.5 6.5 8.5 degrees about the patient's L, P and S axes"
)


def rotation_to_axes(lattice: Lattice) -> Array:
    """Return the rotation (3, 3) that brings a lattice's axes to L, P and S, each to the nearest."""
    sizes = np.abs(lattice.direction)
    best = max(itertools.permutations(range(3)), key=lambda order: sum(sizes[order[axis], axis] for axis in range(3)))
    nearest = np.zeros((3, 3))
    for axis, row in enumerate(best):
        nearest[row, axis] = 1.0 if lattice.direction[row, axis] >= 0 else -1.0
    return nearest @ lattice.direction.T


def frame_of(lattice: Lattice) -> Motion:
    """Return the rotation of the world in which a fixed image's axes run along L, P and S; none where they do."""
    rotation = rotation_to_axes(lattice)
    if np.abs(rotation - np.eye(3)).max() < ALIGNED:
        return Motion.identity()
    return Motion(rotation, np.zeros(3))


def quarter_turn(degrees: int) -> Array:
    """Return the rotation (3, 3) by a multiple of 90 degrees about z, from x to y."""
    cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[degrees // 90 % 4]
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def axis_rotations() -> list[Array]:
    """Return the 24 rotations that bring axes to axes, the identity first."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.eye(3)[list(order)] * np.array(signs)[:, None]
            if np.linalg.det(matrix) > 0:
                found.append(matrix)
    return found


@dataclass(frozen=True, eq=False)
class ExpectedRotation:
    """The mean rotation (3, 3) of fixed_to_moving, and the inverse covariance (3, 3) of a small rotation from it."""

    rotation: Array
    precision: Array

    def deviation_deg(self, fixed_to_moving: Motion) -> float:
        """Return the angle between a motion's rotation and the mean."""
        return Motion(self.rotation.T @ fixed_to_moving.rotation, np.zeros(3)).angle_deg()

    def attraction(self) -> Array:
        """Return what is added to a covariance of matches, for each mm2 of their variance."""
        return self.rotation @ (np.eye(3) * np.trace(self.precision) / 2 - self.precision)


def expected_rotation(
    moving: Lattice, initial: Motion, fixed_to_patient: Array, headers: bool = True
) -> ExpectedRotation | None:
    """Express the prior in the scans' worlds; None where the initial transform turns too far from it."""
    mean = rotation_of_angles(np.deg2rad(np.array(MEAN_DEG)))
    precision = fixed_to_patient.T @ np.diag(1 / np.deg2rad(np.array(SD_DEG)) ** 2) @ fixed_to_patient

    def through(moving_to_patient: Array) -> ExpectedRotation:
        return ExpectedRotation(moving_to_patient.T @ mean @ fixed_to_patient, precision)

    axes = _own_axes(moving)
    ways = [through(way @ axes) for way in axis_rotations()]
    best = min(ways, key=lambda one: one.deviation_deg(initial))
    if best.deviation_deg(initial) <= CLEAR_DEG:
        return best
    farthest = best if best.deviation_deg(initial) <= FARTHEST_DEG else None
    if not headers:
        return farthest
    believed = (through(np.eye(3)), through(fixed_to_patient))
    nearer = min(believed, key=lambda one: one.deviation_deg(initial))
    return nearer if nearer.deviation_deg(initial) <= BELIEVED_DEG else farthest


def _own_axes(lattice: Lattice) -> Array:
    axes = lattice.direction.T.copy()
    if np.linalg.det(axes) < 0:
        axes[2] = -axes[2]
    return axes
