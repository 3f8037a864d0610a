"""register: one pair, one method, one result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import ImageError, OverlapError, TransformError
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, foreground, one_structure
from crossalign.images.masks import bring_advice, not_on_grid
from crossalign.registration.problem import Expectation, Method, Problem, Step
from crossalign.types import Parameters, Points, Vector


@dataclass(frozen=True, eq=False)
class RegistrationResult:
    """The transform found, the start it came from, and how it came about.

    Both transforms map fixed points to moving points (LPS, mm), float64 on the CPU. `center_mm` (3,) is the centre of
    the fixed mask, or of the fixed grid where there was none: `motion` is told about it. `settings` names everything
    that decided the outcome; `seconds` is the method's time, without reading files. `expectation` says how far off the
    method expects the transform to be, where it can tell.
    """

    fixed_to_moving: Rigid
    initial: Rigid
    center_mm: Vector
    method: str
    steps: tuple[Step, ...] = ()
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    expectation: Expectation = field(default_factory=Expectation)

    @property
    def expected_sre_mm(self) -> float | None:
        """SRE that the method expects, mm; None where it cannot tell."""
        return self.expectation.expected_sre_mm

    @property
    def trusted(self) -> bool | None:
        """Whether the expected SRE is within the threshold that came with the weights; None where there is none."""
        return self.expectation.trusted

    def correction(self) -> Rigid:
        """Motion of the fixed points that the registration added ahead of the start: result = start @ correction."""
        return self.initial.inverse() @ self.fixed_to_moving

    def motion(self) -> Parameters:
        """Six parameters (mm, degrees) of the correction about `center_mm`: how far the structure was moved."""
        return self.correction().to_parameters(self.center_mm)

    def shift_mm(self) -> float:
        """How far the correction moves `center_mm`."""
        return float(self.motion()[:3].norm())

    def angle_deg(self) -> float:
        """Angle of the correction about its own axis."""
        return float(self.correction().angle_deg())


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
    overlap = Overlap.of(problem)
    warnings = _start_warnings(overlap, problem)
    began = time.perf_counter()
    solution = method.solve(problem)
    seconds = time.perf_counter() - began
    found = _checked(solution.steps[-1].fixed_to_moving) if solution.steps else problem.initial
    reasons = _reasons_at_end(overlap, found)
    return RegistrationResult(
        fixed_to_moving=found,
        initial=problem.initial,
        center_mm=problem.center_mm(),
        method=method.name,
        steps=tuple(Step(s.name, _on_cpu(s.fixed_to_moving), s.seconds) for s in solution.steps),
        seconds=seconds,
        warnings=(*warnings, *solution.warnings, *reasons),
        settings=method.settings(),
        expectation=_doubted(solution.expectation, reasons),
    )


@dataclass(frozen=True, eq=False)
class Overlap:
    """Points that tell how much two scans share, judged from both sides.

    `fixed_mm` (n, 3) spread over the fixed structure, or over what the fixed image shows without a mask; `moving_mm`
    (m, 3) over what the moving image shows.
    """

    problem: Problem
    fixed_mm: Float[Tensor, "n 3"]
    moving_mm: Float[Tensor, "m 3"]

    @staticmethod
    def of(problem: Problem) -> Overlap:
        """Take about 20,000 points on either side."""
        moving = Image(problem.moving.voxels, problem.moving.grid)
        return Overlap(problem, overlap_points(problem.fixed, problem.fixed_mask), overlap_points(moving, None))

    def share(self, fixed_to_moving: Rigid) -> float:
        """Return the larger of two shares, 0 to 1: of the fixed points that fall into the moving grid, and back.

        A slab or a block that lies wholly in the fixed structure is no lack of overlap, small as it may be.
        """
        forward = overlap_fraction(self.fixed_mm, fixed_to_moving, self.problem.moving.grid)
        back = fixed_to_moving.inverse()
        mask = self.problem.fixed_mask
        if mask is None:
            return max(forward, overlap_fraction(self.moving_mm, back, self.problem.fixed.grid))
        index = mask.grid.to_voxel(back.apply(self.moving_mm)).add(0.5).floor().long()
        size = torch.tensor(mask.grid.shape[::-1])
        inside = ((index >= 0) & (index < size)).all(-1)
        x, y, z = torch.where(inside[:, None], index, 0).unbind(-1)
        return max(forward, float((inside & (mask.labels[z, y, x] != 0)).double().mean()))


def overlap_points(fixed: Image, fixed_mask: LabelMap | None) -> Points:
    """Take at most about 20,000 points (n, 3), mm, spread over the mask, or over what the image shows without one."""
    if fixed_mask is not None:
        count = fixed_mask.foreground_count()
        if count <= OVERLAP_POINTS:
            return fixed_mask.points_mm()
        ranks = torch.randint(count, (OVERLAP_POINTS,), generator=torch.Generator().manual_seed(0))
        return fixed_mask.points_mm(ranks)
    per_axis = round(OVERLAP_POINTS ** (1 / 3))
    axes = [torch.linspace(0, n - 1, min(n, per_axis), dtype=torch.float64) for n in fixed.grid.shape[::-1]]
    index = torch.cartesian_prod(*axes)
    x, y, z = index.round().long().unbind(-1)
    shown = foreground(fixed.voxels)[z, y, x]
    return fixed.grid.to_physical(index[shown] if bool(shown.any()) else index)


def overlap_fraction(points_mm: Points, fixed_to_moving: Rigid, moving_grid: Grid) -> float:
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
        raise ImageError(f"{not_on_grid(fixed_mask, fixed)}; {bring_advice(fixed_mask, fixed)}")
    if not bool((fixed_mask.labels != 0).any()):
        raise ImageError(f"{fixed_mask.name}: the mask is empty: give one whose structure has values other than 0")
    one_structure(fixed_mask, advice="choose it with crossalign.images.one_structure(mask, label)")


def _start_warnings(overlap: Overlap, problem: Problem) -> tuple[str, ...]:
    share = overlap.share(problem.initial)
    if share == 0:
        structure = problem.fixed.name if problem.fixed_mask is None else problem.fixed_mask.name
        raise OverlapError(
            f"the start puts no point of {structure} into {problem.moving.name}: check that it maps fixed points to "
            "moving points in LPS mm (not the other way round), or start from 'center' or 'mask-center'"
        )
    if share < LOW_OVERLAP:
        return (f"the start puts only {share:.0%} of the fixed structure into the moving image: check the start",)
    return ()


def _reasons_at_end(overlap: Overlap, found: Rigid) -> tuple[str, ...]:
    share = overlap.share(found)
    if share < LOW_OVERLAP:
        doubt = (
            f"do not trust this result: it puts only {share:.0%} of the fixed structure into the moving image; "
            "start closer (--initial), or give scans that show the same part of the body"
        )
        return (doubt,)
    return ()


def _doubted(expectation: Expectation, reasons: tuple[str, ...]) -> Expectation:
    """Add reasons not to trust a result."""
    if not reasons:
        return expectation
    return replace(expectation, trusted=False, reasons=(*expectation.reasons, *reasons))
