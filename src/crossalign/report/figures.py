"""Static pictures (PNG): three planes of a fusion, or of one stage's maps, radiological convention."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image as Picture

from crossalign.explanation import Explanation, StageExplanation
from crossalign.fusion import FusionResult
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image
from crossalign.output import check_output, whole_file
from crossalign.report.colours import COLOUR_MAP, colour_fusion, colour_table
from crossalign.report.cuts import INK, PAPER, PLANES, Cut, finish, title
from crossalign.report.pages.explanation import Mark, explanation_grid, marks_of
from crossalign.report.pages.explanation_axes import along_patient_axes
from crossalign.report.pages.fusion import FusionDisplay
from crossalign.report.viewer import grey_bytes, grey_levels
from crossalign.types import Scan

FUSION_COLUMNS = (("mri", "MRI"), ("pet", "PET"), ("fused", "Fused"), ("colour", "MRI lightness, PET colour"))
MARKERS = {"ring": ("o", "#7dff8a"), "cross": ("x", "#ff6ad5"), "square": ("s", "#6fd0ff")}
MARK_DISTANCE_MM = 4.0
PALETTE = 256  # colours of the picture of maps, for a quarter of its size
NOTE = "Research software, not a medical device."


def write_fusion_planes(path: str | os.PathLike[str], result: FusionResult, overwrite: bool = False) -> None:
    """Write three planes of a fusion (PNG); the file appears whole or not at all, names no file. Raises OutputError."""
    check_output(path, overwrite)
    figure = draw_fusion_planes(result)
    with whole_file(path, overwrite) as partial:
        figure.savefig(partial, format="png", dpi=110, facecolor=PAPER, metadata={"Software": None})


def draw_fusion_planes(result: FusionResult) -> Figure:
    """Draw three planes through the middle of the head: MRI, PET, fused, and MRI and PET in colour; a colour bar."""
    display = FusionDisplay.of(result)
    figure = Figure(figsize=(12.5, 9.6), layout="constrained", facecolor=PAPER)
    pictures, legend = np.asarray(figure.subfigures(1, 2, width_ratios=(1, 0.17)))
    for part in (pictures, legend):
        part.set_facecolor(PAPER)
    axes = pictures.subplots(len(PLANES), len(FUSION_COLUMNS))
    title(axes, [title for _, title in FUSION_COLUMNS])
    for row, (_, axis, letters) in zip(axes, PLANES, strict=True):
        cut = Cut.through(display.grid, display.center_mm, axis)
        for one, (name, _) in zip(row, FUSION_COLUMNS, strict=True):
            if name == "colour":
                mri, pet = (cut.plane(display.volumes[part]) for part in ("mri", "pet"))
                one.imshow(colour_fusion(mri, pet), interpolation="bilinear")
            else:
                _draw(one, cut.plane(display.volumes[name]), COLOUR_MAP if name == "pet" else "gray")
            x, y = cut.in_plane(cut.index)
            one.axhline(y, color="w", alpha=0.35, linewidth=0.7)
            one.axvline(x, color="w", alpha=0.35, linewidth=0.7)
            finish(one, letters)
    _draw_legend(legend, result, display)
    note = f"Fused by {result.method}. {NOTE} The patient's left is on the right."
    figure.supxlabel(note, color=INK, fontsize=9)
    return figure


def _draw_legend(figure: SubFigure, result: FusionResult, display: FusionDisplay) -> None:
    (low, high), scaling, pet = display.pet_range, result.a_scaling, f"PET ({display.pet_unit})"
    both, alone = figure.subplots(2, 1)
    brightest = scaling.low + display.tops["mri"] * (scaling.high - scaling.low)
    extent = (low, high, scaling.low, brightest)
    both.imshow(colour_table(), origin="lower", aspect="auto", extent=extent, interpolation="nearest")
    both.set_title("colours", color=INK, fontsize=10)
    both.set_ylabel("MRI (units of its file)", color=INK, fontsize=8)
    both.set_xlabel(pet, color=INK, fontsize=8)
    ramp = np.linspace(0, 1, 256)[:, None]
    alone.imshow(ramp, origin="lower", aspect="auto", extent=(0, 1, low, high), cmap=COLOUR_MAP)
    alone.set_xticks([])
    alone.set_ylabel(pet, color=INK, fontsize=8)
    for axes in (both, alone):
        axes.tick_params(colors=INK, labelsize=7)


@dataclass(frozen=True, eq=False)
class _Column:
    """One image with a map over it, and points, on the display grid."""

    title: str
    image: Scan
    map: Scan | None = None
    marks: tuple[Mark, ...] = ()


def write_explanation_figure(path: str | os.PathLike[str], explanation: Explanation, overwrite: bool = False) -> None:
    """Write the last stage's maps (PNG); the file appears whole or not at all, names no file. Raises OutputError."""
    check_output(path, overwrite)
    drawn = BytesIO()
    draw_explanation(explanation).savefig(drawn, format="png", dpi=65, facecolor=PAPER, metadata={"Software": None})
    every_hue = Picture.Quantize.MAXCOVERAGE  # the others leave out the colours of marks
    reduced = Picture.open(drawn).convert("RGB").quantize(PALETTE, method=every_hue, dither=Picture.Dither.NONE)
    with whole_file(path, overwrite) as partial:
        reduced.save(partial, format="png", optimize=True)


def draw_explanation(explanation: Explanation) -> Figure:
    """Draw the last stage: both images, the last attention blocks' maps, the six parameters', and the first point's.

    The planes are along the patient's axes, also where the fixed header was not believed.
    """
    explanation = along_patient_axes(explanation)
    stage, grid = explanation.stages[-1], explanation_grid(explanation)
    columns = _columns(explanation, stage, grid)
    center_mm = stage.attended_points[0].point_mm if stage.attended_points else explanation.result.center_mm
    figure = Figure(figsize=(2.0 * len(columns), 6.2), layout="constrained", facecolor=PAPER)
    axes = figure.subplots(len(PLANES), len(columns), squeeze=False)
    title(axes, [column.title for column in columns])
    for row, (_, axis, letters) in zip(axes, PLANES, strict=True):
        cut = Cut.through(grid, center_mm, axis)
        for one, column in zip(row, columns, strict=True):
            _draw(one, cut.plane(column.image))
            if column.map is not None:
                plane = cut.plane(column.map).clip(0, 1)
                _draw(one, plane, COLOUR_MAP, 0.75 * plane)
            for mark in column.marks:
                _draw_mark(one, mark, cut)
            finish(one, letters)
    figure.supxlabel(f"{stage.crop.name}. Each map has its own scale. {NOTE}", color=INK, fontsize=9)
    return figure


def _columns(explanation: Explanation, stage: StageExplanation, grid: Grid) -> list[_Column]:
    images = {
        "fixed": _shades(explanation.problem.fixed, grid),
        "moving": _shades(explanation.problem.moving, grid, stage.crop.initial),
    }
    columns = [_Column("Fixed", images["fixed"]), _Column("Moving, as given", images["moving"])]
    for way, words in (("gradcam", "Grad-CAM"), ("local", "by position")):
        for side, image in images.items():
            found = [cam for cam in stage.cams if cam.name.startswith(way) and cam.name.endswith(side)]
            columns += [_Column(f"{words}, {side}", image, cam.on_fixed(grid).voxels) for cam in found[-1:]]
    mean = torch.stack([one.map.on_fixed(grid).voxels for one in stage.parameters]).mean(0)
    columns.append(_Column("six parameters", images["fixed"], mean / mean.max().clamp(min=1e-12)))
    if stage.attended_points:
        point = stage.attended_points[0]
        marks = {side: tuple(mark for mark in marks_of(point, stage) if mark.scan == side) for side in images}
        columns[0] = _Column("Fixed, point", images["fixed"], None, marks["fixed"])
        columns.append(_Column("attended", images["moving"], point.map.on_fixed(grid).voxels, marks["moving"]))
    return columns


def _shades(image: Image, grid: Grid, grid_to_image: Rigid | None = None) -> Scan:
    return grey_bytes(grey_levels(image, grid, grid_to_image)).float() / 255


def _draw(axes: Axes, plane: np.ndarray, colours: str = "gray", alpha: np.ndarray | None = None) -> None:
    axes.imshow(plane, cmap=colours, vmin=0, vmax=1, alpha=alpha, interpolation="bilinear")


def _draw_mark(axes: Axes, mark: Mark, cut: Cut) -> None:
    voxel = cut.grid.to_voxel(torch.tensor([mark.point_mm], dtype=torch.float64))[0].flip(0).tolist()
    if abs(voxel[cut.axis] - cut.index[cut.axis]) * cut.grid.spacing_mm[0] > MARK_DISTANCE_MM:
        return
    x, y = cut.in_plane(voxel)
    marker, colour = MARKERS[mark.shape]
    axes.plot([x], [y], marker, markersize=7, markeredgecolor=colour, markerfacecolor="none", markeredgewidth=1.5)
