"""Sum of squared differences of MIND, iterative and rigid: one of the papers' classical peers."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F

from crossalign.errors import InputError
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, scale_intensity, to_working_spacing
from crossalign.images.intensity import foreground
from crossalign.registration.frame import normalised, structure_extent_mm
from crossalign.registration.iterative.gauss_newton import Descent, Level, descend
from crossalign.registration.iterative.sampling_region import box_of, draw_motions, sampled_region, structure_points
from crossalign.registration.iterative.verdict import OF_SHORT_STEPS, TRY_ANOTHER, gather_evidence, judged
from crossalign.registration.problem import Expectation, Method, Problem, Solution, Step
from crossalign.similarity import mind_ssc
from crossalign.types import Distances, Mask

REACH_MM = 20.0  # how far beyond the fixed points the moving image is looked at
LOW_OVERLAP = 0.5
LARGE_MM = 100.0  # descriptors of 4 and 2 mm are too fine for larger structures, which are scaled to this size


@dataclass(frozen=True)
class MindSSD(Method):
    """Fits MIND-SSC of the moving image to that of the fixed one by Gauss-Newton, coarse to fine, from many starts.

    `spacing_mm` has one isotropic working spacing for each level; `sigma_voxel` and `distance_voxel` are MIND's, in
    its voxels. Compared are at most `points` voxels, drawn with `seed`, within `margin_mm` of the fixed mask (of the
    whole fixed image without one). `starts` counts the given start and those drawn about it, each at a mean distance
    of 0 to `range_mm`; they run at once, the cheapest quarter and the given one go on to the next level, and the
    lowest final cost wins. `prior` (1/mm^2), times the points' mean squared motion, is added to the cost: it speaks
    for the given start where the images say little.
    """

    spacing_mm: tuple[float, ...] = (4.0, 2.0)
    sigma_voxel: float = 1.0
    distance_voxel: int = 2
    margin_mm: float = 5.0
    points: int = 1500
    starts: int = 8
    range_mm: float = 10.0
    prior: float = 3e-4
    iterations: int = 30
    seed: int = 1
    label: str = "mind"

    @staticmethod
    def coarse() -> MindSSD:
        """Make `mind-best`: the coarse level alone did best on the real pairs (docs/methods-iterative.md)."""
        return MindSSD(spacing_mm=(4.0,), label="mind-best")

    def __post_init__(self) -> None:
        if not self.spacing_mm or not min(self.spacing_mm) > 0:
            raise InputError(f"spacing_mm needs a spacing above 0 mm for each level, got {self.spacing_mm}")
        if min(self.points, self.starts, self.iterations, self.distance_voxel) < 1:
            raise InputError("points, starts, iterations and distance_voxel must be 1 or more")
        if min(self.margin_mm, self.range_mm, self.prior) < 0 or not self.sigma_voxel > 0:
            raise InputError("expected margin_mm, range_mm and prior of 0 or more and sigma_voxel above 0")

    @property
    def name(self) -> str:
        """Name given when it was made."""
        return self.label

    def settings(self) -> dict[str, str]:
        """Every field, as text."""
        return {key: str(value) for key, value in asdict(self).items() if key != "label"}

    @torch.no_grad()
    def solve(self, problem: Problem) -> Solution:
        """Register; where less than half of the points are seen at the start, a warning says so.

        Where none is seen at all, the start is the answer, with a warning.
        """
        working, frame = normalised(problem, structure_points(problem), LARGE_MM)
        points = structure_points(working)
        views = _Views(working, self)
        motion = draw_motions(working, points, self.starts, self.range_mm, self.seed)
        best, steps, warnings, rivals = 0, list[Step](), list[str](), list[Rigid]()
        for number, spacing in enumerate(self.spacing_mm, start=1):
            began = time.perf_counter()
            base = motion[best]
            level = views.level(spacing, base)
            overlap = level.overlap()
            if overlap == 0:
                return _nothing_seen(self.name, problem)
            if overlap < LOW_OVERLAP and number == 1:
                warnings.append(f"MIND sees the moving image at only {overlap:.0%} of its points at the start")
            found = descend(level.priced(), base.inverse() @ motion, self.iterations)
            best = int(found.cost.argmin())
            if not bool(found.converged[best]):
                warnings.append(f"MIND had not settled after {self.iterations} iterations at level {number}")
            ends, told = base @ found.motion, _in_words(number, spacing / frame.scale, found, best)
            steps.append(Step(told, frame.back(ends[best]), time.perf_counter() - began))
            rivals = _rivals(ends, found.cost)
            kept = _kept(found.cost)
            motion, best = ends[kept], int(found.cost[kept].argmin())
        expectation = Expectation()
        if rivals:
            evidence = gather_evidence(working, motion[best], rivals, points)
            expectation = judged(evidence, structure_extent_mm(points) / frame.scale, OF_SHORT_STEPS)
        return Solution(tuple(steps), (*warnings, *expectation.reasons), expectation)


def _nothing_seen(name: str, problem: Problem) -> Solution:
    doubt = (
        "MIND could not be compared: the start brings none of the moving image near the structure; the start is "
        f"returned; {TRY_ANOTHER}"
    )
    return Solution((Step(name, problem.initial, 0.0),), (doubt,), Expectation(trusted=False, reasons=(doubt,)))


def _rivals(ends: Rigid, cost: Distances) -> list[Rigid]:
    """Return where the others ended that count: those that are kept, or the second cheapest."""
    best = int(cost.argmin())
    others = [int(index) for index in _kept(cost) if int(index) != best] or cost.argsort()[1:2].tolist()
    return [ends[index] for index in others]


def _kept(cost: Distances) -> torch.Tensor:
    """Choose who goes on to the next level: the given start, and the quarter that costs least."""
    least = cost.argsort()[: -(-len(cost) // 4)]
    return torch.cat((torch.zeros(1, dtype=torch.int64), least[least != 0]))


def _in_words(number: int, spacing: float, found: Descent, best: int) -> str:
    return (
        f"level {number} ({spacing:g} mm, start {best + 1} of {len(found.cost)}, "
        f"{int(found.iterations[best])} iterations, cost {float(found.cost[best]):.4g})"
    )


class _Views:
    """What the levels see of one problem: both images in the fixed image's space, axes along L, P and S."""

    def __init__(self, problem: Problem, settings: MindSSD) -> None:
        self._problem, self._settings = problem, settings
        self._shown = foreground(problem.moving.voxels)
        self._region = sampled_region(problem, settings.margin_mm, settings.range_mm)
        self.region_mm = box_of(self._region, problem.fixed.grid, 0.0).of_grid(problem.fixed.grid).corners_mm()

    def level(self, spacing_mm: float, base: Rigid) -> Level:
        """Describe both images at a spacing, the moving one as seen through the start after the motion `base`.

        MIND turns with the axes that it is computed along: so close to the answer, both are described along the same.
        """
        seen_through = self._problem.initial @ base
        settings, spacing = self._settings, (spacing_mm,) * 3
        low, high = self.region_mm.amin(0), self.region_mm.amax(0)
        middle, extent = tuple(((low + high) / 2).tolist()), (high - low).tolist()[::-1]
        near, wide = (_shape(extent, spacing_mm, reach) for reach in (3 * spacing_mm, REACH_MM))
        fixed_grid, moving_grid = (Grid.centered(middle, shape, spacing) for shape in (near, wide))
        scans = self._problem.fixed, self._problem.moving
        near_fixed, near_moving = fixed_grid.corners_mm(), seen_through.apply(moving_grid.corners_mm())
        # Scaled anew for each level: kept, the scaled scans would take as much memory as the scans.
        fixed = to_working_spacing(scale_intensity(scans[0]), spacing_mm, near_mm=near_fixed, overwrite=True)
        fixed = fixed.resampled(fixed_grid, fill=0.0)
        moving = to_working_spacing(scale_intensity(scans[1]), spacing_mm, near_mm=near_moving, overwrite=True)
        moving = moving.resampled(moving_grid, seen_through, fill=0.0)
        known = Image(self._shown.float(), scans[1].grid).resampled(moving_grid, seen_through, fill=0.0)
        points = self._points(fixed_grid)
        described = mind_ssc(fixed.voxels[None, None], settings.sigma_voxel, settings.distance_voxel)
        seen = mind_ssc(moving.voxels[None, None], settings.sigma_voxel, settings.distance_voxel)
        z, y, x = points.T
        points_mm = fixed_grid.to_physical(points.flip(-1).double())
        return Level(
            points_mm=points_mm,
            home_mm=base.inverse().apply(points_mm),
            features=described[0, :, z, y, x].T,
            moving=seen[0].movedim(0, -1).contiguous(),
            known=_eroded(known.voxels > 0.5, settings.distance_voxel),
            grid=moving_grid,
            center_mm=self._problem.center_mm(),
            prior=settings.prior,
        )

    def _points(self, grid: Grid) -> torch.Tensor:
        """Voxels (n, 3), (z, y, x), to compare: a fixed descriptor near the edge of the image describes the edge."""
        region = Image(self._region.float(), self._problem.fixed.grid)
        inside = region.resampled(grid, fill=0.0).voxels > 0.5
        if self._problem.fixed_mask is None:
            inside = _eroded(inside, self._settings.distance_voxel)
        index = inside.nonzero()
        drawn = torch.randperm(len(index), generator=torch.Generator().manual_seed(self._settings.seed))
        return index[drawn[: self._settings.points]]


def _eroded(inside: Mask, radius: int) -> Mask:
    """Leave out voxels near the edge: there MIND describes the edge of the field of view, not anatomy."""
    grown = F.max_pool3d((~inside)[None, None].float(), 2 * radius + 1, stride=1, padding=radius)
    return grown[0, 0] == 0


def _shape(extent_mm: list[float], spacing_mm: float, reach_mm: float) -> tuple[int, int, int]:
    z, y, x = (int((length + 2 * reach_mm) / spacing_mm) + 2 for length in extent_mm)
    return (z, y, x)
