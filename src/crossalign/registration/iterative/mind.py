"""Sum of squared differences of MIND, iterative and rigid: one of the papers' classical peers."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.geometry import Grid, Rigid
from crossalign.images import Image
from crossalign.images.preprocessing import preprocess
from crossalign.registration.frame import normalised
from crossalign.registration.iterative.gauss_newton import OptimisationRuns, PyramidLevel, minimise
from crossalign.registration.iterative.method_settings import MindSettings
from crossalign.registration.iterative.sampling_region import box_of, draw_motions, sampled_region
from crossalign.registration.iterative.verdict import SHORT_RUNS, gather_evidence
from crossalign.registration.problem import WHAT_TO_TRY, Expectation, Method, Problem, Solution, Step
from crossalign.similarity import mind_ssc
from crossalign.types import Distances, Mask, Shape

MOVING_REACH_MM = 20.0  # how far beyond the fixed points the moving image is described
FEW_KNOWN = 0.5
LARGEST_EXTENT_MM = 100.0  # descriptors of 4 and 2 mm are too fine for larger structures, which are scaled to this size


@dataclass(frozen=True)
class MindSSD(Method):
    """Fits MIND-SSC of the moving image to that of the fixed one by Gauss-Newton, from coarse to fine."""

    run: MindSettings = field(default_factory=MindSettings)
    label: str = "mind"

    @property
    def name(self) -> str:
        """Name given when it was made."""
        return self.label

    def settings(self) -> dict[str, str]:
        """Every setting, as text."""
        return {key: str(value) for key, value in asdict(self.run).items()}

    def with_run(self, run: MindSettings) -> MindSSD:
        """Return the same method with other settings."""
        return replace(self, run=run)

    @torch.no_grad()
    def solve(self, problem: Problem) -> Solution:
        """Register; where less than half of the points are known at the initial transform, a warning says so.

        Where none is known at all, the initial transform is the answer, and it is not to be trusted.
        """
        working, frame = normalised(problem, LARGEST_EXTENT_MM)
        pyramid = _Pyramid(working, self.run)
        motion = draw_motions(working, self.run.initialisations, self.run.perturbation_mm, self.run.seed)
        best, steps, warnings, others = 0, list[Step](), list[str](), list[Rigid]()
        for number, spacing in enumerate(self.run.spacing_mm, start=1):
            began = time.perf_counter()
            base = motion[best]
            level = pyramid.level(spacing, base)
            overlap = level.overlap()
            if overlap == 0:
                return _nothing_known(self.name, problem)
            if overlap < FEW_KNOWN and number == 1:
                warnings.append(f"at the initial transform MIND is known at only {overlap:.0%} of its points")
            runs = minimise(level.with_unknown_cost(), base.inverse() @ motion, self.run.iterations)
            best = int(runs.cost.argmin())
            if not bool(runs.converged[best]):
                warnings.append(f"MIND had not converged after {self.run.iterations} iterations at level {number}")
            ends, title = base @ runs.motion, _in_words(number, spacing / frame.scale, runs, best)
            steps.append(Step(title, frame.to_world(ends[best]), time.perf_counter() - began))
            others = _others(ends, runs.cost)
            retained = _retained(runs.cost)
            motion, best = ends[retained], int(runs.cost[retained].argmin())
        expectation = Expectation()
        if others:
            evidence = gather_evidence(working, motion[best], others)
            expectation = SHORT_RUNS.expectation(evidence, working.extent_mm / frame.scale)
        return Solution(tuple(steps), tuple(warnings), expectation)


def _nothing_known(name: str, problem: Problem) -> Solution:
    reason = (
        "MIND could not be compared: the initial transform brings none of the moving image near the structure, and is "
        f"returned; {WHAT_TO_TRY}"
    )
    return Solution((Step(name, problem.initial, 0.0),), (), Expectation().untrusted(reason))


def _others(ends: Rigid, cost: Distances) -> list[Rigid]:
    """Return where the other runs ended that count: those that are retained, or the second cheapest."""
    best = int(cost.argmin())
    others = [int(index) for index in _retained(cost) if int(index) != best] or cost.argsort()[1:2].tolist()
    return [ends[index] for index in others]


def _retained(cost: Distances) -> Tensor:
    """Choose the runs that go on to the next level: the given initialisation, and the quarter that costs least."""
    least = cost.argsort()[: -(-len(cost) // 4)]
    return torch.cat((torch.zeros(1, dtype=torch.int64), least[least != 0]))


def _in_words(number: int, spacing: float, runs: OptimisationRuns, best: int) -> str:
    return (
        f"level {number} ({spacing:g} mm, initialisation {best + 1} of {len(runs.cost)}, "
        f"{int(runs.iterations[best])} iterations, cost {float(runs.cost[best]):.4g})"
    )


class _Pyramid:
    """Makes the levels of one problem: both images in the fixed image's space, axes along L, P and S."""

    def __init__(self, problem: Problem, run: MindSettings) -> None:
        self._problem, self._run = problem, run
        self._region = sampled_region(problem, run.margin_mm, run.perturbation_mm)
        self._corners_mm = box_of(self._region, problem.fixed.grid, 0.0).of_grid(problem.fixed.grid).corners_mm()

    def level(self, spacing_mm: float, base: Rigid) -> PyramidLevel:
        """Describe both images at a spacing, the moving one through the initial transform after the motion `base`.

        MIND depends on the axes that it is computed along: so close to the answer, both are described along the same.
        """
        problem, run = self._problem, self._run
        fixed_to_moving = problem.initial @ base
        fixed_grid, moving_grid = (self._grid(spacing_mm, reach) for reach in (3 * spacing_mm, MOVING_REACH_MM))
        points = self._points(fixed_grid)
        z, y, x = points.T
        points_mm = fixed_grid.to_physical(points.flip(-1).double())
        foreground = Image(problem.moving_foreground.float(), problem.moving.grid)
        known = foreground.resampled(moving_grid, fixed_to_moving, fill=0.0).voxels > 0.5
        del foreground
        return PyramidLevel(
            points_mm=points_mm,
            unmoved_mm=base.inverse().apply(points_mm),
            features=self._descriptors(problem.fixed, fixed_grid, Rigid.identity())[:, z, y, x].T,
            moving=self._descriptors(problem.moving, moving_grid, fixed_to_moving).movedim(0, -1).contiguous(),
            known=_eroded(known, run.distance_voxel),
            grid=moving_grid,
            center_mm=problem.center_mm,
            motion_penalty=run.motion_penalty,
        )

    def _descriptors(self, scan: Image, grid: Grid, to_scan: Rigid) -> Tensor:
        """MIND of a scan (c, z, y, x) on a grid, from which `to_scan` leads to the scan.

        Scaled anew for each level: kept, the scaled scans would take as much memory as the scans.
        """
        preprocessed = preprocess(scan, grid.spacing_mm[0], to_scan.apply(grid.corners_mm()))
        voxels = preprocessed.resampled(grid, to_scan, fill=0.0).voxels
        return mind_ssc(voxels[None, None], self._run.sigma_voxel, self._run.distance_voxel)[0]

    def _grid(self, spacing_mm: float, reach_mm: float) -> Grid:
        """Make the grid about the region that reaches so much further on each side."""
        low, high = self._corners_mm.amin(0), self._corners_mm.amax(0)
        x, y, z = ((low + high) / 2).tolist()
        width, height, depth = (int((length + 2 * reach_mm) / spacing_mm) + 2 for length in (high - low).tolist())
        shape: Shape = (depth, height, width)
        return Grid.centered((x, y, z), shape, (spacing_mm, spacing_mm, spacing_mm))

    def _points(self, grid: Grid) -> Tensor:
        """Voxels (n, 3), (z, y, x), to compare: a fixed descriptor near the edge of the image describes the edge."""
        region = Image(self._region.float(), self._problem.fixed.grid)
        inside = region.resampled(grid, fill=0.0).voxels > 0.5
        if self._problem.fixed_mask is None:
            inside = _eroded(inside, self._run.distance_voxel)
        index = inside.nonzero()
        drawn = torch.randperm(len(index), generator=torch.Generator().manual_seed(self._run.seed))
        return index[drawn[: self._run.points]]


def _eroded(inside: Mask, radius: int) -> Mask:
    """Leave out voxels near the edge: there MIND describes the edge of the field of view, not anatomy."""
    grown = F.max_pool3d((~inside)[None, None].float(), 2 * radius + 1, stride=1, padding=radius)
    return grown[0, 0] == 0
