"""`crossalign apply`: a transform file on an image, a label map or points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossalign.cli.options import Outcome, check_apart
from crossalign.errors import InputError, OutputError
from crossalign.geometry import Rigid
from crossalign.images import (
    PointsFile,
    check_image_output,
    check_output,
    read_grid,
    read_image,
    read_label_map,
    read_points,
    read_transform,
    write_image,
    write_label_map,
    write_points,
)

FIXED_TO_MOVING, MOVING_TO_FIXED = "fixed-to-moving", "moving-to-fixed"


@dataclass(frozen=True)
class ApplyRequest:
    """The options of `crossalign apply`; `direction` None is fixed-to-moving, and is for points alone."""

    transform: Path
    source: Path
    output: Path
    reference: Path | None = None
    label: bool = False
    direction: str | None = None
    overwrite: bool = False


def run_apply(request: ApplyRequest) -> Outcome:
    """Map points, or bring a moving image or label map onto the fixed grid. Raises CrossalignError."""
    is_points = request.source.suffix.lower() == ".csv"
    _check(request, is_points)
    fixed_to_moving = read_transform(request.transform)
    if is_points:
        return _map_points(request, fixed_to_moving)
    return _resample(request, fixed_to_moving)


def _check(request: ApplyRequest, is_points: bool) -> None:
    if is_points and (request.label or request.reference is not None):
        raise InputError("--label and --reference are for images: leave them out for points")
    if not is_points and request.direction is not None:
        raise InputError("--direction is for points (.csv): an image always goes from moving onto the fixed grid")
    if not is_points and request.reference is None:
        raise InputError("an image needs --reference: the fixed image, onto whose grid it is brought")
    if is_points and request.output.suffix.lower() != ".csv":
        raise OutputError(f"{request.output.name}: points are written as CSV: end the name in .csv")
    (check_output if is_points else check_image_output)(request.output, request.overwrite)
    inputs = [path for path in (request.transform, request.source, request.reference) if path is not None]
    check_apart((request.output,), inputs)


def _map_points(request: ApplyRequest, fixed_to_moving: Rigid) -> Outcome:
    direction = request.direction or FIXED_TO_MOVING
    if direction not in (FIXED_TO_MOVING, MOVING_TO_FIXED):
        raise InputError(f"unknown direction '{direction}', expected {FIXED_TO_MOVING} or {MOVING_TO_FIXED}")
    source, target = direction.split("-to-")
    points = read_points(request.source)
    if points.frame not in ("", source):
        raise InputError(
            f"{request.source.name}: holds points of the {points.frame} image, but --direction {direction} maps "
            f"{source} points: choose the other direction"
        )
    transform = fixed_to_moving if direction == FIXED_TO_MOVING else fixed_to_moving.inverse()
    mapped = PointsFile(points.names, transform.apply(points.points_mm), target)
    write_points(mapped, request.output, request.overwrite)
    count = len(points.names)
    return Outcome(
        (f"wrote    {request.output} ({count} points mapped {direction}, now of the {target} image, LPS mm)",)
    )


def _resample(request: ApplyRequest, fixed_to_moving: Rigid) -> Outcome:
    assert request.reference is not None
    grid = read_grid(request.reference)
    warnings: list[str] = []
    if request.label:
        labels = read_label_map(request.source).resampled(grid, fixed_to_moving)
        if not bool((labels.labels != 0).any()):
            warnings.append("no labelled voxel falls on the fixed grid: check that the transform is of this pair")
        write_label_map(labels, request.output, request.overwrite)
    else:
        moved = read_image(request.source).resampled(grid, fixed_to_moving)
        if float(moved.voxels.min()) == float(moved.voxels.max()):
            warnings.append("nothing of the image falls on the fixed grid: check that the transform is of this pair")
        write_image(moved, request.output, request.overwrite)
    how = "nearest voxel" if request.label else "trilinear"
    line = f"wrote    {request.output} ({request.source.name} on the grid of {request.reference.name}, {how})"
    return Outcome((line,), tuple(warnings))
