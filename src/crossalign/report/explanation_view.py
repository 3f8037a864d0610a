"""What the viewer of an explanation shows: both images on one display grid, and every map on its stage's own crop."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from crossalign.explanation import AttendedPoint, CropMap, Explanation, StageExplanation
from crossalign.report.display import (
    ViewerData,
    contrast_window,
    display_grid,
    mask_bytes,
    packed,
    scan_bytes,
    scan_grey,
)
from crossalign.types import Triple, Vector


@dataclass(frozen=True)
class Mark:
    """A point that is drawn over one image, `fixed` or `moving`; LPS, mm, in the fixed image's space."""

    words: str
    scan: str
    shape: str
    point_mm: Triple


@dataclass(frozen=True)
class ViewedMap:
    """A map as the page's script reads it: bytes on the crop's grid, sizes and origin (x, y, z), LPS mm."""

    title: str
    stage: int
    scan: str
    sizes: tuple[int, ...]
    spacing_mm: float
    origin_mm: Triple
    values: str
    peak: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, eq=False)
class ExplanationView:
    """Everything that the script reads. Scans: `fixed`, and `moving1` ... as each stage's start lays it over it."""

    viewer: ViewerData
    maps: tuple[ViewedMap, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return {**asdict(self.viewer), "maps": [asdict(one) for one in self.maps]}


def explanation_view(explanation: Explanation) -> ExplanationView:
    """Bring an explanation's images onto the display grid and pack its maps."""
    problem = explanation.problem
    structure = None if problem.fixed_mask is None else problem.fixed_mask.extremes_mm()
    grid = display_grid(problem.fixed.grid, problem.moving.grid, structure)
    fixed = scan_grey(problem.fixed, grid)
    scans: dict[str, Tensor] = {"fixed": scan_bytes(fixed, contrast_window(fixed))}
    for stage in explanation.stages:
        moving = scan_grey(problem.moving, grid, stage.view.start)
        scans[f"moving{stage.view.number}"] = scan_bytes(moving, contrast_window(moving))
    outlines = {} if problem.fixed_mask is None else {"fixed": mask_bytes(problem.fixed_mask, grid)}
    viewer = ViewerData.on_grid(grid, explanation.result.center_mm.cpu().double(), scans, outlines)
    return ExplanationView(viewer, tuple(one for stage in explanation.stages for one in _viewed_maps(stage)))


def marks_of(look: AttendedPoint, stage: StageExplanation) -> tuple[Mark, ...]:
    """Mark the point in the fixed image, and in the moving one where it looks, its match, and the stage's answer."""
    back = stage.view.start.inverse()
    places = (("looks at (mean)", "ring", look.looks_at_mm), ("match", "cross", look.matched_mm))
    answer = ("the stage's answer", "square", look.answer_mm)
    found = [
        Mark(words, "moving", shape, _triple(back.apply(place[None])[0]))
        for words, shape, place in (*places, answer)
        if place is not None
    ]
    return (Mark(look.name, "fixed", "ring", _triple(look.point_mm)), *found)


def _viewed_maps(stage: StageExplanation) -> list[ViewedMap]:
    marks = {look.map.name: marks_of(look, stage) for look in stage.attended_points}
    return [_viewed(shown, stage, marks.get(shown.name, ())) for shown in stage.maps()]


def _viewed(shown: CropMap, stage: StageExplanation, marks: tuple[Mark, ...]) -> ViewedMap:
    grid = shown.image.grid
    return ViewedMap(
        title=shown.title,
        stage=stage.view.number,
        scan=shown.scan,
        sizes=grid.shape[::-1],
        spacing_mm=grid.spacing_mm[0],
        origin_mm=grid.origin_mm,
        values=packed((shown.image.voxels * 255).round().to(torch.uint8)),
        peak=f"{shown.peak:.3g} {shown.unit}",
        marks=marks,
    )


def _triple(point: Vector) -> Triple:
    x, y, z = (round(value, 2) for value in point.tolist())
    return (x, y, z)
