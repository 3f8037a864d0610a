"""The files of an explanation: a volume for each map, and tables."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence

from crossalign.cells import csv_text
from crossalign.errors import InputError
from crossalign.explanation.maps import CropMap
from crossalign.explanation.result import Explanation, StageExplanation
from crossalign.images import Image, write_image
from crossalign.output import write_text
from crossalign.types import Vector

PARAMETER_TABLE, ATTENTION_TABLE, POINT_TABLE = "parameters.csv", "attention.csv", "points.csv"
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

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


def map_file(stage: StageExplanation, shown: CropMap) -> str:
    """Name the volume of a map on the fixed grid."""
    return f"stage{stage.view.number}-{shown.name}.nii.gz"


def volumes(explanation: Explanation) -> dict[str, Image]:
    """Return every volume by its file's name: each map on the fixed grid, the moving side's on the moving grid too."""
    fixed, moving = explanation.problem.fixed.grid, explanation.problem.moving.grid
    found: dict[str, Image] = {}
    for stage in explanation.stages:
        for shown in stage.maps():
            name = map_file(stage, shown)
            found[name] = shown.on_fixed(fixed)
            if shown.scan == "moving":
                found[name.replace(".nii.gz", "-on-moving.nii.gz")] = shown.on_moving(moving, stage.view.start)
    return found


def tables(explanation: Explanation) -> dict[str, list[Row]]:
    """Return every table by its file's name, header first; a table without rows is left out."""
    made = {
        PARAMETER_TABLE: _parameter_rows(explanation),
        ATTENTION_TABLE: _attention_rows(explanation),
        POINT_TABLE: _point_rows(explanation),
    }
    return {name: rows for name, rows in made.items() if len(rows) > 1}


def write_volume(image: Image, path: str | os.PathLike[str]) -> None:
    """Write a map (float32), replacing the file."""
    write_image(image, path, overwrite=True)


def write_table(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Write a table as CSV, replacing the file; what is not defined stays empty."""
    write_text(csv_text([[_cell(value) for value in row] for row in rows]), path)


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def _parameter_rows(explanation: Explanation) -> list[Row]:
    header = ("stage", "network", "parameter", "unit", "value", "empty_value", "gap")
    shares = ("fixed_share", "moving_share", "inside_mask_share", "mask_share_of_crop", "peak")
    rows: list[Row] = [(*header, *shares)]
    for stage in explanation.stages:
        for one in stage.parameters:
            told = (*_stage(stage), one.name, one.unit, one.value, one.empty_value, one.gap)
            rows.append((*told, one.fixed_share, one.moving_share, one.inside_fraction, one.mask_share, one.map.peak))
    return rows


def _attention_rows(explanation: Explanation) -> list[Row]:
    rows: list[Row] = [("stage", "network", "map", "peak_mm", "inside_mask_share", "mask_share_of_crop")]
    for stage in explanation.stages:
        for cam, inside in zip(stage.cams, stage.cams_inside, strict=True):
            rows.append((*_stage(stage), cam.name, cam.peak, inside, stage.mask_share))
    return rows


def _point_rows(explanation: Explanation) -> list[Row]:
    places = ("point", "position", "start", "looks_at", "matched", "answer")
    header = [f"{place}_{axis}_mm" for place in places for axis in "xyz"]
    rows: list[Row] = [("stage", "network", "name", *header, "largest_share", "positions", "all_positions")]
    for stage in explanation.stages:
        for look in stage.attended_points:
            found = (look.point_mm, look.position_mm, look.start_mm, look.looks_at_mm, look.matched_mm, look.answer_mm)
            numbers = [value for place in found for value in _numbers(place)]
            rows.append(
                (*_stage(stage), look.name, *numbers, look.largest_share, look.positions, float(look.all_positions))
            )
    return rows


def _stage(stage: StageExplanation) -> tuple[str, str]:
    return str(stage.view.number), stage.view.stage.settings.network


def _numbers(place: Vector | None) -> list[float]:
    return [math.nan] * 3 if place is None else place.tolist()
