"""The page of a cohort: every case with its picture, failed ones first, then those that are not to be trusted."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageOps

import crossalign
from crossalign.geometry import Grid
from crossalign.images import Image
from crossalign.output import check_output, whole_file, write_bytes
from crossalign.registration.patient_axes import along_patient, patient_turn, turned_grid
from crossalign.registration.result import RegistrationResult
from crossalign.report.page import Privacy, content_hash, environment, read_part
from crossalign.report.viewer import contrast_window, display_grid, grey_bytes, grey_levels
from crossalign.types import Scan, Vector

SIDE = 120  # of one picture, pixels
SQUARES = 6  # of the chequered picture, along a side
QUALITY = 80
FAILED, NOT_TRUSTED, UNKNOWN, TRUSTED = "failed", "not trusted", "unknown", "trusted"
ORDER = (FAILED, NOT_TRUSTED, UNKNOWN, TRUSTED)


@dataclass(frozen=True)
class CohortRow:
    """One case of the page; `page` is the address of its own page beside this one, "" where it has none.

    `thumbnail` is a JPEG as base64, "" where there is none. The texts name no file and no patient.
    """

    name: str
    error: str
    method: str
    expected_sre_mm: float | None
    trusted: bool | None
    seconds: float
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    thumbnail: str
    page: str

    @property
    def state(self) -> str:
        """Return what it is grouped by."""
        if self.error:
            return FAILED
        return UNKNOWN if self.trusted is None else TRUSTED if self.trusted else NOT_TRUSTED


def worst_first(rows: Sequence[CohortRow]) -> list[CohortRow]:
    """Order cases: failed, not trusted, unknown, trusted; within each by falling expected error, then by name."""

    def place(row: CohortRow) -> tuple[int, float, str]:
        error = float("inf") if row.expected_sre_mm is None else row.expected_sre_mm
        return ORDER.index(row.state), -error, row.name

    return sorted(rows, key=place)


def write_cohort_page(
    path: str | os.PathLike[str], rows: Sequence[CohortRow], total: int, overwrite: bool = False
) -> None:
    """Write the page, one file that loads nothing; `total` is how many cases there are to do. Raises OutputError."""
    check_output(path, overwrite)
    content = _html(rows, total).encode("utf-8", "replace")
    with whole_file(path, overwrite) as partial:
        write_bytes(content, partial)


def case_thumbnail(fixed: Image, moving: Image, result: RegistrationResult) -> str:
    """Draw the axial plane through the structure's centre: both images, and both in turn as a chequerboard.

    Returns a JPEG as base64, the patient's left on the right, as the pages have it.
    """
    turn = patient_turn(result)
    if turn is not None:
        fixed, moving = (replace(image, grid=turned_grid(image.grid, turn)) for image in (fixed, moving))
        result = along_patient(result, turn)
    fixed_to_moving, center_mm = result.fixed_to_moving, result.center_mm
    plane = _axial(display_grid(fixed.grid, moving.grid, None), center_mm)
    pictures = [_shades(grey_levels(fixed, plane)), _shades(grey_levels(moving, plane, fixed_to_moving))]
    rows, columns = (np.arange(n) * SQUARES // max(n, 1) for n in pictures[0].shape)
    pictures.append(np.where((rows[:, None] + columns) % 2 == 0, *pictures))
    sheet = Picture.new("L", (SIDE * len(pictures), SIDE))
    for number, shades in enumerate(pictures):
        small = ImageOps.contain(Picture.fromarray(shades), (SIDE - 4, SIDE), Picture.Resampling.BICUBIC)
        sheet.paste(small, (SIDE * number + (SIDE - small.width) // 2, (SIDE - small.height) // 2))
    drawn = io.BytesIO()
    sheet.save(drawn, format="JPEG", quality=QUALITY)
    return base64.b64encode(drawn.getvalue()).decode()


def _axial(grid: Grid, center_mm: Vector) -> Grid:
    """Return the one slice of a grid that is nearest to a point."""
    index = int(grid.to_voxel(center_mm.cpu().double()[None])[0, 2].round())
    depth, height, width = grid.shape
    return grid.part((min(max(index, 0), depth - 1), 0, 0), (1, height, width))


def _shades(grey: Scan) -> NDArray[np.uint8]:
    """Return a plane in its own window; black where there is no image."""
    shades: NDArray[np.uint8] = grey_bytes(grey, contrast_window(torch.nan_to_num(grey)))[0].numpy()
    return shades


def _html(rows: Sequence[CohortRow], total: int) -> str:
    style = read_part("page.css") + read_part("cohort.css")
    counts = {state: sum(row.state == state for row in rows) for state in ORDER}
    return (
        environment(Privacy({}).clean)
        .get_template("cohort.html.j2")
        .render(
            rows=worst_first(rows),
            counts=counts,
            total=total,
            missing=total - len(rows),
            crossalign_version=crossalign.__version__,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            style=style,
            style_hash=content_hash(style),
        )
    )
