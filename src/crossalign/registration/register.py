"""register: one pair, one method, one result."""

import time
from collections.abc import Sequence

import torch

from crossalign.errors import ImageError, OverlapError, TransformError
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap
from crossalign.registration.problem import Method, Problem, Step
from crossalign.registration.result import RegistrationResult
from crossalign.types import Points

LOW_OVERLAP = 0.25
OVERLAP_POINTS = 20_000


def register(
    fixed: Image, moving: Image, method: Method, initial: Rigid, fixed_mask: LabelMap | None = None
) -> RegistrationResult:
    """Find where the points of the fixed image lie in the moving image.

    `initial` and the result map fixed points to moving points (LPS, mm). `fixed_mask` marks the structure that matters
    (the prostate) on the fixed grid. Raises ImageError for a mask of another grid or an empty one, TransformError for
    a start that is not one finite transform, OverlapError where the start brings nothing of the fixed structure into
    the moving image, and what the method raises.
    """
    problem = Problem(fixed, moving, _checked(initial), fixed_mask)
    _check_mask(fixed, fixed_mask)
    points = overlap_points(fixed, fixed_mask)
    warnings = _start_warnings(points, problem)
    began = time.perf_counter()
    solution = method.solve(problem)
    seconds = time.perf_counter() - began
    found = _checked(solution.steps[-1].fixed_to_moving) if solution.steps else problem.initial
    return RegistrationResult(
        fixed_to_moving=found,
        initial=problem.initial,
        center_mm=problem.center_mm(),
        method=method.name,
        steps=tuple(Step(s.name, _on_cpu(s.fixed_to_moving), s.seconds) for s in solution.steps),
        seconds=seconds,
        warnings=(*warnings, *solution.warnings, *_end_warnings(points, found, moving.grid)),
        settings=method.settings(),
        expectation=solution.expectation,
    )


def overlap_points(fixed: Image, fixed_mask: LabelMap | None) -> Points:
    """Take at most about 20,000 points (n, 3), mm, spread over the mask, or over the fixed grid without one."""
    if fixed_mask is None:
        per_axis = round(OVERLAP_POINTS ** (1 / 3))
        axes = [torch.linspace(0, n - 1, min(n, per_axis), dtype=torch.float64) for n in fixed.grid.shape[::-1]]
        return fixed.grid.to_physical(torch.cartesian_prod(*axes))
    points = fixed_mask.points_mm()
    if len(points) <= OVERLAP_POINTS:
        return points
    return points[torch.randint(len(points), (OVERLAP_POINTS,), generator=torch.Generator().manual_seed(0))]


def overlap_share(points_mm: Points, fixed_to_moving: Rigid, moving_grid: Grid) -> float:
    """Return the share of fixed points (n, 3) that fall into the moving grid, 0 to 1."""
    index = moving_grid.to_voxel(fixed_to_moving.apply(points_mm))
    size = torch.tensor(moving_grid.shape[::-1]).to(index)
    inside = ((index >= -0.5) & (index < size - 0.5)).all(dim=-1)
    return float(inside.double().mean())


def _on_cpu(transform: Rigid) -> Rigid:
    return Rigid(transform.rotation.detach(), transform.translation_mm.detach()).to("cpu", torch.float64)


def _checked(transform: Rigid) -> Rigid:
    transform = _on_cpu(transform)
    matrix = transform.matrix()
    if matrix.shape != (4, 4):
        raise TransformError(f"got a batch {tuple(matrix.shape[:-2])} of transforms, expected one")
    if not bool(matrix.isfinite().all()):
        raise TransformError("the transform holds NaN or infinite values: check the start and the method's weights")
    return transform


def _check_mask(fixed: Image, fixed_mask: LabelMap | None) -> None:
    if fixed_mask is None:
        return
    if not fixed_mask.grid.agrees_with(fixed.grid):
        raise ImageError(
            f"{fixed_mask.name}: the mask does not lie on the grid of {fixed.name}: "
            f"got {_describe(fixed_mask.grid)}, expected {_describe(fixed.grid)}; "
            "resample it to the fixed image (crossalign apply --label)"
        )
    if not bool((fixed_mask.labels != 0).any()):
        raise ImageError(f"{fixed_mask.name}: the mask is empty: give one whose structure has values other than 0")


def _describe(grid: Grid) -> str:
    size = " x ".join(str(n) for n in grid.shape[::-1])
    spacing = " x ".join(f"{value:.4g}" for value in grid.spacing_mm)
    origin = ", ".join(f"{value:.2f}" for value in grid.origin_mm)
    axes = ", ".join(f"{value:.3g}" for row in grid.direction for value in row)
    return f"{size} voxels of {spacing} mm at ({origin}) mm with direction ({axes})"


def _start_warnings(points: Points, problem: Problem) -> Sequence[str]:
    share = overlap_share(points, problem.initial, problem.moving.grid)
    if share == 0:
        structure = problem.fixed.name if problem.fixed_mask is None else problem.fixed_mask.name
        raise OverlapError(
            f"the start puts no point of {structure} into {problem.moving.name}: check that it maps fixed points to "
            "moving points in LPS mm (not the other way round), or start from 'center' or 'mask-center'"
        )
    if share < LOW_OVERLAP:
        return (f"the start puts only {share:.0%} of the fixed structure into the moving image: check the start",)
    return ()


def _end_warnings(points: Points, found: Rigid, moving_grid: Grid) -> Sequence[str]:
    share = overlap_share(points, found, moving_grid)
    if share < LOW_OVERLAP:
        return (f"the result puts only {share:.0%} of the fixed structure into the moving image: do not use it",)
    return ()
