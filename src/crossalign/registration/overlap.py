"""How much two scans show of the same place, judged from both sides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.geometry import Rigid, inside_fraction
from crossalign.geometry.resampling import nearest_values
from crossalign.images import Image
from crossalign.registration.problem import Problem
from crossalign.types import Mask, Points

LOW_OVERLAP = 0.25
OVERLAP_POINTS = 20_000


@dataclass(frozen=True, eq=False)
class Overlap:
    """About 20,000 points on either side, by which the overlap of two scans is judged.

    `fixed_mm` (n, 3) lie in the fixed structure, or in the fixed foreground without a mask; `moving_mm` (m, 3) in the
    moving foreground.
    """

    problem: Problem
    fixed_mm: Float[Tensor, "n 3"]
    moving_mm: Float[Tensor, "m 3"]

    @staticmethod
    def of(problem: Problem) -> Overlap:
        """Choose the points of a problem."""
        return Overlap(
            problem, fixed_points_mm(problem), _foreground_points_mm(problem.moving, problem.moving_foreground)
        )

    def fraction(self, fixed_to_moving: Rigid) -> float:
        """Return the larger of two fractions, 0 to 1: of the fixed points that fall into the moving grid, and back.

        A slab or a block that lies wholly in the fixed structure is no lack of overlap, small as it may be.
        """
        problem = self.problem
        forward = inside_fraction(fixed_to_moving.apply(self.fixed_mm), problem.moving.grid)
        on_fixed = fixed_to_moving.inverse().apply(self.moving_mm)
        if problem.fixed_mask is None:
            return max(forward, inside_fraction(on_fixed, problem.fixed.grid))
        labels = nearest_values(problem.fixed_mask.labels, problem.fixed_mask.grid, on_fixed)
        return max(forward, float((labels != 0).double().mean()))


def fixed_points_mm(problem: Problem) -> Points:
    """Return about 20,000 points (n, 3), mm, of the fixed structure, or of the fixed foreground without a mask."""
    mask = problem.fixed_mask
    if mask is None:
        return _foreground_points_mm(problem.fixed, problem.fixed_foreground)
    count = mask.foreground_count()
    if count <= OVERLAP_POINTS:
        return mask.points_mm()
    return mask.points_mm(torch.randint(count, (OVERLAP_POINTS,), generator=torch.Generator().manual_seed(0)))


def _foreground_points_mm(image: Image, foreground: Mask) -> Points:
    """Return those of about 20,000 regular points that lie in the foreground; all of them where none does."""
    per_axis = round(OVERLAP_POINTS ** (1 / 3))
    axes = [torch.linspace(0, n - 1, min(n, per_axis), dtype=torch.float64) for n in image.grid.shape[::-1]]
    index = torch.cartesian_prod(*axes)
    x, y, z = index.round().long().unbind(-1)
    inside = foreground[z, y, x]
    return image.grid.to_physical(index[inside] if bool(inside.any()) else index)
