"""The files of an explanation: a volume for each map, and tables."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence

from crossalign.cells import csv_text
from crossalign.errors import InputError
from crossalign.explanation.result import Explanation, StageExplanation
from crossalign.images import Image
from crossalign.output import write_text
from crossalign.types import Vector

PARAMETER_TABLE, ATTENTION_TABLE, POINT_TABLE = "parameters.csv", "attention.csv", "points.csv"
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
STAGE_COLUMNS = ("stage", "pass", "network")
POSITIONS = ("point", "token", "initial", "attended", "matched", "answer")

Row = Sequence[str | float]


def check_point_names(names: Sequence[str]) -> None:
    """Raise InputError where a point's name cannot be part of a file's name, or stands twice."""
    for name in names:
        if not SAFE.fullmatch(name):
            raise InputError(
                f"point '{name}': a name becomes part of a file's name: expected letters, digits, '_', '-' and '.'"
            )
        if sum(other.lower() == name.lower() for other in names) > 1:
            raise InputError(f"point '{name}' is named twice: give each point its own name")


def map_volumes(explanation: Explanation) -> dict[str, Image]:
    """Return every volume by its file's name: each map on the fixed grid, the moving side's on the moving grid too."""
    fixed, moving = explanation.problem.fixed.grid, explanation.problem.moving.grid
    volumes: dict[str, Image] = {}
    for stage in explanation.stages:
        for one in stage.maps():
            name = f"{stage.crop.label}-{one.name}"
            volumes[f"{name}.nii.gz"] = one.on_fixed(fixed)
            if one.scan == "moving":
                volumes[f"{name}-on-moving.nii.gz"] = one.on_moving(moving, stage.crop.initial)
    return volumes


def tables(explanation: Explanation) -> dict[str, list[Row]]:
    """Return every table by its file's name, header first; a table without rows is left out."""
    found = {
        PARAMETER_TABLE: _parameter_rows(explanation),
        ATTENTION_TABLE: _attention_rows(explanation),
        POINT_TABLE: _point_rows(explanation),
    }
    return {name: rows for name, rows in found.items() if len(rows) > 1}


def write_table(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Write a table as CSV, replacing the file; what is not defined stays empty."""
    write_text(csv_text([[_cell(value) for value in row] for row in rows]), path)


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def _parameter_rows(explanation: Explanation) -> list[Row]:
    values = ("parameter", "unit", "value", "baseline_value", "convergence_delta")
    fractions = ("fixed_fraction", "moving_fraction", "inside_mask_fraction", "mask_fraction_of_crop")
    rows: list[Row] = [(*STAGE_COLUMNS, *values, *fractions, "peak")]
    for stage in explanation.stages:
        for one in stage.parameters:
            values_of = (one.name, one.unit, one.value, one.baseline_value, one.convergence_delta)
            inside = one.map.fraction_inside(stage.mask)
            fractions_of = (one.fixed_fraction, one.moving_fraction, inside, stage.mask_fraction)
            rows.append((*_stage_cells(stage), *values_of, *fractions_of, one.map.peak))
    return rows


def _attention_rows(explanation: Explanation) -> list[Row]:
    rows: list[Row] = [(*STAGE_COLUMNS, "map", "peak_mm", "inside_mask_fraction", "mask_fraction_of_crop")]
    for stage in explanation.stages:
        for cam in stage.cams:
            inside = cam.fraction_inside(stage.mask)
            rows.append((*_stage_cells(stage), cam.name, cam.peak, inside, stage.mask_fraction))
    return rows


def _point_rows(explanation: Explanation) -> list[Row]:
    coordinates = [f"{position}_{axis}_mm" for position in POSITIONS for axis in "xyz"]
    rows: list[Row] = [(*STAGE_COLUMNS, "name", *coordinates, "largest_weight", "effective_tokens", "tokens")]
    for stage in explanation.stages:
        for point in stage.attended_points:
            numbers = [value for position in POSITIONS for value in _xyz(getattr(point, f"{position}_mm"))]
            spread = (point.largest_weight, point.effective_tokens, float(point.tokens))
            rows.append((*_stage_cells(stage), point.name, *numbers, *spread))
    return rows


def _stage_cells(stage: StageExplanation) -> tuple[str, str, str]:
    one = stage.crop.application
    return str(one.stage_number), str(one.pass_number), stage.crop.stage.settings.network


def _xyz(position_mm: Vector | None) -> list[float]:
    return [math.nan] * 3 if position_mm is None else position_mm.tolist()
