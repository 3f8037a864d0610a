"""Inputs that can be registered and are probably a mistake: a wrong unit of length, a mask that outlines nothing."""

from __future__ import annotations

import math

from crossalign.geometry import Grid
from crossalign.images import LabelMap
from crossalign.registration.problem import Problem

# A small block of a whole body is a tenth of it; a header in cm, m or um in place of mm is wrong by 10 or 1000.
FAR_APART_SIZES = 30.0
FEW_VOXELS = 8
NEARLY_ALL = 0.99


def input_warnings(problem: Problem) -> tuple[str, ...]:
    """Say what is odd about the sizes of the two scans and about the masks, each with what to check."""
    masks = (problem.fixed_mask, problem.moving_mask)
    return (*_size_warnings(problem), *(text for mask in masks if mask is not None for text in _mask_warnings(mask)))


def _size_warnings(problem: Problem) -> tuple[str, ...]:
    sizes = _diagonal_mm(problem.fixed.grid), _diagonal_mm(problem.moving.grid)
    if max(sizes) < FAR_APART_SIZES * min(sizes):
        return ()
    fixed, moving = f"{problem.fixed.name} is {sizes[0]:.3g} mm", f"{problem.moving.name} {sizes[1]:.3g} mm"
    return (f"{fixed} from corner to corner and {moving}: check the spacing in both headers, which is to be in mm",)


def _mask_warnings(mask: LabelMap) -> tuple[str, ...]:
    count, voxels = mask.foreground_count(), math.prod(mask.grid.shape)
    if count < FEW_VOXELS:
        return (f"{mask.name}: the mask marks {count} of {voxels:,} voxels, expected the whole structure: check it",)
    if count >= NEARLY_ALL * voxels:
        return (f"{mask.name}: the mask marks {count / voxels:.0%} of its image, expected one structure: check it",)
    return ()


def _diagonal_mm(grid: Grid) -> float:
    return math.hypot(*(size * spacing for size, spacing in zip(grid.shape[::-1], grid.spacing_mm, strict=True)))
