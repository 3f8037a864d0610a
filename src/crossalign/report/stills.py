"""Still pictures in a page, for print and where the viewer cannot run: three planes of a pair, PNG in base64."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from crossalign.geometry import Grid
from crossalign.report.cuts import PAPER, PLANES, Cut, finish, title
from crossalign.types import Vector

FIXED_LINE, MOVING_LINE = "#3fe0f0", "#ff6ad5"
SQUARES = 8  # of the checkerboard along the longer side of a plane
DPI = 80


@dataclass(frozen=True, eq=False)
class StillColumn:
    """A column: what is drawn of each plane, grey (z, y, x) or colours (z, y, x, 3), and outlines by their colour."""

    title: str
    volume: UInt8[Tensor, "z y x"] | UInt8[np.ndarray, "z y x"] | UInt8[np.ndarray, "z y x 3"]
    outlines: Mapping[str, UInt8[Tensor, "z y x"]]


def draw_stills(grid: Grid, center_mm: Vector, columns: Sequence[StillColumn]) -> str:
    """Draw the three planes through a point (3,) of volumes on the display grid; the patient's left on the right."""
    figure = Figure(figsize=(3.1 * len(columns), 8.6), facecolor=PAPER)
    figure.subplots_adjust(left=0.03, right=0.995, bottom=0.01, top=0.95, wspace=0.03, hspace=0.03)
    axes = figure.subplots(len(PLANES), len(columns), squeeze=False)
    title(axes, [column.title for column in columns])
    for row, (_, axis, letters) in zip(axes, PLANES, strict=True):
        cut = Cut.through(grid, center_mm.cpu().double(), axis)
        for one, column in zip(row, columns, strict=True):
            _draw(one, cut, column)
            finish(one, letters)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, facecolor=PAPER, metadata={"Software": None})
    return base64.b64encode(drawn.getvalue()).decode()


def _draw(axes: Axes, cut: Cut, column: StillColumn) -> None:
    volume = column.volume if isinstance(column.volume, np.ndarray) else column.volume.numpy()
    axes.imshow(cut.of_array(volume), cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    for colour, mask in column.outlines.items():
        plane = cut.of_array(mask.numpy())
        if plane.max() > 127.5 > plane.min():
            axes.contour(plane, levels=[127.5], colors=[colour], linewidths=1.2)


def checkerboard(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take one volume (z, y, x) in every second cube, the other in the rest; where the second is empty, the first."""
    side = max(1, max(first.shape) // SQUARES)
    z, y, x = (np.arange(n) // side for n in first.shape)
    squares = (z[:, None, None] + y[None, :, None] + x[None, None, :]) % 2 == 1
    return np.where(squares & (second > 0), second, first)
