"""One stage's maps as one picture: three planes through the gland or a point, each map over the image it belongs to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import torch

from crossalign.explanation import Explanation, StageExplanation
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image
from crossalign.output import whole_file
from crossalign.report.display import contrast_window, display_grid, scan_bytes, scan_grey
from crossalign.report.explanation_view import Mark, marks_of
from crossalign.types import Scan, Vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Plane: the axis (z 0, y 1, x 2) that it cuts, and the letters at the left, right, top and bottom of its picture.
PLANES = (("axial", 0, "RLAP"), ("coronal", 1, "RLSI"), ("sagittal", 2, "APSI"))
PAPER, INK, COLOUR_MAP = "#101416", "#e8ecee", "inferno"
MARKERS = {"ring": ("o", "#7dff8a"), "cross": ("x", "#ff6ad5"), "square": ("s", "#6fd0ff")}
NEAR_MM = 4.0
COLOURS = 256  # of the written picture, for less than half of its size


@dataclass(frozen=True, eq=False)
class _Column:
    title: str
    scan: Scan
    map: Scan | None
    marks: tuple[Mark, ...] = ()


def write_explanation_figure(path: str | os.PathLike[str], explanation: Explanation, overwrite: bool = False) -> None:
    """Write the picture (PNG) of the last stage; it appears whole or not at all, names no file. Raises OutputError."""
    from PIL import Image as Picture

    figure, drawn = draw_explanation(explanation), BytesIO()
    figure.savefig(drawn, format="png", dpi=65, facecolor=PAPER, metadata={"Software": None})
    few = Picture.open(drawn).convert("RGB").quantize(COLOURS, dither=Picture.Dither.NONE)
    with whole_file(path, overwrite) as partial:
        few.save(partial, format="png", optimize=True)


def draw_explanation(explanation: Explanation) -> Figure:
    """Draw the last stage: both images, the last attention blocks' maps, the six parameters', and the first point's."""
    from matplotlib.figure import Figure

    stage, problem = explanation.stages[-1], explanation.problem
    structure = None if problem.fixed_mask is None else problem.fixed_mask.extremes_mm()
    grid = display_grid(problem.fixed.grid, problem.moving.grid, structure)
    columns = _columns(explanation, stage, grid)
    look_at = stage.attended_points[0].point_mm if stage.attended_points else explanation.result.center_mm
    figure = Figure(figsize=(2.0 * len(columns), 6.2), layout="constrained", facecolor=PAPER)
    axes = figure.subplots(3, len(columns), squeeze=False)
    for row, (plane, cut, letters) in enumerate(PLANES):
        for at, column in enumerate(columns):
            _draw(axes[row][at], column, (grid, look_at, cut), letters)
            if row == 0:
                axes[row][at].set_title(column.title, color=INK, fontsize=10)
        axes[row][0].set_ylabel(plane, color=INK, fontsize=10)
    figure.supxlabel(
        f"{stage.view.name}. Each map has its own scale. Research software, not a medical device.",
        color=INK,
        fontsize=9,
    )
    return figure


def _columns(explanation: Explanation, stage: StageExplanation, grid: Grid) -> list[_Column]:
    fixed = _shades(explanation.problem.fixed, grid)
    moving = _shades(explanation.problem.moving, grid, stage.view.start)
    scans = {"fixed": fixed, "moving": moving}
    columns = [_Column("Fixed", fixed, None), _Column("Moving, at the start", moving, None)]
    for way, words in (("gradcam", "Grad-CAM"), ("local", "by position")):
        for side in ("fixed", "moving"):
            found = [cam for cam in stage.cams if cam.name.startswith(way) and cam.name.endswith(side)]
            columns += [_Column(f"{words}, {side}", scans[side], cam.on_fixed(grid).voxels) for cam in found[-1:]]
    mean = torch.stack([one.map.on_fixed(grid).voxels for one in stage.parameters]).mean(0)
    columns.append(_Column("six parameters", fixed, mean / mean.max().clamp(min=1e-12)))
    if stage.attended_points:
        look = stage.attended_points[0]
        columns[0] = _Column("Fixed, point", fixed, None, marks_of(look, stage))
        columns.append(_Column("where it looks", moving, look.map.on_fixed(grid).voxels, marks_of(look, stage)))
    return columns


def _shades(image: Image, grid: Grid, grid_to_image: Rigid | None = None) -> Scan:
    grey = scan_grey(image, grid, grid_to_image)
    return scan_bytes(grey, contrast_window(grey)).float() / 255


def _draw(axes: Axes, column: _Column, where: tuple[Grid, Vector, int], letters: str) -> None:
    grid, look_at, cut = where
    index = grid.to_voxel(look_at[None])[0].round().long().flip(0).tolist()
    at = min(max(index[cut], 0), grid.shape[cut] - 1)
    axes.imshow(_plane(column.scan, cut, at), cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
    if column.map is not None:
        plane = _plane(column.map, cut, at).clip(0, 1)
        axes.imshow(plane, cmap=COLOUR_MAP, vmin=0, vmax=1, alpha=0.75 * plane, interpolation="bilinear")
    scan = "fixed" if column.title.startswith("Fixed") else "moving"
    for mark in column.marks:
        if mark.scan == scan:
            _draw_mark(axes, mark, grid, (cut, at))
    places = ((0.03, 0.5), (0.97, 0.5), (0.5, 0.96), (0.5, 0.04))
    for letter, (x, y) in zip(letters, places, strict=True):
        axes.text(x, y, letter, color=INK, fontsize=7, ha="center", va="center", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_mark(axes: Axes, mark: Mark, grid: Grid, where: tuple[int, int]) -> None:
    cut, at = where
    voxel = grid.to_voxel(torch.tensor([mark.point_mm], dtype=torch.float64))[0].flip(0).tolist()
    if abs(voxel[cut] - at) * grid.spacing_mm[0] > NEAR_MM:
        return
    row, column = [place for axis, place in enumerate(voxel) if axis != cut]
    y = row if cut == 0 else grid.shape[0] - 1 - row
    marker, colour = MARKERS[mark.shape]
    face = colour if marker == "x" else "none"
    axes.scatter([column], [y], s=45, marker=marker, edgecolors=colour if marker != "x" else None, facecolors=face)


def _plane(volume: Scan, cut: int, index: int) -> np.ndarray:
    """Rows from the top of the picture: anterior, or the head; columns from the patient's right, or from the front."""
    plane = volume.select(cut, index).numpy()
    return plane if cut == 0 else plane[::-1]
