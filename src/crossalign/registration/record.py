"""The record of a registration: a JSON file with the result, how it came about, and whether it is to be trusted."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch

import crossalign
from crossalign.geometry import Rigid
from crossalign.output import whole_file, write_text
from crossalign.registration.initialisation import Initialisation
from crossalign.registration.orientation import Orientation
from crossalign.registration.problem import Expectation
from crossalign.registration.result import RegistrationResult

RECORD_FORMAT = "crossalign registration 2"
MATRICES = "4 x 4 matrices that map fixed points (x, y, z, 1) to moving points, LPS, mm"


def registration_record(
    result: RegistrationResult, initialisation: Initialisation, files: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """Return the record as plain values; `files` names the inputs by their part, without folders."""
    expectation = result.expectation
    return {
        "format": RECORD_FORMAT,
        "files": dict(files or {}),
        "method": result.method,
        "settings": dict(result.settings),
        "initialisation": {
            "name": initialisation.name,
            "reason": initialisation.reason,
            "fixed_to_moving": _matrix(result.initial),
            "landmarks": _landmarks(initialisation),
        },
        "orientation": _orientation(result.orientation),
        "assumed": list(result.notes),
        "fixed_to_moving": _matrix(result.fixed_to_moving),
        "matrices": MATRICES,
        "motion": _motion(result),
        "steps": [
            {"name": step.name, "seconds": step.seconds, "fixed_to_moving": _matrix(step.fixed_to_moving)}
            for step in result.steps
        ],
        "seconds": result.seconds,
        "expected_sre_mm": _finite(result.expected_sre_mm),
        "bound": _bound(expectation),
        "trusted": result.trusted,
        "reasons": list(result.reasons),
        "covariance": [list(row) for row in expectation.covariance] or None,
        "evidence": _evidence(expectation),
        "warnings": list(result.warnings),
        "versions": {
            "crossalign": crossalign.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "note": "Research software, not a medical device.",
    }


def _motion(result: RegistrationResult) -> dict[str, Any]:
    parameters = result.motion().tolist()
    return {
        "center_mm": result.center_mm.tolist(),
        "translation_mm": parameters[:3],
        "rotation_deg": parameters[3:],
        "shift_mm": result.shift_mm(),
        "angle_deg": result.angle_deg(),
    }


def _evidence(expectation: Expectation) -> dict[str, float | None]:
    named = {"dispersion_mm": expectation.dispersion_mm, "network_sre_mm": expectation.network_sre_mm}
    return {name: _finite(value) for name, value in (named | dict(expectation.evidence)).items()}


def _landmarks(initialisation: Initialisation) -> dict[str, Any] | None:
    fit = initialisation.landmarks
    if fit is None:
        return None
    return {"matched_by": fit.matched_by, "rms_mm": fit.rms_mm, "residual_mm": dict(fit.rows())}


def write_record(record: Mapping[str, Any], path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a record as JSON; the file appears whole or not at all. Raises OutputError."""
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    with whole_file(path, overwrite) as partial:
        write_text(text, partial)


def _matrix(transform: Rigid) -> list[list[float]]:
    return transform.matrix().to("cpu", torch.float64).tolist()


def _orientation(found: Orientation | None) -> dict[str, Any] | None:
    """Return where the axes of the scans were taken to point, and how sure that is; None where nothing was asked."""
    if found is None:
        return None
    names = ("fixed_code", "moving_code", "chosen", "probability", "runner_up", "runner_up_probability")
    return {name: getattr(found, name) for name in (*names, "none_probability")}


def _bound(expectation: Expectation) -> dict[str, float] | None:
    """Return the SRE, mm, under which the true one lies, with its probability; None where there is none."""
    bound, probability = _finite(expectation.bound_mm), expectation.bound_probability
    return None if bound is None or probability is None else {"sre_mm": bound, "probability": probability}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
