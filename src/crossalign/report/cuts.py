"""Slices of the display grid and how a table of them is laid out, radiological convention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from numpy.typing import NDArray

from crossalign.geometry import Grid
from crossalign.types import Scan, Vector

# Plane: the axis (z 0, y 1, x 2) that it cuts, and the letters at the left, right, top and bottom of its picture.
PLANES = (("axial", 0, "RLAP"), ("coronal", 1, "RLSI"), ("sagittal", 2, "APSI"))
LETTER_POSITIONS = ((0.03, 0.5), (0.97, 0.5), (0.5, 0.97), (0.5, 0.03))
PAPER, INK = "#101416", "#e8ecee"


@dataclass(frozen=True, eq=False)
class Cut:
    """A slice of the display grid: across axis `axis` (z 0, y 1, x 2) at `index`, voxel (z, y, x) of the centre."""

    grid: Grid
    axis: int
    index: tuple[int, ...]

    @staticmethod
    def through(grid: Grid, center_mm: Vector, axis: int) -> Cut:
        """Cut through the voxel nearest to a point (3,)."""
        voxel = grid.to_voxel(center_mm[None])[0].round().long().flip(0).tolist()
        return Cut(grid, axis, tuple(min(max(i, 0), n - 1) for i, n in zip(voxel, grid.shape, strict=True)))

    def plane(self, volume: Scan) -> NDArray[Any]:
        """Return rows from the picture's top (the front, or the head), columns from the patient's right or front."""
        return self.of_array(volume.numpy())

    def of_array(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return the same of an array (z, y, x), or (z, y, x, 3) of colours."""
        plane = volume.take(self.index[self.axis], self.axis)
        return plane if self.axis == 0 else plane[::-1]

    def in_plane(self, voxel: Sequence[int | float]) -> tuple[float, float]:
        """Return the column and the row in the picture of a voxel (z, y, x)."""
        row, column = [float(value) for axis, value in enumerate(voxel) if axis != self.axis]
        return column, row if self.axis == 0 else self.grid.shape[0] - 1 - row


def title(axes: NDArray[Any], titles: Sequence[str]) -> None:
    """Name the columns above and the planes beside a table of pictures."""
    for one, words in zip(axes[0], titles, strict=True):
        one.set_title(words, color=INK, fontsize=10)
    for one, (plane, _, _) in zip(axes[:, 0], PLANES, strict=True):
        one.set_ylabel(plane, color=INK, fontsize=10)


def finish(axes: Axes, letters: str) -> None:
    """Put the directions at the four sides, and take the frame away."""
    for letter, (x, y) in zip(letters, LETTER_POSITIONS, strict=True):
        axes.text(x, y, letter, color=INK, fontsize=8, ha="center", va="center", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
