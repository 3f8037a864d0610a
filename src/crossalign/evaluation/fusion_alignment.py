"""Bring a PET to an MRI, or an MRI to a template, from no better start than the headers."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from crossalign.evaluation.fusion_information import mutual_information_score
from crossalign.geometry import Grid, Rigid, grid_overlap, mean_displacement_mm
from crossalign.images import Image, LabelMap, scale_intensity
from crossalign.registration import MutualInformation, RegistrationResult, center_start, register
from crossalign.registration.frame import structure_extent_mm
from crossalign.registration.motions import structure_points
from crossalign.registration.problem import Problem
from crossalign.registration.register import overlap_points, overlap_share
from crossalign.types import Points

SCORE_STEPS = 45  # points of the score along the structure's extent: 4 mm in a head
SCORE_POINTS = 2_000_000
USABLE_HEADER = 0.25
# Shares of the structure's extent: 1 mm and 9 mm in a head.
SAME_START, SAME_ANSWER = 0.005, 0.05
CLEARLY_BETTER = 0.8  # an answer that shares this much less information than the best speaks against nothing


def align(fixed: Image, moving: Image, fixed_mask: LabelMap | None = None) -> RegistrationResult:
    """Register rigidly with mutual information, without a start to go from: fixed points to moving points.

    Starts from the middle of both grids, and from the headers too where these put a quarter of either grid, or of the
    fixed structure, into the other; the answer with more mutual information over the fixed grid is returned. Where both
    answers share about as much and lie apart, the result is not trusted. Raises what `register` raises.
    """
    points = structure_points(Problem(fixed, moving, Rigid.identity(), fixed_mask))
    extent = structure_extent_mm(points)
    starts = [center_start(fixed, moving)]
    apart_mm = float(mean_displacement_mm(starts[0], Rigid.identity(), points))
    if apart_mm > SAME_START * extent and _header_is_usable(fixed, moving, fixed_mask):
        starts.append(Rigid.identity())
    results = [register(fixed, moving, MutualInformation(), start, fixed_mask) for start in starts]
    scores = [shared_information_bits(fixed, moving, one.fixed_to_moving, extent) for one in results]
    best, *others = sorted(range(len(results)), key=lambda index: -scores[index])
    rivals = [results[index] for index in others if scores[index] >= CLEARLY_BETTER * scores[best]]
    return _doubted(results[best], rivals, points)


def shared_information_bits(fixed: Image, moving: Image, fixed_to_moving: Rigid, extent_mm: float) -> float:
    """Mutual information of both on a coarse grid along the fixed image's axes, bits; `extent_mm` of the structure."""
    grid = _score_grid(fixed.grid, extent_mm)
    return mutual_information_score(
        scale_intensity(fixed).resampled(grid, fill=0.0).voxels,
        scale_intensity(moving).resampled(grid, fixed_to_moving, fill=0.0).voxels,
    )


def _score_grid(grid: Grid, extent_mm: float) -> Grid:
    """Cover a grid along its own axes, about as finely as shows the structure; the world's axes play no part."""
    sides = [size * step for size, step in zip(grid.shape[::-1], grid.spacing_mm, strict=True)]
    spacing = max(extent_mm / SCORE_STEPS, (math.prod(sides) / SCORE_POINTS) ** (1 / 3))
    width, height, depth = (max(2, math.ceil(side / spacing)) for side in sides)
    x, y, z = (side / count for side, count in zip(sides, (width, height, depth), strict=True))
    first = [(new / old - 1) / 2 for new, old in zip((x, y, z), grid.spacing_mm, strict=True)]
    left, back, low = grid.to_physical(torch.tensor([first], dtype=torch.float64))[0].tolist()
    return Grid((depth, height, width), (x, y, z), (left, back, low), grid.direction)


def _header_is_usable(fixed: Image, moving: Image, fixed_mask: LabelMap | None) -> bool:
    if overlap_share(overlap_points(fixed, fixed_mask), Rigid.identity(), moving.grid) >= USABLE_HEADER:
        return True
    return fixed_mask is None and grid_overlap(fixed.grid, moving.grid) >= USABLE_HEADER


def _doubted(result: RegistrationResult, rivals: list[RegistrationResult], points_mm: Points) -> RegistrationResult:
    """Add a doubt where another start, whose answer is about as good, ended elsewhere."""
    extent = structure_extent_mm(points_mm)
    apart = [float(mean_displacement_mm(result.fixed_to_moving, one.fixed_to_moving, points_mm)) for one in rivals]
    if max(apart, default=0.0) <= SAME_ANSWER * extent:
        return result
    doubt = (
        f"the starts from the middle of the grids and from the headers end {max(apart):.3g} mm apart: look at the "
        "overlay, and where it is wrong register with crossalign register --initial START.tfm --moved, then fuse that"
    )
    expectation = replace(result.expectation, trusted=False, doubts=(*result.expectation.doubts, doubt))
    return replace(result, expectation=expectation)
