"""`crossalign apply`: a transform file, or none, on an image, a label map or points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from crossalign.cli.checks import check_apart
from crossalign.cli.dicom_output import check_dicom_out, dicom_files_of, dicom_folder, resampled_series
from crossalign.cli.initialisation import named_transform, warn_of_namesake
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.registration import ApplyRequest
from crossalign.cli.results.registration import ApplyResult
from crossalign.errors import InputError, OutputError
from crossalign.geometry import Grid, Rigid, grid_overlap, inside_fraction
from crossalign.images import (
    Image,
    LabelMap,
    PointsFile,
    check_image_output,
    empty_value,
    is_points_file,
    looks_like_labels,
    read_label_map,
    read_points,
    write_image,
    write_label_map,
    write_points,
)
from crossalign.images.files.dicom.output import DicomOutput
from crossalign.images.files.dicom.series import Series
from crossalign.images.files.images import volume_of
from crossalign.images.files.stored import opened, public_name
from crossalign.input import excerpt, finite_number
from crossalign.output import check_output, whole_files

FIXED_TO_MOVING, MOVING_TO_FIXED = "fixed-to-moving", "moving-to-fixed"
NO_TRANSFORM = ("identity", "header")
LOW_OVERLAP, HALF = 0.25, 0.5
LARGEST_FILL, LARGEST_LABEL = 3e38, 2**31 - 1


@dataclass(frozen=True, eq=False)
class _Target:
    """The grid onto which an image is resampled; `to_source` maps its points to the image's."""

    grid: Grid
    to_source: Rigid
    direction: str
    named: bool  # whether there is a transform that could have been meant the other way round
    series: Series | None  # of DICOM

    @property
    def part(self) -> str:
        """Whose grid it is: fixed or moving."""
        return self.direction.split("-to-")[1]

    def opposite(self) -> str:
        """Name the other direction."""
        return MOVING_TO_FIXED if self.direction == FIXED_TO_MOVING else FIXED_TO_MOVING


def run_apply(request: ApplyRequest) -> Outcome[ApplyResult]:
    """Map points, or bring an image or a label map from one grid onto the other. Raises CrossalignError."""
    is_points = is_points_file(request.source)
    _check(request, is_points)
    fixed_to_moving = _transform(request)
    if is_points:
        return _map_points(request, fixed_to_moving)
    return _resample(request, fixed_to_moving)


def _check(request: ApplyRequest, is_points: bool) -> None:
    if (is_points or request.label) and request.dicom_out is not None:
        raise InputError("--dicom-out is for scans: write points and label maps to a file with -o")
    if request.output is None and request.dicom_out is None:
        raise InputError("name what to write: a file with -o, or for scans a folder with --dicom-out")
    if is_points and (request.label or request.reference is not None or request.fill is not None):
        raise InputError("--label, --fill and --reference are for images: leave them out for points")
    if not is_points and request.reference is None:
        raise InputError(
            "an image needs --reference: the image onto whose grid it is brought "
            "(the fixed image, or with --direction fixed-to-moving the moving one)"
        )
    transform = Path(request.transform) if _has_transform(request) else None
    inputs = [path for path in (transform, request.source, request.reference) if path is not None]
    check_dicom_out(request.dicom_out, request.dicom_identity, inputs)
    if request.output is None:
        return
    if is_points and request.output.suffix.lower() != ".csv":
        raise OutputError(f"{request.output.name}: points are written as CSV: end the name in .csv")
    (check_output if is_points else check_image_output)(request.output, request.overwrite)
    check_apart((request.output,), inputs)


def _has_transform(request: ApplyRequest) -> bool:
    """Whether `transform` names a file."""
    return request.transform not in NO_TRANSFORM


def _transform(request: ApplyRequest) -> Rigid:
    warn_of_namesake(request.transform, NO_TRANSFORM)
    if not _has_transform(request):
        return Rigid.identity()
    return named_transform(request.transform, NO_TRANSFORM)


def _map_points(request: ApplyRequest, fixed_to_moving: Rigid) -> Outcome[ApplyResult]:
    direction = request.direction or FIXED_TO_MOVING
    source, target = direction.split("-to-")
    points = read_points(request.source)
    if points.frame not in ("", source):
        raise InputError(
            f"{request.source.name}: holds points of the {points.frame} image, but --direction {direction} maps "
            f"{source} points: choose the other direction"
        )
    transform = fixed_to_moving if direction == FIXED_TO_MOVING else fixed_to_moving.inverse()
    assert request.output is not None
    mapped = PointsFile(points.names, transform.apply(points.points_mm), target)
    write_points(mapped, request.output, request.overwrite)
    count = len(points.names)
    return Outcome(
        (f"wrote    {request.output} ({count} points mapped {direction}, now of the {target} image, LPS mm)",),
        result=ApplyResult("points", direction, count, None, None, None, None),
        outputs=(request.output,),
    )


def _resample(request: ApplyRequest, fixed_to_moving: Rigid) -> Outcome[ApplyResult]:
    assert request.reference is not None
    direction = request.direction or MOVING_TO_FIXED
    target_to_source = fixed_to_moving if direction == MOVING_TO_FIXED else fixed_to_moving.inverse()
    reference = opened(request.reference, series=request.reference_series)
    target = _Target(reference.grid, target_to_source, direction, _has_transform(request), reference.series)
    warnings, how, result = (_write_labels if request.label else _write_scan)(request, target)
    paths = [path for path in (request.output, request.dicom_out) if path is not None]
    lines = tuple(f"wrote    {path} ({_moved_text(request, target)}, {how})" for path in paths)
    outputs = (*paths[: request.output is not None], *dicom_files_of(request.dicom_out))
    return Outcome(lines, warnings, 0, result, outputs)


def _result(kind: str, target: _Target, source: Grid, fill: float) -> ApplyResult:
    return ApplyResult(
        kind=kind,
        direction=target.direction,
        points=None,
        shape_voxels=tuple(reversed(target.grid.shape)),
        spacing_mm=target.grid.spacing_mm,
        overlap_fraction=grid_overlap(target.grid, source, target.to_source),
        fill=fill,
    )


def _moved_text(request: ApplyRequest, target: _Target) -> str:
    way = f"resampled {target.direction} " if target.named else ""
    return f"{public_name(request.source)} {way}on the grid of {_name(request)}"


def _write_labels(request: ApplyRequest, target: _Target) -> tuple[tuple[str, ...], str, ApplyResult]:
    labels = read_label_map(request.source, allow_empty=True)
    fill = 0.0 if request.fill is None else _number(request.fill)
    if not fill.is_integer() or abs(fill) > LARGEST_LABEL:
        raise InputError(f"--fill {request.fill}: a label map holds whole numbers: give one, or leave out --label")
    moved = labels.resampled(target.grid, target.to_source, int(fill))
    sampled = labels.resampled(target.grid, target.to_source) if fill else moved
    warnings = _label_warnings(request, target, labels, sampled)
    assert request.output is not None
    write_label_map(moved, request.output, request.overwrite)
    result = _result("label map", target, labels.grid, fill)
    return warnings, f"nearest voxel; outside it is {int(fill)}", result


def _label_warnings(request: ApplyRequest, target: _Target, labels: LabelMap, sampled: LabelMap) -> tuple[str, ...]:
    if not bool((labels.labels != 0).any()):
        return (f"{public_name(request.source)} holds no label: the result holds none",)
    if bool((sampled.labels != 0).any()):
        return _overlap_warnings(request, target, labels.grid)
    other = inside_fraction(target.to_source.apply(labels.points_mm()), target.grid)
    grid = f"the grid of {_name(request)}"
    return (f"no labelled voxel of {public_name(request.source)} falls on {grid}: {_advice(target, other)}",)


def _write_scan(request: ApplyRequest, target: _Target) -> tuple[tuple[str, ...], str, ApplyResult]:
    source = opened(request.source, series=request.series)
    scan = volume_of(source)
    fill = empty_value(scan.voxels) if request.fill is None else _number(request.fill)
    moved = scan.resampled(target.grid, target.to_source, fill)
    dicom = resampled_series(request, target.direction if target.named else "", target.series, source.series)
    notes = _write_moved(request, dicom, moved)
    warnings = (*_overlap_warnings(request, target, scan.grid), *_scan_warnings(scan), *notes)
    result = _result("image", target, scan.grid, fill)
    return warnings, f"trilinear; outside it is {fill:g}{_unknown(scan, moved)}", result


def _write_moved(request: ApplyRequest, dicom: DicomOutput | None, moved: Image) -> tuple[str, ...]:
    """Write the file, the DICOM series, or both; return what there is to say of the series."""
    notes: tuple[str, ...] = ()
    files = () if request.output is None else (request.output,)
    with whole_files(files, request.overwrite) as partials, dicom_folder(request.dicom_out) as folder:
        for partial in partials:
            write_image(moved, partial, overwrite=True)
        if dicom is not None and folder is not None:
            notes = (*dicom.notes, *dicom.write(moved, folder))
    return notes


def _unknown(scan: Image, moved: Image) -> str:
    """Say how many voxels are not numbers."""
    before = int((~scan.voxels.isfinite()).sum())
    if before == 0:
        return ""
    return f"; {before:,} voxels of it are NaN or infinite, and {int(moved.voxels.isnan().sum()):,} of the result NaN"


def _scan_warnings(scan: Image) -> tuple[str, ...]:
    if not looks_like_labels(scan.voxels):
        return ()
    text = "its integers look like labels, and interpolation makes values that are none of them: pass --label"
    return (f"{scan.name}: {text}",)


def _overlap_warnings(request: ApplyRequest, target: _Target, source: Grid) -> tuple[str, ...]:
    """Warn where little or nothing of the image lands on the grid, and look whether the other direction fits."""
    fraction = grid_overlap(target.grid, source, target.to_source)
    other = grid_overlap(target.grid, source, target.to_source.inverse())
    better = other >= LOW_OVERLAP and other > 2 * fraction
    if fraction >= (HALF if better else LOW_OVERLAP):
        return ()
    grid = f"the grid of {_name(request)}"
    if fraction == 0:
        text = f"nothing of {public_name(request.source)} lands on {grid}"
    else:
        text = f"{public_name(request.source)} and {grid} overlap in only {fraction:.0%} of the smaller one"
    return (f"{text}: {_advice(target, other if better else 0.0)}",)


def _advice(target: _Target, other: float) -> str:
    """Name what to try: the other direction, where it would put the fraction `other` on the grid."""
    if not target.named:
        return "the headers put the two in different places: give the transform between them"
    if other > 0:
        return (
            f"--direction {target.opposite()} would put {other:.0%} there: "
            "the transform seems to be meant the other way round"
        )
    return (
        "check that the transform is of this pair and maps fixed points to moving points, "
        f"and that --reference is the {target.part} image"
    )


def _name(request: ApplyRequest) -> str:
    return "the reference" if request.reference is None else public_name(request.reference)


def _number(text: str) -> float:
    """Read --fill: a number of float32, or nan."""
    if text.strip().lower() == "nan":
        return math.nan
    value = finite_number(text)
    if value is None or abs(value) > LARGEST_FILL:
        raise InputError(f"--fill {excerpt(text, 40)}: expected a number such as 0 or -1024, or nan")
    return value
