"""Starts that are named by a word: from the headers, or from centres where the scans' worlds have nothing in common."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from crossalign.geometry import Grid, Rigid, grid_overlap, inside_fraction
from crossalign.images import Image, LabelMap
from crossalign.types import Vector

HEADER, IDENTITY, CENTER, MASK_CENTER = "header", "identity", "center", "mask-center"
INITIAL_WORDS = (HEADER, IDENTITY, CENTER, MASK_CENTER)
LEAST_OVERLAP, ONE_VIEW = 0.25, 0.9
NEAR_ZERO_VOXELS = 2.0
MASK_POINTS = 100_000


@dataclass(frozen=True, eq=False)
class Initialisation:
    """A start, fixed to moving (mm, LPS), the word or file name that it goes by, and why it was taken.

    `reason` is empty where it was asked for.
    """

    fixed_to_moving: Rigid
    name: str
    reason: str


def header_initialisation() -> Rigid:
    """Return the start that believes both headers: a point has the same coordinates in both scans."""
    return Rigid.identity()


def center_initialisation(fixed: Image, moving: Image) -> Rigid:
    """Return the shift from the middle of the fixed grid to the middle of the moving grid, fixed to moving."""
    return _shift(fixed.grid.center_mm(), moving.grid.center_mm())


def mask_center_initialisation(fixed_mask: LabelMap, moving: Image) -> Rigid:
    """Return the shift from the mask's centroid to the middle of the moving grid, fixed to moving."""
    return _shift(fixed_mask.centroid_mm(), moving.grid.center_mm())


def choose_initialisation(fixed: Image, moving: Image, fixed_mask: LabelMap | None = None) -> Initialisation:
    """Start from the headers where they put the scans into one world, otherwise from the mask's or the grid's centre.

    They do where a quarter of the smaller field of view lies in the other one, and a quarter of the structure, where it
    is marked, in the moving image. A header whose origin is its own corner was given no place in a world: where one
    scan has such a header nine tenths of the smaller field of view must lie in the other, and where both have, the two
    must be one field of view.
    """
    against = _against_headers(fixed.grid, moving.grid)
    if against is None and fixed_mask is not None:
        seen = inside_fraction(fixed_mask.points_mm(), moving.grid)
        if seen < LEAST_OVERLAP:
            against = f"the headers put only {seen:.0%} of the structure into the moving image"
    if against is None:
        overlap = grid_overlap(fixed.grid, moving.grid)
        reason = f"by the headers {overlap:.0%} of the smaller field of view lies in the other"
        return Initialisation(header_initialisation(), HEADER, reason)
    if fixed_mask is not None:
        return Initialisation(mask_center_initialisation(fixed_mask, moving), MASK_CENTER, against)
    return Initialisation(center_initialisation(fixed, moving), CENTER, against)


def _against_headers(fixed: Grid, moving: Grid) -> str | None:
    """Say why the headers do not tell where one scan lies in the other; None where they do."""
    overlap = grid_overlap(fixed, moving)
    if overlap == 0:
        return "the headers put the scans apart"
    if overlap < LEAST_OVERLAP:
        return f"the headers let only {overlap:.0%} overlap"
    unplaced = int(_starts_at_zero(fixed)) + int(_starts_at_zero(moving))
    small, large = sorted(math.prod(grid.extent_mm()) for grid in (fixed, moving))
    if unplaced == 2 and overlap * small < ONE_VIEW * large:
        return "both headers count from their own scan's corner, so neither says where one lies in the other"
    if unplaced == 1 and overlap < ONE_VIEW:
        return "one header counts from its own scan's corner, so it does not say where that scan lies in the other"
    return None


def _starts_at_zero(grid: Grid) -> bool:
    """Whether a corner of the grid lies within two voxels of the world's origin, the axes along the world's."""
    axes = torch.tensor(grid.direction, dtype=torch.float64).abs()
    if not torch.allclose(axes, axes.round(), atol=1e-3):
        return False
    step = axes.round() @ torch.tensor(grid.spacing_mm, dtype=torch.float64)
    return bool((grid.corners_mm().abs() / step).amax(1).min() <= NEAR_ZERO_VOXELS)


def _shift(source_mm: Vector, target_mm: Vector) -> Rigid:
    return Rigid(torch.eye(3, dtype=torch.float64), target_mm - source_mm)
