"""Starts for pairs that lie in unrelated world coordinates: a shift without a turn."""

import torch

from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap
from crossalign.types import Vector


def center_start(fixed: Image, moving: Image) -> Rigid:
    """Return the shift from the middle of the fixed grid to the middle of the moving grid, fixed to moving."""
    return _shift(fixed.grid.center_mm(), moving.grid.center_mm())


def mask_center_start(fixed_mask: LabelMap, moving: Image) -> Rigid:
    """Return the shift from the mask's centroid to the middle of the moving grid, fixed to moving."""
    return _shift(fixed_mask.centroid_mm(), moving.grid.center_mm())


def _shift(source_mm: Vector, target_mm: Vector) -> Rigid:
    return Rigid(torch.eye(3, dtype=torch.float64), target_mm - source_mm)
