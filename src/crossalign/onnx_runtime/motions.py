"""Rigid motions in numpy, and those that are drawn about an answer. The twins of `geometry.rigid` and `consensus`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crossalign.errors import InputError

Array: TypeAlias = NDArray[Any]
RANGES = np.array([5.0] * 3 + [6.0] * 3)  # of a drawn motion: mm, degrees
SCALINGS, DRAWN_WITHIN_MM = 40, 1e-3


@dataclass(frozen=True, eq=False)
class Motion:
    """A rigid motion p -> R p + t of points (n, 3), mm: rotation (3, 3) and translation (3,), float64.

    Named by its direction, as `geometry.Rigid`; `(a @ b).apply(p) == a.apply(b.apply(p))`.
    """

    rotation: Array
    translation_mm: Array

    @staticmethod
    def identity() -> Motion:
        """Make the motion that moves nothing."""
        return Motion(np.eye(3), np.zeros(3))

    @staticmethod
    def from_parameters(parameters: Array, center_mm: Array | None = None) -> Motion:
        """Make it of tx, ty, tz (mm), rx, ry, rz (degrees) about a centre: R = Rz Ry Rx."""
        center = np.zeros(3) if center_mm is None else center_mm
        values = np.asarray(parameters, np.float64)
        rotation = rotation_of_angles(np.deg2rad(values[3:]))
        return Motion(rotation, center - rotation @ center + values[:3])

    def parameters(self) -> Array:
        """Return the six parameters (mm, degrees) about the origin."""
        return np.concatenate((self.translation_mm, np.rad2deg(angles_of_rotation(self.rotation))))

    def apply(self, points_mm: Array) -> Array:
        """Map points (..., 3)."""
        return points_mm @ self.rotation.T + self.translation_mm

    def inverse(self) -> Motion:
        """Return the motion of the opposite direction."""
        return Motion(self.rotation.T, -(self.rotation.T @ self.translation_mm))

    def __matmul__(self, other: Motion) -> Motion:
        """Compose: the other motion first, then this one."""
        return Motion(self.rotation @ other.rotation, self.apply(other.translation_mm))

    def angle_deg(self) -> float:
        """Return the angle of the rotation about its own axis."""
        skew = self.rotation - self.rotation.T
        sine = np.linalg.norm([skew[2, 1], skew[0, 2], skew[1, 0]])
        return float(np.rad2deg(np.arctan2(sine, np.trace(self.rotation) - 1)))

    def is_finite(self) -> bool:
        """Say whether it holds neither NaN nor infinite values."""
        return bool(np.isfinite(self.rotation).all() and np.isfinite(self.translation_mm).all())


def rotation_of_angles(angle_rad: Array) -> Array:
    """Turn angles (3,) about the static x, y and z axes, applied in that order, into a rotation (3, 3)."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(angle_rad), np.cos(angle_rad)
    return np.array(
        [
            [cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz],
            [cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz],
            [-sy, sx * cy, cx * cy],
        ]
    )


def angles_of_rotation(rotation: Array) -> Array:
    """Recover the angles (3,), radians, of `rotation_of_angles`."""
    cos_y = np.hypot(rotation[0, 0], rotation[1, 0])
    y = np.arctan2(-rotation[2, 0], cos_y)
    x = 0.0 if cos_y < 1e-7 else np.arctan2(rotation[2, 1], rotation[2, 2])
    sin_z = np.sin(x) * rotation[0, 2] - np.cos(x) * rotation[0, 1]
    cos_z = np.cos(x) * rotation[1, 1] - np.sin(x) * rotation[1, 2]
    return np.array([x, y, np.arctan2(sin_z, cos_z)])


def nearest_rotation(matrix: Array) -> Array:
    """Return the rotation nearest to a matrix (3, 3) in the Frobenius norm."""
    u, _, vh = np.linalg.svd(matrix)
    u[:, 2] *= np.linalg.det(u) * np.linalg.det(vh)
    return u @ vh


def mean_displacement_mm(a: Motion, b: Motion, points_mm: Array) -> float:
    """Return the mean distance, mm, between where two motions bring points (n, 3)."""
    return float(np.linalg.norm(a.apply(points_mm) - b.apply(points_mm), axis=-1).mean())


def mean_motion(motions: Sequence[Motion], points_mm: Array) -> Motion:
    """Return the chordal mean of motions, about the middle of points (n, 3)."""
    center = points_mm.mean(0)
    rotation = nearest_rotation(np.mean([one.rotation for one in motions], axis=0))
    position = np.mean([one.apply(center) for one in motions], axis=0)
    return Motion(rotation, position - rotation @ center)


def perturbed(initial: Motion, points_mm: Array, center_mm: Array, target_mm: float) -> tuple[Motion, Motion, Motion]:
    """Return a motion, and two beside it that move the points (n, 3) by about `target_mm` on average, always the same.

    The numbers are those that torch's generator draws from the seed 0. Raises InputError where no motion reaches it.
    """
    drawn = RANGES * (2 * _uniform(len(RANGES)) - 1)
    scale, identity = 1.0, Motion.identity()
    for _ in range(SCALINGS):
        motion = Motion.from_parameters(drawn * scale, center_mm)
        reached = mean_displacement_mm(motion, identity, points_mm)
        if abs(reached - target_mm) <= DRAWN_WITHIN_MM:
            return initial, initial @ motion, initial @ motion.inverse()
        scale *= target_mm / reached
    raise InputError(f"no perturbation of these points reaches {target_mm:.1f} mm")


def _uniform(count: int) -> Array:
    """Return as many numbers from 0 to 1, each of 53 random bits of the Mersenne twister seeded with 0."""
    words = np.random.RandomState(0).randint(0, 2**32, size=2 * count, dtype=np.uint32).astype(np.uint64)
    return ((words[::2] << np.uint64(32) | words[1::2]) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53
