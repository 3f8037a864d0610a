"""Several starts of an iterative method, drawn about the given one."""

import torch

from crossalign.geometry import Rigid, draw_perturbation
from crossalign.registration.problem import Problem
from crossalign.types import Points

REGION_POINTS = 500


def region_points(problem: Problem) -> Points:
    """Return about 500 points (n, 3), mm, spread over the structure, or the fixed grid's corners without a mask."""
    if problem.fixed_mask is None:
        return problem.fixed.grid.corners_mm()
    points = problem.fixed_mask.points_mm()
    return points[:: max(1, len(points) // REGION_POINTS)]


def draw_motions(problem: Problem, points_mm: Points, count: int, range_mm: float, seed: int) -> Rigid:
    """Draw motions (count) of the fixed points ahead of the given start; the first moves nothing.

    Each moves the points (n, 3) by a mean distance of U(0, range_mm), about the structure's centre.
    """
    generator = torch.Generator().manual_seed(seed)
    distances = range_mm * torch.rand(count, generator=generator, dtype=torch.float64)
    distances[0] = 0
    return draw_perturbation(points_mm.expand(count, -1, 3), problem.center_mm().expand(count, 3), distances, generator)
