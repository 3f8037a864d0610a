"""How much of one field of view lies in another."""

import torch

from crossalign.geometry.grid import Grid
from crossalign.geometry.rigid import Rigid
from crossalign.types import Points

POINTS_PER_AXIS = 24


def inside_share(points_mm: Points, grid: Grid) -> float:
    """Return the share of points (n, 3) that lie in a grid, to the outer faces of its voxels, 0 to 1."""
    index = grid.to_voxel(points_mm)
    size = torch.tensor(grid.shape[::-1]).to(index)
    return float(((index >= -0.5) & (index < size - 0.5)).all(dim=-1).double().mean())


def grid_overlap(a: Grid, b: Grid, a_to_b: Rigid | None = None) -> float:
    """Return the share of the smaller field of view that lies in the larger one, 0 to 1; `a_to_b` None: as they are.

    A slab that lies wholly in a head has 1, whichever of the two is given first. Measured at 24^3 points of each grid.
    """
    forward = Rigid.identity() if a_to_b is None else a_to_b.to("cpu", torch.float64)
    of_a = inside_share(forward.apply(_spread_points(a)), b)
    of_b = inside_share(forward.inverse().apply(_spread_points(b)), a)
    return max(of_a, of_b)


def _spread_points(grid: Grid) -> Points:
    """Points (n, 3), mm, that stand for equal parts of a field of view."""
    axes = []
    for size in grid.shape[::-1]:
        count = POINTS_PER_AXIS
        axes.append((torch.arange(count, dtype=torch.float64) + 0.5) * (size / count) - 0.5)
    return grid.to_physical(torch.cartesian_prod(*axes))
