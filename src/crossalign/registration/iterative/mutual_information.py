"""The classical peer: Mattes mutual information, rigid, multi-resolution, by SimpleITK."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Grid, Rigid
from crossalign.images import scale_intensity
from crossalign.images.files.images import to_sitk
from crossalign.images.intensity import foreground
from crossalign.images.memory import check_working_bytes
from crossalign.registration.frame import normalised, structure_extent_mm
from crossalign.registration.iterative.sampling_region import (
    box_about,
    box_of,
    draw_motions,
    sampled_region,
    structure_points,
)
from crossalign.registration.iterative.verdict import (
    OF_CLIMBS,
    OF_SHORT_STEPS,
    TRY_ANOTHER,
    Judgement,
    gather_evidence,
    judged,
)
from crossalign.registration.problem import Expectation, Method, Problem, Solution, Step
from crossalign.types import Points

SETTLES = 50  # steps that a climb needs to stand still
ITK_BYTES = 20  # a voxel of both scans near the structure, at ITK's peak (docs/performance.md)
LEAST_SMOOTHING = 0.5  # of a voxel: below it differences of neighbours are a poor gradient
THINNEST = 4  # voxels along an axis that ITK can smooth


@dataclass(frozen=True)
class MutualInformation(Method):
    """Climbs Mattes mutual information, coarse to fine, over six parameters about the structure, from several starts.

    `shrink_factors` and `smoothing_mm` (sd of the Gaussian) have one value for each level. At each level the score is
    taken over `samples` random voxels, drawn with `seed`, within `margin_mm` of the fixed mask (of the whole fixed
    image without one), where neither image is empty background and the moving image can come. `starts` counts the given
    start and those drawn about it, each at a mean distance of 0 to `range_mm`; the climb that ends highest is the
    answer, after `prior` (1/mm^2) times the mean squared motion of the structure has been taken off. `checks` more
    climbs, of the first level alone, only tell how far the answer is to be trusted.

    Lengths hold for structures of 45 to 200 mm; smaller and larger ones are scaled to that (`normalised`). The unit of
    length is the structure's mean arm, so that turning by one radian moves it as far as a shift by one unit: without
    that the climb ends before the rotation is right. One thread: ITK adds the threads' sums in the order in which they
    end, so that more of them give an answer that differs from run to run.
    """

    bins: int = 32
    samples: int = 30_000
    seed: int = 1
    margin_mm: float = 10.0
    shrink_factors: tuple[int, ...] = (4, 2, 1)
    smoothing_mm: tuple[float, ...] = (4.0, 2.0, 1.0)
    iterations: int = 100
    first_step_mm: float = 1.0
    last_step_mm: float = 0.01
    starts: int = 1
    range_mm: float = 10.0
    prior: float = 0.0
    checks: int = 4
    threads: int = 1
    label: str = "mi"

    @staticmethod
    def held_back() -> MutualInformation:
        """Make `mi-best`: what did best on the real MR-ultrasound pairs (docs/methods-iterative.md).

        One coarse level, ten steps, a wide margin, twelve starts and a prior for the least motion: on these pairs
        the score rises along paths that lead away from the truth, so short climbs do best.
        """
        return MutualInformation(
            bins=16,
            samples=6000,
            margin_mm=25.0,
            shrink_factors=(3,),
            smoothing_mm=(5.0,),
            iterations=10,
            starts=12,
            range_mm=12.0,
            prior=3e-3,
            label="mi-best",
        )

    def __post_init__(self) -> None:
        if not self.shrink_factors or len(self.shrink_factors) != len(self.smoothing_mm):
            raise InputError(
                "shrink_factors and smoothing_mm need one value for each level, "
                f"got {self.shrink_factors} and {self.smoothing_mm}"
            )
        counts = (self.samples, self.iterations, self.starts, self.threads, *self.shrink_factors)
        if min(self.bins - 4, *counts) < 1:
            raise InputError(
                "bins must be 5 or more; samples, iterations, starts, threads and shrink_factors 1 or more"
            )
        if self.seed < 1 or not 0 < self.last_step_mm <= self.first_step_mm:
            raise InputError("expected a seed of 1 or more and 0 < last_step_mm <= first_step_mm")
        if min(self.margin_mm, self.range_mm, self.prior, self.checks) < 0:
            raise InputError("expected margin_mm, range_mm, prior and checks of 0 or more")

    @property
    def name(self) -> str:
        """Name given when it was made."""
        return self.label

    def settings(self) -> dict[str, str]:
        """Every field, as text."""
        return {key: str(value) for key, value in asdict(self).items() if key != "label"}

    def solve(self, problem: Problem) -> Solution:
        """Register; where ITK cannot score any start, the given one is the answer, and it is not to be trusted."""
        began = time.perf_counter()
        working, frame = normalised(problem, structure_points(problem))
        points = structure_points(working)
        climb, check = self._prepared(working, points)
        motions = draw_motions(working, points, self.starts + self.checks, self.range_mm, self.seed)
        ends = [climb.from_start(motions[index], self.threads) for index in range(self.starts)]
        scores = [self._score(end, points) for end in ends]
        best = scores.index(min(scores))
        if math.isinf(scores[best]):
            return self._no_score(problem, ends[best], time.perf_counter() - began)
        rivals = [end for index, end in enumerate(ends) if index != best]
        rivals += [
            check.from_start(motions[index], self.threads) for index in range(self.starts, len(motions.rotation))
        ]
        found = [end.motion for end in rivals if not end.failure]
        expectation = Expectation()
        if found:
            coarse = check.from_start(motions[best], self.threads).motion if self.checks > 0 else None
            evidence = gather_evidence(working, ends[best].motion, found, points, coarse)
            expectation = judged(evidence, structure_extent_mm(points) / frame.scale, self._judgement())
        step = Step(self.name, frame.back(ends[best].motion), time.perf_counter() - began)
        return Solution((step,), expectation.reasons, expectation)

    def _judgement(self) -> Judgement:
        """Choose what the evidence means: a prior or a few steps hold a climb back, and then its scatter tells less."""
        return OF_SHORT_STEPS if self.prior > 0 or self.iterations < SETTLES else OF_CLIMBS

    def _no_score(self, problem: Problem, end: _End, seconds: float) -> Solution:
        doubt = f"mutual information could not be computed, the start is returned: {end.failure}; {TRY_ANOTHER}"
        expectation = Expectation(trusted=False, reasons=(doubt,))
        return Solution((Step(self.name, problem.initial, seconds),), (doubt,), expectation)

    def _score(self, end: _End, points: Points) -> float:
        """Return ITK's value, which falls as the information grows, and the price of the motion."""
        return end.value + self.prior * float((end.motion.apply(points) - points).square().sum(-1).mean())

    def _prepared(self, problem: Problem, points: Points) -> tuple[_Climb, _Climb]:
        """Return the climb over all levels and the one over the first level alone."""
        unit = float(points.square().sum(-1).mean() / 3) ** 0.5
        smooth_mm = 3 * max(self.smoothing_mm)
        region = sampled_region(problem, self.margin_mm, self.range_mm)
        fixed_box = box_of(region, problem.fixed.grid, smooth_mm)
        reached_mm = float(fixed_box.of_grid(problem.fixed.grid).corners_mm().norm(dim=-1).max())
        moving_box = box_about(problem.moving.grid, reached_mm + 2 * self.range_mm + smooth_mm)
        fixed, moving = (
            fixed_box.of_image(scale_intensity(problem.fixed)),
            moving_box.of_image(scale_intensity(problem.moving)),
        )
        check_working_bytes((fixed, moving), ITK_BYTES)
        sampled, content = fixed_box.of_mask(region), moving_box.of_mask(foreground(problem.moving.voxels))
        masks = (_in_units(sampled, fixed.grid, unit), _in_units(content, moving.grid, unit))
        images = (_in_units(fixed.voxels, fixed.grid, unit), _in_units(moving.voxels, moving.grid, unit))
        voxels = int(sampled.sum())
        every, first = (
            _Climb(self._registration(count, unit, voxels, fixed.grid, moving.grid), images, masks, unit)
            for count in (len(self.shrink_factors), 1)
        )
        return every, first

    def _registration(
        self, levels: int, unit: float, voxels: int, fixed: Grid, moving: Grid
    ) -> sitk.ImageRegistrationMethod:
        registration = sitk.ImageRegistrationMethod()
        registration.SetMetricAsMattesMutualInformation(self.bins)
        registration.SetMetricSamplingStrategy(registration.RANDOM)
        registration.SetInterpolator(sitk.sitkLinear)
        registration.MetricUseFixedImageGradientFilterOff()  # gradients of whole images take 24 bytes a voxel
        registration.MetricUseMovingImageGradientFilterOff()
        registration.SetOptimizerAsRegularStepGradientDescent(
            learningRate=self.first_step_mm / unit, minStep=self.last_step_mm / unit, numberOfIterations=self.iterations
        )
        registration.SetOptimizerScales([1.0] * 6)
        factors = [max(1, min(factor, min(fixed.shape) // THINNEST)) for factor in self.shrink_factors[:levels]]
        registration.SetShrinkFactorsPerLevel(factors)
        least = LEAST_SMOOTHING * max(math.prod(grid.spacing_mm) ** (1 / 3) for grid in (fixed, moving))
        registration.SetSmoothingSigmasPerLevel([max(sigma, least) / unit for sigma in self.smoothing_mm[:levels]])
        registration.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        shares = [min(1.0, self.samples / max(1.0, voxels / factor**3)) for factor in factors]
        registration.SetMetricSamplingPercentagePerLevel(shares, self.seed)
        return registration


@dataclass(frozen=True, eq=False)
class _End:
    """Where a climb ended (mm), ITK's value there, and why it could not begin, if so."""

    motion: Rigid
    value: float
    failure: str = ""


@dataclass(frozen=True, eq=False)
class _Climb:
    """A prepared registration of a fixed and a moving image in units of `unit_mm`, and where these are compared."""

    registration: sitk.ImageRegistrationMethod
    images: tuple[sitk.Image, sitk.Image]
    masks: tuple[sitk.Image, sitk.Image]
    unit_mm: float

    def from_start(self, motion: Rigid, threads: int) -> _End:
        """Climb from a motion (mm) about the origin."""
        transform = sitk.Euler3DTransform()
        transform.SetMatrix(motion.rotation.flatten().tolist())
        transform.SetTranslation((motion.translation_mm / self.unit_mm).tolist())
        self.registration.SetInitialTransform(transform, inPlace=True)
        self.registration.SetMetricFixedMask(self.masks[0])
        self.registration.SetMetricMovingMask(self.masks[1])
        try:
            with _itk_threads(threads):
                self.registration.Execute(*self.images)
        except RuntimeError as error:
            return _End(motion, math.inf, _reason(error))
        rotation = torch.tensor(transform.GetMatrix(), dtype=torch.float64).reshape(3, 3)
        translation = torch.tensor(transform.GetTranslation(), dtype=torch.float64)
        return _End(Rigid(rotation, translation * self.unit_mm), self.registration.GetMetricValue())


@contextmanager
def _itk_threads(count: int) -> Iterator[None]:
    """Set the threads of every ITK filter: those within a registration do not heed the registration's own setting."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _in_units(values: Tensor, grid: Grid, unit_mm: float) -> sitk.Image:
    """Make SimpleITK's image in another unit of length; ITK smooths no axis of fewer than four voxels, so it gets more.

    What is added repeats the border in an image, and is nothing in a mask.
    """
    is_mask = values.dtype == torch.bool
    array = values.cpu().numpy().astype(np.uint8 if is_mask else np.float32, copy=False)
    missing = [(0, max(0, THINNEST - size)) for size in array.shape]
    if any(count for _, count in missing):
        array = np.pad(array, missing, mode="constant" if is_mask else "edge")
        depth, height, width = array.shape
        grid = replace(grid, shape=(depth, height, width))
    image = to_sitk(array, grid)
    image.SetSpacing([value / unit_mm for value in grid.spacing_mm])
    image.SetOrigin([value / unit_mm for value in grid.origin_mm])
    return image


def _reason(error: RuntimeError) -> str:
    """Take the last line of ITK's message, which is the only one that is not about its source code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split("): ")[-1] if lines else "ITK gave no reason"
