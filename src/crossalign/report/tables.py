"""Rows of the page's tables, as text that is ready to print."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.registration.result import RegistrationResult
from crossalign.types import Points

PAIR = re.compile(r"^(?P<name>.+?)[ _-]+(?P<when>before|after)(?:[ _]*(?:\(mm\)|mm))?$", re.IGNORECASE)
PARAMETERS = (
    ("tx", " mm", "towards the left"),
    ("ty", " mm", "towards the back"),
    ("tz", " mm", "towards the head"),
    ("rx", "°", "about the left axis"),
    ("ry", "°", "about the back axis"),
    ("rz", "°", "about the head axis"),
)


@dataclass(frozen=True)
class ErrorRow:
    """One error in mm, before and after; `better` is None where one of them is missing or undefined."""

    name: str
    before: str
    after: str
    change: str
    better: bool | None


@dataclass(frozen=True)
class StepRow:
    """One stage of the method: how long it took and how far it moved the structure."""

    name: str
    seconds: float
    moved: str
    turned: str


def error_rows(errors_mm: Mapping[str, float], clean: Callable[[str], str]) -> list[ErrorRow]:
    """Pair 'SRE before' with 'SRE after'; any other name stands alone, as a value after."""
    pairs: dict[str, dict[str, float]] = {}
    for key, value in errors_mm.items():
        match = PAIR.match(key)
        name, when = (match["name"], match["when"].lower()) if match else (key, "after")
        pairs.setdefault(clean(name.replace("_", " ")), {})[when] = value
    return [_error_row(name, pair.get("before"), pair.get("after")) for name, pair in pairs.items()]


def _error_row(name: str, before: float | None, after: float | None) -> ErrorRow:
    label = name.upper() if name.lower() in ("sre", "tre") else name
    if before is None or after is None or not (math.isfinite(before) and math.isfinite(after)):
        return ErrorRow(label, _millimetres(before), _millimetres(after), "", None)
    better = after < before if abs(after - before) >= 0.005 else None
    return ErrorRow(
        label, _millimetres(before), _millimetres(after), f"{after - before:+.2f} mm".replace("-", "\u2212"), better
    )


def _millimetres(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f} mm" if math.isfinite(value) else "not defined"


def step_rows(result: RegistrationResult, structure_mm: Points | None, clean: Callable[[str], str]) -> list[StepRow]:
    """One row for each step: the mean shift of the structure (n, 3), or of the centre without one, and the turn."""
    points = result.center_mm[None].double() if structure_mm is None else structure_mm
    rows, before = [], result.initial
    for step in result.steps:
        rows.append(_step_row(clean(step.name), step.seconds, before, step.fixed_to_moving, points))
        before = step.fixed_to_moving
    return rows


def _step_row(name: str, seconds: float, before: Rigid, after: Rigid, points: Points) -> StepRow:
    moved = float(mean_displacement_mm(before, after, points))
    turned = float((before.inverse() @ after).angle_deg())
    return StepRow(name, seconds, f"{moved:.1f} mm", f"{turned:.1f}°")


def parameter_rows(result: RegistrationResult) -> list[tuple[str, str, str]]:
    """Six parameters of the correction of fixed points (result = start @ correction): name, value, meaning."""
    values = result.motion().tolist()
    return [
        (name, f"{value:+.3f}{unit}".replace("-", "\u2212"), about)
        for value, (name, unit, about) in zip(values, PARAMETERS, strict=True)
    ]
