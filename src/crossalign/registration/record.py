"""The record of a registration: a JSON file with the result, how it came about, and whether it is to be trusted."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from crossalign.geometry import Rigid
from crossalign.output import whole_file, write_text
from crossalign.registration.initialisation import Initialisation
from crossalign.registration.result import RegistrationResult

FORMAT = "crossalign registration 1"
FRAME = "4 x 4 matrices that map fixed points (x, y, z, 1) to moving points, LPS, mm"
VERDICT = "do not trust this result"
TRY = "look at the overlay, and try another start (--initial) or another method (--method)"


def reasons_not_to_trust(result: RegistrationResult) -> tuple[str, ...]:
    """Return why a result is not to be trusted, each with what to try next; () where nothing speaks against it."""
    reasons = result.expectation.reasons
    if reasons or result.trusted is not False:
        return tuple(dict.fromkeys(text.removeprefix(f"{VERDICT}: ") for text in reasons))
    expected = "" if result.expected_sre_mm is None else f" of {result.expected_sre_mm:.1f} mm"
    return (f"its expected SRE{expected} is over the limit that came with the weights: {TRY}",)


def other_warnings(result: RegistrationResult) -> tuple[str, ...]:
    """Return the warnings, without those that `reasons_not_to_trust` tells already, each once."""
    reasons = reasons_not_to_trust(result)
    told = {*reasons, *(f"{VERDICT}: {text}" for text in reasons)}
    if not result.expectation.reasons:  # the reason told is our own: the method's words for it are one of these
        told |= {text for text in result.warnings if reasons and text.startswith(VERDICT)}
    return tuple(dict.fromkeys(text for text in result.warnings if text not in told))


def registration_record(
    result: RegistrationResult, start: Initialisation, files: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """Return the record as plain values; `files` names the inputs by their part, without folders."""
    motion = result.motion().tolist()
    reasons = reasons_not_to_trust(result)
    return {
        "format": FORMAT,
        "files": dict(files or {}),
        "method": result.method,
        "settings": dict(result.settings),
        "start": {"name": start.name, "reason": start.reason, "fixed_to_moving": _matrix(result.initial)},
        "fixed_to_moving": _matrix(result.fixed_to_moving),
        "matrices": FRAME,
        "motion": {
            "center_mm": result.center_mm.tolist(),
            "translation_mm": motion[:3],
            "rotation_deg": motion[3:],
            "shift_mm": result.shift_mm(),
            "angle_deg": result.angle_deg(),
        },
        "steps": [
            {"name": step.name, "seconds": step.seconds, "fixed_to_moving": _matrix(step.fixed_to_moving)}
            for step in result.steps
        ],
        "seconds": result.seconds,
        "expected_sre_mm": _finite(result.expected_sre_mm),
        "trusted": False if reasons else result.trusted,
        "doubts": list(reasons),
        "evidence": {name: _finite(value) for name, value in _evidence(result).items()},
        "warnings": list(other_warnings(result)),
        "versions": {"crossalign": _version(), "torch": str(torch.__version__), "python": platform.python_version()},
        "note": "Research software, not a medical device.",
    }


def write_record(record: Mapping[str, Any], path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a record as JSON; the file appears whole or not at all. Raises OutputError."""
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    with whole_file(path, overwrite) as partial:
        write_text(text, partial)


def _matrix(transform: Rigid) -> list[list[float]]:
    return transform.matrix().to("cpu", torch.float64).tolist()


def _evidence(result: RegistrationResult) -> dict[str, float | None]:
    """Return what the verdict rests on."""
    expectation = result.expectation
    return {
        "dispersion_mm": expectation.dispersion_mm,
        "network_sre_mm": expectation.network_sre_mm,
        **expectation.evidence,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _version() -> str:
    try:
        return version("crossalign")
    except PackageNotFoundError:
        return "not installed"
