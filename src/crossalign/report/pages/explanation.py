"""The page of an explanation: every map over both images, marked points, and tables of what each stage depends on."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from crossalign.explanation import AttendedPoint, CropMap, Explanation, StageExplanation
from crossalign.geometry import Grid, orientation_code
from crossalign.registration.patient_axes import turned_grid
from crossalign.report.colours import colour_ramp
from crossalign.report.page import Page, Privacy, write_page
from crossalign.report.pages.explanation_axes import along_patient_axes, explanation_turn
from crossalign.report.viewer import ViewerData, display_grid, grey_bytes, grey_levels, mask_bytes, packed, unit_bytes
from crossalign.report.wording import Rows, coordinates, signed
from crossalign.types import Triple, Vector


@dataclass(frozen=True)
class Mark:
    """A point that is drawn over one image, `fixed` or `moving`; LPS, mm, in the fixed image's space."""

    words: str
    scan: str
    shape: str
    point_mm: Triple


@dataclass(frozen=True)
class MapData:
    """A map as the page's script reads it: bytes on the crop's own grid, sizes (x, y, z).

    `scan` is the image under it (`fixed` or `moving`), `moving` the name of the moving image that the stage was given.
    `from_display` (3 rows of 4) turns the display grid's voxels (x, y, z, 1) into the map's, `highest_mm` is where the
    map is highest, LPS.
    """

    title: str
    scan: str
    moving: str
    sizes: tuple[int, ...]
    from_display: tuple[tuple[float, ...], ...]
    highest_mm: Triple
    values: str
    peak: str
    marks: tuple[Mark, ...]


def write_explanation_report(path: str | os.PathLike[str], explanation: Explanation, overwrite: bool = False) -> None:
    """Write one self-contained HTML page about one explanation; it loads nothing and names no file.

    Raises OutputError where the file exists (without `overwrite`) or cannot be written; no partial file is left.
    """
    write_page(path, lambda: explanation_page(explanation), overwrite)


def explanation_page(explanation: Explanation) -> Page:
    """Gather the page: pictures along the patient's axes, tables in the files' coordinates."""
    problem, result = explanation.problem, explanation.result
    shown, moving = along_patient_axes(explanation), _moving_names(explanation)
    grid = explanation_grid(shown)
    images = {"the fixed mask": problem.fixed_mask, "the fixed image": problem.fixed}
    maps = [asdict(one) for stage, name in zip(shown.stages, moving, strict=True) for one in _maps(stage, grid, name)]
    return Page(
        name="explanation",
        method=result.method,
        reasons=result.reasons,
        warnings=explanation.warnings,
        settings=result.settings,
        privacy=Privacy.of({**images, "the moving image": problem.moving}),
        context=_context(explanation),
        viewer={**asdict(_viewer_data(shown, grid, moving)), "maps": maps, "ramp": packed(colour_ramp())},
    )


def explanation_grid(explanation: Explanation) -> Grid:
    """Choose the display grid: about the structure, or the whole fixed image without a mask."""
    problem = explanation.problem
    structure = None if problem.fixed_mask is None else problem.fixed_mask.extremes_mm()
    return display_grid(problem.fixed.grid, problem.moving.grid, structure)


def marks_of(point: AttendedPoint, stage: StageExplanation) -> tuple[Mark, ...]:
    """Mark the point in the fixed image; in the moving one where it attends, its match, and the stage's answer."""
    to_fixed = stage.crop.initial.inverse()
    positions = (
        ("attended (mean)", "ring", point.attended_mm),
        ("match", "cross", point.matched_mm),
        ("the stage's answer", "square", point.answer_mm),
    )
    return (
        Mark(point.name, "fixed", "ring", _triple(point.point_mm)),
        *(
            Mark(words, "moving", shape, _triple(to_fixed.apply(position[None])[0]))
            for words, shape, position in positions
            if position is not None
        ),
    )


def _moving_names(explanation: Explanation) -> list[str]:
    """Name the moving image of each stage: stages with one initial transform share it."""
    matrices = [stage.crop.initial.matrix() for stage in explanation.stages]
    first = [next(k for k, one in enumerate(matrices) if torch.equal(one, matrix)) for matrix in matrices]
    return [f"moving{number + 1}" for number in first]


def _viewer_data(explanation: Explanation, grid: Grid, moving: Sequence[str]) -> ViewerData:
    """Resample the images onto the display grid, the moving one through each initial transform."""
    problem = explanation.problem
    scans = {"fixed": grey_bytes(grey_levels(problem.fixed, grid))}
    for stage, name in zip(explanation.stages, moving, strict=True):
        if name not in scans:
            scans[name] = grey_bytes(grey_levels(problem.moving, grid, stage.crop.initial))
    outlines = {} if problem.fixed_mask is None else {"fixed": mask_bytes(problem.fixed_mask, grid)}
    return ViewerData.on_grid(grid, explanation.result.center_mm, scans, outlines)


def _maps(stage: StageExplanation, display: Grid, moving: str) -> list[MapData]:
    marks = {point.map.name: marks_of(point, stage) for point in stage.attended_points}
    return [_map_data(one, moving, display, marks.get(one.name, ())) for one in stage.maps()]


def _map_data(one: CropMap, moving: str, display: Grid, marks: tuple[Mark, ...]) -> MapData:
    grid = one.image.grid
    matrix = grid.physical_to_voxel() @ display.voxel_to_physical()
    highest = grid.points_mm().flatten(0, 2)[int(one.image.voxels.argmax())]
    return MapData(
        title=one.title,
        scan=one.scan,
        moving=moving,
        sizes=grid.shape[::-1],
        from_display=tuple(tuple(row) for row in matrix[:3].tolist()),
        highest_mm=_triple(highest),
        values=packed(unit_bytes(one.image.voxels)),
        peak=f"{one.peak:.3g} {one.unit}",
        marks=marks,
    )


def _context(explanation: Explanation) -> dict[str, object]:
    result, stages = explanation.result, explanation.stages
    numbers = itertools.count()
    return {
        "axes": _header_axes(explanation),
        "motion": f"{result.shift_mm():.1f} mm, {result.angle_deg():.1f}°",
        "stages": [(stage.crop.name, [(next(numbers), one.title) for one in stage.maps()]) for stage in stages],
        "has_mask": explanation.problem.fixed_mask is not None,
        "attention": [(stage.crop.name, _attention_rows(stage)) for stage in stages if stage.cams],
        "parameters": [(stage.crop.name, _parameter_rows(stage)) for stage in stages],
        "points": [(stage.crop.name, _point_rows(stage)) for stage in stages if stage.attended_points],
    }


def _header_axes(explanation: Explanation) -> dict[str, str] | None:
    """Give the codes of the fixed image's axes by its header and by the registration, where they differ."""
    turn, grid = explanation_turn(explanation), explanation.problem.fixed.grid
    if turn is None:
        return None
    return {"header": orientation_code(grid), "patient": orientation_code(turned_grid(grid, turn))}


def _attention_rows(stage: StageExplanation) -> Rows:
    return tuple((cam.title, f"{cam.peak:.3g} mm", *_in_structure(cam, stage)) for cam in stage.cams)


def _parameter_rows(stage: StageExplanation) -> Rows:
    return tuple(
        (
            one.name,
            _with_unit(one.value, one.unit),
            _percent(one.fixed_fraction),
            _percent(one.moving_fraction),
            *_in_structure(one.map, stage),
            _with_unit(one.convergence_delta, one.unit),
        )
        for one in stage.parameters
    )


def _point_rows(stage: StageExplanation) -> Rows:
    return tuple(
        (
            point.name,
            coordinates(point.point_mm),
            coordinates(point.attended_mm),
            "none" if point.matched_mm is None else coordinates(point.matched_mm),
            coordinates(point.answer_mm),
            f"{point.largest_weight:.2%}",
            f"{point.effective_tokens:.0f} of {point.tokens}",
        )
        for point in stage.attended_points
    )


def _in_structure(one: CropMap, stage: StageExplanation) -> tuple[str, str]:
    return _percent(one.fraction_inside(stage.mask)), _percent(stage.mask_fraction)


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0%}"


def _with_unit(value: float, unit: str) -> str:
    return signed(value, 2, "°" if unit == "degrees" else " mm")


def _triple(point: Vector) -> Triple:
    x, y, z = (round(value, 2) for value in point.tolist())
    return (x, y, z)
