"""Results in words and table cells: rigid motions along the patient's own directions, errors, steps, parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.spatial.transform import Rotation

from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.registration.result import RegistrationResult
from crossalign.types import Points, Triple, Vector

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
SMALLEST = 0.05  # with one decimal a smaller value would read 0.0
BEFORE_OR_AFTER = re.compile(r"^(?P<name>.+?)[ _-]+(?P<when>before|after)(?:[ _]*(?:\(mm\)|mm))?$", re.IGNORECASE)
DEGREES = " deg"
PARAMETERS = (
    ("tx", " mm", "towards the left"),
    ("ty", " mm", "towards the back"),
    ("tz", " mm", "towards the head"),
    ("rx", "°", "about the left axis"),
    ("ry", "°", "about the back axis"),
    ("rz", "°", "about the head axis"),
)

Rows = tuple[tuple[str, ...], ...]


def signed(value: float, decimals: int, unit: str = "") -> str:
    """Write a number with its sign, a true minus."""
    return f"{value:+.{decimals}f}{unit}".replace("-", "\u2212")


def coordinates(point_mm: Vector) -> str:
    """Write a point (3,) with one decimal."""
    return ", ".join(f"{value:.1f}" for value in point_mm.tolist()).replace("-", "\u2212")


@dataclass(frozen=True)
class Motion:
    """How far a rigid motion moves a point (LPS, mm) and turns about it (rotation vector, right-handed, degrees)."""

    shift_mm: Triple
    turn_deg: Triple

    @staticmethod
    def of(rigid: Rigid, center_mm: Vector) -> Motion:
        """Measure a motion p -> R p + t at a point (3,)."""
        rigid, center = rigid.to("cpu", torch.float64), center_mm.cpu().double()
        x, y, z = (rigid.apply(center[None])[0] - center).tolist()
        rx, ry, rz = Rotation.from_matrix(rigid.rotation.detach().numpy()).as_rotvec(degrees=True).tolist()
        return Motion((x, y, z), (rx, ry, rz))

    @property
    def distance_mm(self) -> float:
        """Length of the shift."""
        return math.hypot(*self.shift_mm)

    @property
    def angle_deg(self) -> float:
        """Angle about the rotation's own axis."""
        return math.hypot(*self.turn_deg)

    def moved(self) -> str:
        """How far: '7.2 mm', or '' for less than the last decimal."""
        return f"{self.distance_mm:.1f} mm" if self.distance_mm >= SMALLEST else ""

    def turned(self) -> str:
        """By how much: '4.3°', or '' for less than the last decimal."""
        return f"{self.angle_deg:.1f}°" if self.angle_deg >= SMALLEST else ""

    def moved_parts(self) -> str:
        """Where to, the largest part first: '5.1 mm to the patient's left, 4.0 mm towards the head'."""
        return _parts(self.shift_mm, SHIFT_WORDS, " mm")

    def turned_parts(self) -> str:
        """About which axes, the largest part first: '4.0° tipping the head end towards the front'."""
        return _parts(self.turn_deg, TURN_WORDS, "°")


def _parts(values: Triple, words: Sequence[tuple[str, str]], unit: str) -> str:
    sizes = [(abs(value), pair[value <= 0]) for value, pair in zip(values, words, strict=True)]
    named = [f"{size:.1f}{unit} {way}" for size, way in sorted(sizes, reverse=True) if size >= SMALLEST]
    return ", ".join(named) or "less than 0.1 along each axis"


@dataclass(frozen=True)
class ErrorRow:
    """One error, before and after, with its unit; `better` is None where one of them is missing or undefined."""

    name: str
    before: str
    after: str
    change: str
    better: bool | None


def error_rows(errors_mm: Mapping[str, float]) -> list[ErrorRow]:
    """Pair 'SRE before' with 'SRE after'; any other name stands alone, as a value after.

    Values are in mm, those of a name that says `deg` ('angle_deg before') in degrees.
    """
    pairs: dict[str, dict[str, float]] = {}
    for key, value in errors_mm.items():
        match = BEFORE_OR_AFTER.match(key)
        name, when = (match["name"], match["when"].lower()) if match else (key, "after")
        pairs.setdefault(name.replace("_", " "), {})[when] = value
    return [_error_row(name, pair.get("before"), pair.get("after")) for name, pair in pairs.items()]


def _error_row(name: str, before: float | None, after: float | None) -> ErrorRow:
    label, unit = (name.removesuffix(DEGREES), "°") if name.endswith(DEGREES) else (name, " mm")
    label = label.upper() if label.lower() in ("sre", "tre") else label
    cells = label, _with_unit(before, unit), _with_unit(after, unit)
    if before is None or after is None or not (math.isfinite(before) and math.isfinite(after)):
        return ErrorRow(*cells, "", None)
    better = after < before if abs(after - before) >= 0.005 else None
    return ErrorRow(*cells, signed(after - before, 2, unit), better)


def _with_unit(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.2f}{unit}" if math.isfinite(value) else "not defined"


def step_rows(result: RegistrationResult, structure_mm: Points | None) -> Rows:
    """One row for each step: its name, the mean shift of the structure (n, 3) or else of the centre, angle, time."""
    points = result.center_mm[None].double() if structure_mm is None else structure_mm
    rows, before = [], result.initial
    for step in result.steps:
        after = step.fixed_to_moving
        moved, turned = mean_displacement_mm(before, after, points), (before.inverse() @ after).angle_deg()
        rows.append((step.name, f"{float(moved):.1f} mm", f"{float(turned):.1f}°", f"{step.seconds:.2f} s"))
        before = after
    return tuple(rows)


def parameter_rows(result: RegistrationResult) -> Rows:
    """Six parameters of the correction of fixed points (result = initial @ correction): name, value, meaning."""
    values = result.motion().tolist()
    return tuple(
        (name, signed(value, 3, unit), meaning) for value, (name, unit, meaning) in zip(values, PARAMETERS, strict=True)
    )
