"""The classical peer: Mattes mutual information, rigid, multi-resolution, by SimpleITK."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from crossalign.geometry import Grid, Rigid
from crossalign.images import scale_intensity
from crossalign.images.files.images import to_sitk
from crossalign.images.memory import check_working_bytes
from crossalign.registration.frame import normalised
from crossalign.registration.iterative.method_settings import MutualInformationSettings
from crossalign.registration.iterative.sampling_region import box_about, box_of, draw_motions, sampled_region
from crossalign.registration.iterative.verdict import (
    CONVERGED_RUNS,
    NEAR_MM,
    SHORT_RUNS,
    ErrorModel,
    gather_evidence,
)
from crossalign.registration.problem import WHAT_TO_TRY, Expectation, Method, Problem, Solution, Step
from crossalign.types import Mask, Points

CONVERGES = 50  # gradient steps that a run needs to converge
ITK_BYTES = 20  # a voxel of both scans near the structure, at ITK's peak (docs/reference/memory.md)
LEAST_SMOOTHING = 0.5  # of a voxel: below it differences of neighbours are a poor gradient
THINNEST = 4  # voxels along an axis that ITK can smooth


@dataclass(frozen=True)
class MutualInformation(Method):
    """Maximises Mattes mutual information, coarse to fine, over six parameters about the structure.

    At each level it is taken over random voxels near the fixed mask (of the whole fixed image without one) at which
    neither image is empty background and the moving image can come. The unit of length is the structure's mean arm, so
    that a rotation by one radian moves it as far as a shift by one unit: without that a run ends before the rotation is
    right.
    """

    run: MutualInformationSettings = field(default_factory=MutualInformationSettings)
    label: str = "mi"

    @property
    def name(self) -> str:
        """Name given when it was made."""
        return self.label

    def settings(self) -> dict[str, str]:
        """Every setting, as text."""
        return {key: str(value) for key, value in asdict(self.run).items()}

    def with_run(self, run: MutualInformationSettings) -> MutualInformation:
        """Return the same method with other settings."""
        return replace(self, run=run)

    def solve(self, problem: Problem) -> Solution:
        """Register; where ITK cannot score any initialisation, the given one is the answer, and not to be trusted."""
        began = time.perf_counter()
        run = self.run
        working, frame = normalised(problem)
        region = sampled_region(working, run.margin_mm, run.perturbation_mm)
        optimiser, coarse_optimiser = self._optimisers(working, region)
        motions = list(draw_motions(working, run.initialisations + run.checks, run.perturbation_mm, run.seed))
        ends = [optimiser.run_from(motion) for motion in motions[: run.initialisations]]
        costs = [self._cost(end, working.structure_mm) for end in ends]
        best = costs.index(min(costs))
        if math.isinf(costs[best]):
            return self._not_scored(problem, ends[best], time.perf_counter() - began)
        found = ends[best].motion
        others = [end for index, end in enumerate(ends) if index != best]
        others += [coarse_optimiser.run_from(motion) for motion in motions[run.initialisations :]]
        other_motions = [end.motion for end in others if not end.failure]
        expectation = Expectation()
        if other_motions:
            coarse = coarse_optimiser.run_from(motions[best]).motion if run.checks > 0 else None
            known = region if (run.margin_mm, run.perturbation_mm) == (NEAR_MM, NEAR_MM) else None
            evidence = gather_evidence(working, found, other_motions, coarse, known)
            expectation = self._error_model().expectation(evidence, working.extent_mm / frame.scale)
        return Solution((Step(self.name, frame.to_world(found), time.perf_counter() - began),), (), expectation)

    def _error_model(self) -> ErrorModel:
        return SHORT_RUNS if self.run.motion_penalty > 0 or self.run.iterations < CONVERGES else CONVERGED_RUNS

    def _not_scored(self, problem: Problem, end: _End, seconds: float) -> Solution:
        reason = (
            f"mutual information could not be computed, the initial transform is returned: {end.failure}; {WHAT_TO_TRY}"
        )
        return Solution((Step(self.name, problem.initial, seconds),), (), Expectation().untrusted(reason))

    def _cost(self, end: _End, points: Points) -> float:
        """Return ITK's value, which falls as the information grows, and the penalty on the motion."""
        return end.value + self.run.motion_penalty * float((end.motion.apply(points) - points).square().sum(-1).mean())

    def _optimisers(self, problem: Problem, region: Mask) -> tuple[_Optimiser, _Optimiser]:
        """Return the optimiser over all levels and the one over the first level alone."""
        run = self.run
        unit = float(problem.structure_mm.square().sum(-1).mean() / 3) ** 0.5
        smooth_mm = 3 * max(run.smoothing_mm)
        fixed_box = box_of(region, problem.fixed.grid, smooth_mm)
        reached_mm = float(fixed_box.of_grid(problem.fixed.grid).corners_mm().norm(dim=-1).max())
        moving_box = box_about(problem.moving.grid, reached_mm + 2 * run.perturbation_mm + smooth_mm)
        fixed = fixed_box.of_image(scale_intensity(problem.fixed))
        moving = moving_box.of_image(scale_intensity(problem.moving))
        check_working_bytes((fixed, moving), ITK_BYTES)
        sampled, content = fixed_box.of_mask(region), moving_box.of_mask(problem.moving_foreground)
        masks = (_in_units(sampled, fixed.grid, unit), _in_units(content, moving.grid, unit))
        images = (_in_units(fixed.voxels, fixed.grid, unit), _in_units(moving.voxels, moving.grid, unit))
        voxels, grids = int(sampled.sum()), (fixed.grid, moving.grid)
        every, first = (
            _Optimiser(self._registration(levels, unit, voxels, grids), images, masks, unit, run.threads)
            for levels in (len(run.shrink_factors), 1)
        )
        return every, first

    def _registration(
        self, levels: int, unit: float, voxels: int, grids: tuple[Grid, Grid]
    ) -> sitk.ImageRegistrationMethod:
        run = self.run
        registration = sitk.ImageRegistrationMethod()
        registration.SetMetricAsMattesMutualInformation(run.bins)
        registration.SetMetricSamplingStrategy(registration.RANDOM)
        registration.SetInterpolator(sitk.sitkLinear)
        registration.MetricUseFixedImageGradientFilterOff()  # gradients of whole images take 24 bytes a voxel
        registration.MetricUseMovingImageGradientFilterOff()
        registration.SetOptimizerAsRegularStepGradientDescent(
            learningRate=run.first_step_mm / unit, minStep=run.last_step_mm / unit, numberOfIterations=run.iterations
        )
        registration.SetOptimizerScales([1.0] * 6)
        factors = [max(1, min(factor, min(grids[0].shape) // THINNEST)) for factor in run.shrink_factors[:levels]]
        registration.SetShrinkFactorsPerLevel(factors)
        least = LEAST_SMOOTHING * max(math.prod(grid.spacing_mm) ** (1 / 3) for grid in grids)
        registration.SetSmoothingSigmasPerLevel([max(sigma, least) / unit for sigma in run.smoothing_mm[:levels]])
        registration.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        fractions = [min(1.0, run.samples / max(1.0, voxels / factor**3)) for factor in factors]
        registration.SetMetricSamplingPercentagePerLevel(fractions, run.seed)
        return registration


@dataclass(frozen=True, eq=False)
class _End:
    """Where a run of the optimiser ended (mm), ITK's value there, and why it could not begin, if so."""

    motion: Rigid
    value: float
    failure: str = ""


@dataclass(frozen=True, eq=False)
class _Optimiser:
    """A prepared registration of a fixed and a moving image in units of `unit_mm`, and where these are compared."""

    registration: sitk.ImageRegistrationMethod
    images: tuple[sitk.Image, sitk.Image]
    masks: tuple[sitk.Image, sitk.Image]
    unit_mm: float
    threads: int

    def run_from(self, motion: Rigid) -> _End:
        """Optimise from a motion (mm) about the origin."""
        transform = sitk.Euler3DTransform()
        transform.SetMatrix(motion.rotation.flatten().tolist())
        transform.SetTranslation((motion.translation_mm / self.unit_mm).tolist())
        self.registration.SetInitialTransform(transform, inPlace=True)
        self.registration.SetMetricFixedMask(self.masks[0])
        self.registration.SetMetricMovingMask(self.masks[1])
        try:
            with _itk_threads(self.threads):
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
