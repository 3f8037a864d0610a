"""The planes of a fusion as one picture: MRI, PET, fused, and MRI and PET in colour, with crosshair and colour bar."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossalign.fusion import FusionResult
from crossalign.output import whole_file
from crossalign.report.fusion_colour import COLOUR_MAP, colour_fusion, colour_table
from crossalign.report.fusion_display import Shown, pet_range, show
from crossalign.types import Scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Plane: the axis (z 0, y 1, x 2) that it cuts, and the letters at the left, right, top and bottom of its picture.
PLANES = (("axial", 0, "RLAP"), ("coronal", 1, "RLSI"), ("sagittal", 2, "APSI"))
COLUMNS = (("mri", "MRI"), ("pet", "PET"), ("fused", "Fused"), ("colour", "MRI lightness, PET colour"))
PAPER, INK = "#101416", "#e8ecee"


def write_fusion_planes(path: str | os.PathLike[str], result: FusionResult, overwrite: bool = False) -> None:
    """Write the picture (PNG); it appears whole or not at all, and names no file. Raises OutputError."""
    figure = draw_fusion_planes(result)
    with whole_file(path, overwrite) as partial:
        figure.savefig(Path(partial), format="png", dpi=110, facecolor=PAPER, metadata={"Software": None})


def draw_fusion_planes(result: FusionResult) -> Figure:
    """Draw three planes through the middle of the head, radiological convention, one scale in mm."""
    from matplotlib.figure import Figure

    shown = show(result)
    index = [int(i) for i in shown.grid.to_voxel(shown.look_at_mm[None])[0].round().flip(0)]
    figure = Figure(figsize=(12.5, 9.6), layout="constrained", facecolor=PAPER)
    parts = np.asarray(figure.subfigures(1, 2, width_ratios=(1, 0.17)))
    pictures, legend = parts[0], parts[1]
    pictures.set_facecolor(PAPER)
    legend.set_facecolor(PAPER)
    axes = pictures.subplots(3, 4)
    for row, (plane, cut, letters) in enumerate(PLANES):
        for column, (name, title) in enumerate(COLUMNS):
            _draw_plane(axes[row][column], shown, name, (cut, index), letters)
            if row == 0:
                axes[row][column].set_title(title, color=INK, fontsize=11)
        axes[row][0].set_ylabel(plane, color=INK, fontsize=11)
    _draw_legend(legend, result, shown)
    figure.supxlabel(
        f"Fused by {result.method}. Research software, not a medical device. The patient's left is on the right.",
        color=INK,
        fontsize=9,
    )
    return figure


def _draw_plane(axes: Axes, shown: Shown, name: str, where: tuple[int, list[int]], letters: str) -> None:
    cut, index = where
    if name == "colour":
        parts = [_plane(shown.volumes[part], cut, index[cut]) for part in ("mri", "pet")]
        axes.imshow(colour_fusion(*parts), interpolation="bilinear")
    else:
        colours = COLOUR_MAP if name == "pet" else "gray"
        axes.imshow(
            _plane(shown.volumes[name], cut, index[cut]), cmap=colours, vmin=0, vmax=1, interpolation="bilinear"
        )
    height = shown.grid.shape[1 if cut == 0 else 0]
    row, column = [place for axis, place in enumerate(index) if axis != cut]
    axes.axhline(row if cut == 0 else height - 1 - row, color="w", alpha=0.35, linewidth=0.7)
    axes.axvline(column, color="w", alpha=0.35, linewidth=0.7)
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.97), (0.5, 0.03))
    for letter, (x, y) in zip(letters, places, strict=True):
        axes.text(x, y, letter, color=INK, fontsize=8, ha="center", va="center", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _plane(volume: Scan, cut: int, index: int) -> np.ndarray:
    """Rows from the top of the picture: anterior, or the head; columns from the patient's right, or from the front."""
    plane = volume.select(cut, index).numpy()
    return plane if cut == 0 else plane[::-1]


def _draw_legend(figure: Figure, result: FusionResult, shown: Shown) -> None:
    low, high, unit = pet_range(result, shown)
    both, alone = figure.subplots(2, 1)
    scaling = result.a_scaling
    darkest, lightest = scaling.low, scaling.low + shown.tops["mri"] * (scaling.high - scaling.low)
    extent = (low, high, darkest, lightest)
    both.imshow(colour_table(), origin="lower", aspect="auto", extent=extent, interpolation="nearest")
    both.set_title("colours", color=INK, fontsize=10)
    both.set_ylabel("MRI (units of its file)", color=INK, fontsize=8)
    ramp = np.linspace(0, 1, 256)[:, None]
    alone.imshow(ramp, origin="lower", aspect="auto", extent=(0, 1, low, high), cmap=COLOUR_MAP)
    alone.set_xticks([])
    alone.set_ylabel(f"PET ({unit})", color=INK, fontsize=8)
    both.set_xlabel(f"PET ({unit})", color=INK, fontsize=8)
    for axes in (both, alone):
        axes.tick_params(colors=INK, labelsize=7)
