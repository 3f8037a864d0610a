"""Planes of an overlay (PNG): MR with PET in colours, MR alone and PET alone, radiological convention."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

from crossalign.fusion.overlay import LEVELS, Overlay, blend
from crossalign.geometry import Grid
from crossalign.images import Image
from crossalign.output import check_output, whole_file
from crossalign.report.cuts import INK, PAPER, PLANES
from crossalign.report.figures import NOTE
from crossalign.types import Scan, Triple

FINEST_MM, LARGEST_VOXELS = 0.4, 640
BAR_MM = (100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0)
BAR_FRACTION = 0.4  # of a picture's width, at most
GAP_MM = 12.0  # about the point, which the lines leave free
TITLES = ("MR and PET", "MR", "PET")
DPI = 110


@dataclass(frozen=True, eq=False)
class _Plane:
    """One plane: grey, uptake (both in [0, 1]), its letters, its sides in mm (left, right, bottom, top), the point."""

    name: str
    letters: str
    grey: NDArray[np.float32]
    uptake: NDArray[np.float32]
    sides_mm: tuple[float, float, float, float]
    point_mm: tuple[float, float]


def maximum_uptake(overlay: Overlay) -> tuple[Triple, float]:
    """Return where the uptake is highest within the fixed image, (x, y, z) LPS mm, and how high, in its own unit."""
    pet = overlay.pet_on_fixed()
    index = int(pet.voxels.argmax())
    voxel = torch.tensor([np.unravel_index(index, pet.grid.shape)[::-1]], dtype=torch.float64)
    x, y, z = pet.grid.to_physical(voxel)[0].tolist()
    return (x, y, z), float(pet.voxels.flatten()[index])


def write_overlay_planes(
    path: str | os.PathLike[str], overlay: Overlay, point_mm: Triple | None = None, overwrite: bool = False
) -> None:
    """Write three planes of an overlay (PNG) through a point, by default where the uptake is highest.

    The file appears whole or not at all and names no file. Raises OutputError.
    """
    check_output(path, overwrite)
    figure = draw_overlay_planes(overlay, point_mm)
    with whole_file(path, overwrite) as partial:
        figure.savefig(partial, format="png", dpi=DPI, facecolor=PAPER, metadata={"Software": None})


def draw_overlay_planes(overlay: Overlay, point_mm: Triple | None = None) -> Figure:
    """Draw axial, coronal and sagittal planes of the overlay, the MR and the PET; a scale bar, and the colours."""
    place, highest = maximum_uptake(overlay)
    point = point_mm or place
    planes = [_plane(overlay, point, *plane) for plane in PLANES]
    figure = Figure(figsize=(12.5, 11.0), layout="constrained", facecolor=PAPER)
    pictures, legend = np.asarray(figure.subfigures(1, 2, width_ratios=(1, 0.13)))
    axes = pictures.subplots(len(TITLES), len(planes))
    for column, plane in enumerate(planes):
        bottom = {"aspect": "equal", "extent": plane.sides_mm, "interpolation": "nearest"}
        grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
        axes[0, column].imshow(blend(plane.grey, plane.uptake, overlay.settings), **bottom)
        axes[1, column].imshow(plane.grey, **bottom, **grey)
        axes[2, column].imshow(1 - plane.uptake, **bottom, **grey)
        axes[0, column].set_title(plane.name, color=INK, fontsize=10)
        for row in range(len(TITLES)):
            _finish(axes[row, column], plane, dark=row == 2)
    for row, title in enumerate(TITLES):
        axes[row, 0].set_ylabel(title, color=INK, fontsize=10)
    _draw_colours(legend.subplots(), overlay)
    unit = overlay.pet_scaling.unit or "units of the PET file"
    where = "L {:.0f}, P {:.0f}, S {:.0f} mm".format(*point)
    what = f"highest uptake, {highest:.4g} {unit}" if point_mm is None else "given point"
    figure.supxlabel(f"At {where} ({what}). The patient's left is on the right. {NOTE}", color=INK, fontsize=9)
    return figure


def _plane(overlay: Overlay, point: Triple, name: str, axis: int, letters: str) -> _Plane:
    """Resample both onto a plane through the point, across axis `axis` (z 0, y 1, x 2) of the world."""
    grid = _plane_grid(overlay.grid, point, axis)
    pet_scaling = overlay.pet_scaling
    scaled = Image(pet_scaling.apply(overlay.pet.voxels), overlay.pet.grid)
    fixed = Image(overlay.fixed_scaling.apply(overlay.fixed.voxels), overlay.grid)
    grey, uptake = fixed.resampled(grid, fill=0.0), scaled.resampled(grid, overlay.fixed_to_pet, fill=0.0)
    across, up = ((0, 1), (0, 2), (1, 2))[axis]  # world axes along the picture's columns and rows
    low = torch.tensor(grid.origin_mm)
    high = grid.to_physical(torch.tensor([[n - 1.0 for n in grid.shape[::-1]]], dtype=torch.float64))[0]
    half = grid.spacing_mm[across] / 2
    left, right, first, last = (float(v) for v in (low[across], high[across], low[up], high[up]))
    vertical = (last + half, first - half) if axis == 0 else (first - half, last + half)
    return _Plane(
        name=name,
        letters=letters,
        grey=_upright(grey.voxels, axis),
        uptake=_upright(uptake.voxels, axis),
        sides_mm=(left - half, right + half, *vertical),
        point_mm=(point[across], point[up]),
    )


def _plane_grid(grid: Grid, point: Triple, axis: int) -> Grid:
    """Return the grid of one voxel's depth through a point that shows the whole box of another grid."""
    low, high = grid.corners_mm().amin(0), grid.corners_mm().amax(0)
    spacing = max(FINEST_MM, min(grid.spacing_mm), float((high - low).max()) / LARGEST_VOXELS)
    size = [int(n) for n in ((high - low) / spacing).floor() + 1]
    center = ((low + high) / 2).tolist()
    world = 2 - axis
    size[world], center[world] = 1, point[world]
    width, height, depth = size
    x, y, z = center
    return Grid.centered((x, y, z), (depth, height, width), (spacing,) * 3)


def _upright(volume: Scan, axis: int) -> NDArray[np.float32]:
    """Return the plane with the front or the head at the top."""
    plane = volume.select(axis, 0).numpy()
    return plane if axis == 0 else plane[::-1]


def _finish(axes: Axes, plane: _Plane, dark: bool) -> None:
    """Add the directions, a scale bar, and lines that point at the point and leave it free."""
    ink, edge = ("black", "white") if dark else (INK, "black")
    outline: list[AbstractPathEffect] = [withStroke(linewidth=2.0, foreground=edge)]
    left, right, bottom, top = plane.sides_mm
    for letter, (x, y) in zip(plane.letters, ((0.03, 0.5), (0.97, 0.5), (0.5, 0.96), (0.5, 0.04)), strict=True):
        letter_at = axes.text(x, y, letter, color=ink, fontsize=10, ha="center", va="center", transform=axes.transAxes)
        letter_at.set_path_effects(outline)
    column, row = plane.point_mm
    for start, end in ((left, column - GAP_MM), (column + GAP_MM, right)):
        axes.plot((start, end), (row, row), color=ink, alpha=0.3, linewidth=0.7)
    for start, end in ((min(bottom, top), row - GAP_MM), (row + GAP_MM, max(bottom, top))):
        axes.plot((column, column), (start, end), color=ink, alpha=0.3, linewidth=0.7)
    width = right - left
    length = next((bar for bar in BAR_MM if bar <= BAR_FRACTION * width), BAR_MM[-1])
    x, y = left + 0.05 * width, bottom + 0.05 * (top - bottom)
    axes.plot((x, x + length), (y, y), color=ink, linewidth=2.5, solid_capstyle="butt", path_effects=outline)
    label = f"{length / 10:g} cm" if length >= 10 else f"{length:g} mm"
    axes.text(x, y + 0.02 * (top - bottom), label, color=ink, fontsize=9, va="bottom", path_effects=outline)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_colours(axes: Axes, overlay: Overlay) -> None:
    """Draw the colour of each uptake (upwards) over each grey of the MR (to the right)."""
    low, high = overlay.pet_scaling.low, overlay.pet_scaling.high
    level = np.linspace(0, 1, LEVELS, dtype=np.float32)
    uptake, grey = np.meshgrid(level, level, indexing="ij")
    axes.imshow(blend(grey, uptake, overlay.settings), origin="lower", aspect="auto", extent=(0, 1, low, high))
    unit = overlay.pet_scaling.unit or "units of its file"
    axes.set_ylabel(f"PET ({unit}); above {high:.4g} as at {high:.4g}", color=INK, fontsize=9)
    axes.set_xlabel("MR", color=INK, fontsize=8)
    axes.set_xticks([])
    axes.tick_params(colors=INK, labelsize=8)
