"""Starts that are named by a word: from the headers, or from centres where the scans' worlds have nothing in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from crossalign.geometry import Rigid, grid_overlap, inside_share
from crossalign.images import Image, LabelMap
from crossalign.types import Vector

HEADER, IDENTITY, CENTER, MASK_CENTER = "header", "identity", "center", "mask-center"
START_WORDS = (HEADER, IDENTITY, CENTER, MASK_CENTER)
LEAST_OVERLAP = 0.25


@dataclass(frozen=True, eq=False)
class Start:
    """A start, fixed to moving (mm, LPS), the word or file name that it goes by, and why it was taken.

    `reason` is empty where it was asked for.
    """

    fixed_to_moving: Rigid
    name: str
    reason: str


def header_start() -> Rigid:
    """Return the start that believes both headers: a point has the same coordinates in both scans."""
    return Rigid.identity()


def center_start(fixed: Image, moving: Image) -> Rigid:
    """Return the shift from the middle of the fixed grid to the middle of the moving grid, fixed to moving."""
    return _shift(fixed.grid.center_mm(), moving.grid.center_mm())


def mask_center_start(fixed_mask: LabelMap, moving: Image) -> Rigid:
    """Return the shift from the mask's centroid to the middle of the moving grid, fixed to moving."""
    return _shift(fixed_mask.centroid_mm(), moving.grid.center_mm())


def choose_start(fixed: Image, moving: Image, fixed_mask: LabelMap | None = None) -> Start:
    """Start from the headers where they say that the scans overlap, otherwise from the mask's or the grid's centre.

    They overlap where a quarter of the smaller field of view lies in the other one, and a quarter of the structure,
    where it is marked, in the moving image.
    """
    overlap = grid_overlap(fixed.grid, moving.grid)
    seen = 1.0 if fixed_mask is None else inside_share(fixed_mask.points_mm(), moving.grid)
    if overlap >= LEAST_OVERLAP and seen >= LEAST_OVERLAP:
        reason = f"by the headers {overlap:.0%} of the smaller field of view lies in the other"
        return Start(header_start(), HEADER, reason)
    if overlap < LEAST_OVERLAP:
        reason = "the headers put the scans apart" if overlap == 0 else f"the headers let only {overlap:.0%} overlap"
    else:
        reason = f"the headers put only {seen:.0%} of the structure into the moving image"
    if fixed_mask is not None:
        return Start(mask_center_start(fixed_mask, moving), MASK_CENTER, reason)
    return Start(center_start(fixed, moving), CENTER, reason)


def _shift(source_mm: Vector, target_mm: Vector) -> Rigid:
    return Rigid(torch.eye(3, dtype=torch.float64), target_mm - source_mm)
