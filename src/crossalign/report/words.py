"""Rigid motions in plain words: millimetres and degrees along the patient's own directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from crossalign.geometry import Rigid
from crossalign.types import Triple, Vector

# For x, y and z of LPS: the words for a positive and for a negative value.
SHIFT_WORDS = (
    ("to the patient's left", "to the patient's right"),
    ("towards the back", "towards the front"),
    ("towards the head", "towards the feet"),
)
# About the L, P and S axis, right-handed: x turns P to S (so S to A), y turns S to L, z turns L to P (so A to L).
TURN_WORDS = (
    ("tipping the head end towards the front", "tipping the head end towards the back"),
    ("tipping the head end towards the left", "tipping the head end towards the right"),
    ("turning the front towards the left", "turning the front towards the right"),
)
SMALLEST = 0.05  # shown with one decimal: below this it would read 0.0


@dataclass(frozen=True)
class Motion:
    """How far a rigid motion moves a point (LPS, mm) and turns about it (rotation vector, right-handed, degrees)."""

    shift_mm: Triple
    turn_deg: Triple

    @staticmethod
    def of(rigid: Rigid, center_mm: Vector) -> Motion:
        """Measure a motion p -> R p + t at a point (3,)."""
        center = center_mm.double()
        shift = rigid.to("cpu", torch.float64).apply(center[None])[0] - center
        return Motion(_triple(shift), _triple(rotation_vector_deg(rigid)))

    @property
    def distance_mm(self) -> float:
        """Length of the shift."""
        return math.hypot(*self.shift_mm)

    @property
    def angle_deg(self) -> float:
        """Angle about the rotation's own axis."""
        return math.hypot(*self.turn_deg)

    def moved(self) -> str:
        """How far: '7.2 mm', or '' for less than is shown."""
        return f"{self.distance_mm:.1f} mm" if self.distance_mm >= SMALLEST else ""

    def turned(self) -> str:
        """By how much: '4.3°', or '' for less than is shown."""
        return f"{self.angle_deg:.1f}°" if self.angle_deg >= SMALLEST else ""

    def moved_parts(self) -> str:
        """Where to, the largest part first: '5.1 mm to the patient's left, 4.0 mm towards the head'."""
        return _parts(self.shift_mm, SHIFT_WORDS, " mm")

    def turned_parts(self) -> str:
        """About which axes, the largest part first: '4.0° tipping the head end towards the front'."""
        return _parts(self.turn_deg, TURN_WORDS, "°")


def rotation_vector_deg(rigid: Rigid) -> Vector:
    """Return the rotation's axis times its angle in degrees, (3,), float64, on the CPU; right up to half a turn."""
    rotation = rigid.rotation.detach().to("cpu", torch.float64)
    skew = rotation - rotation.T
    axis = torch.stack((skew[2, 1], skew[0, 2], skew[1, 0]))
    angle = float(rigid.angle_deg())
    if float(axis.norm()) < 1e-6 and angle > 90:  # half a turn: R + I is twice the axis times itself
        outer = (rotation + torch.eye(3, dtype=torch.float64)) / 2
        axis = outer[int(outer.diagonal().argmax())]
    return axis * (angle / max(float(axis.norm()), 1e-12))


def _triple(vector: Vector) -> Triple:
    x, y, z = vector.tolist()
    return (x, y, z)


def _parts(values: Triple, words: Sequence[tuple[str, str]], unit: str) -> str:
    told = sorted(
        ((abs(v), pair[0] if v > 0 else pair[1]) for v, pair in zip(values, words, strict=True)), reverse=True
    )
    shown = [f"{size:.1f}{unit} {way}" for size, way in told if size >= SMALLEST]
    return ", ".join(shown) or "less than 0.1 along each axis"
