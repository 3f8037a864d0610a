"""Several starts of an iterative method, drawn about the given one."""

import torch

from crossalign.geometry import Rigid, draw_perturbation
from crossalign.images import foreground, places_of
from crossalign.registration.problem import Problem
from crossalign.types import Points

STRUCTURE_POINTS = 500


def structure_points(problem: Problem) -> Points:
    """Return about 500 points (n, 3), mm, spread over the structure, or over what the fixed image shows without one."""
    if problem.fixed_mask is not None:
        count = problem.fixed_mask.foreground_count()
        return problem.fixed_mask.points_mm(torch.arange(0, count, max(1, count // STRUCTURE_POINTS)))
    shown = foreground(problem.fixed.voxels)
    count = int(torch.count_nonzero(shown))
    places = places_of(shown, torch.arange(0, count, max(1, count // STRUCTURE_POINTS)))
    return problem.fixed.grid.to_physical(places.flip(-1).double())


def draw_motions(problem: Problem, points_mm: Points, count: int, range_mm: float, seed: int) -> Rigid:
    """Draw motions (count) of the fixed points ahead of the given start; the first moves nothing.

    Each moves the points (n, 3) by a mean distance of U(0, range_mm), about the structure's centre.
    """
    generator = torch.Generator().manual_seed(seed)
    distances = range_mm * torch.rand(count, generator=generator, dtype=torch.float64)
    distances[0] = 0
    return draw_perturbation(points_mm.expand(count, -1, 3), problem.center_mm().expand(count, 3), distances, generator)
