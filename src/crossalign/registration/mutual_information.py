"""The classical peer: Mattes mutual information, rigid, multi-resolution, by SimpleITK."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import SimpleITK as sitk
import torch

from crossalign.errors import InputError
from crossalign.geometry import Rigid
from crossalign.images import Image, scale_intensity
from crossalign.images.files import to_sitk
from crossalign.images.intensity import foreground
from crossalign.registration.margin import distance_map
from crossalign.registration.motions import draw_motions, region_points
from crossalign.registration.problem import Method, Problem, Solution, Step
from crossalign.types import Vector


@dataclass(frozen=True)
class MutualInformation(Method):
    """Climbs Mattes mutual information, coarse to fine, over six parameters about the structure, from several starts.

    `shrink_factors` and `smoothing_mm` (sd of the Gaussian) have one value for each level. At each level the score is
    taken over `samples` random voxels, drawn with `seed`, within `margin_mm` of the fixed mask (of the whole fixed
    image without one), where the moving image is not empty background. `starts` counts the given start and those drawn
    about it, each at a mean distance of 0 to `range_mm`; the climb that ends highest is the answer, after `prior`
    (1/mm^2) times the mean squared motion of the structure has been taken off. One thread: ITK adds the threads' sums
    in the order in which they end, so that more of them give an answer that differs from run to run.
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
        if min(self.margin_mm, self.range_mm, self.prior) < 0:
            raise InputError("expected margin_mm, range_mm and prior of 0 or more")

    @property
    def name(self) -> str:
        """Name given when it was made."""
        return self.label

    def settings(self) -> dict[str, str]:
        """Every field, as text."""
        return {key: str(value) for key, value in asdict(self).items() if key != "label"}

    def solve(self, problem: Problem) -> Solution:
        """Register; where ITK cannot score any start, the given one is the answer and a warning says so."""
        began = time.perf_counter()
        points = region_points(problem)
        motions = draw_motions(problem, points, self.starts, self.range_mm, self.seed)
        mask = None if problem.fixed_mask is None else distance_map(problem.fixed_mask) <= self.margin_mm
        registration = self._prepared(problem, mask)
        fixed, moving = _to_float(problem.fixed), _to_float(problem.moving)
        best, lowest, failure = problem.initial, math.inf, ""
        for index in range(self.starts):
            correction = _to_euler(motions[index], problem.center_mm())
            registration.SetInitialTransform(correction, inPlace=True)  # ITK applies the moving transform after it
            try:
                with _itk_threads(self.threads):
                    registration.Execute(fixed, moving)
            except RuntimeError as error:
                failure = _reason(error)
                continue
            motion = _to_rigid(correction)
            squared = float((motion.apply(points) - points).square().sum(-1).mean())
            score = registration.GetMetricValue() + self.prior * squared  # ITK's value falls as the information grows
            if score < lowest:
                best, lowest = problem.initial @ motion, score
        seconds = time.perf_counter() - began
        if math.isinf(lowest):
            warning = f"mutual information could not be computed, the start is returned: {failure}"
            return Solution((Step(self.name, problem.initial, seconds),), (warning,))
        return Solution((Step(self.name, best, seconds),))

    def _prepared(self, problem: Problem, mask: sitk.Image | None) -> sitk.ImageRegistrationMethod:
        registration = self._optimizer()
        if mask is not None:
            registration.SetMetricFixedMask(mask)
        content = foreground(problem.moving.voxels).cpu().numpy().astype(np.uint8)
        registration.SetMetricMovingMask(to_sitk(content, problem.moving.grid))
        registration.SetMetricSamplingPercentagePerLevel(self._shares(problem.fixed, mask), self.seed)
        registration.SetMovingInitialTransform(_to_affine(problem.initial))
        return registration

    def _optimizer(self) -> sitk.ImageRegistrationMethod:
        registration = sitk.ImageRegistrationMethod()
        registration.SetMetricAsMattesMutualInformation(self.bins)
        registration.SetMetricSamplingStrategy(registration.RANDOM)
        registration.SetInterpolator(sitk.sitkLinear)
        registration.SetOptimizerAsRegularStepGradientDescent(
            learningRate=self.first_step_mm, minStep=self.last_step_mm, numberOfIterations=self.iterations
        )
        registration.SetOptimizerScalesFromPhysicalShift()
        registration.SetShrinkFactorsPerLevel(self.shrink_factors)
        registration.SetSmoothingSigmasPerLevel(self.smoothing_mm)
        registration.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        return registration

    def _shares(self, fixed: Image, mask: sitk.Image | None) -> list[float]:
        voxels = fixed.voxels.numel() if mask is None else int(sitk.GetArrayViewFromImage(mask).sum())
        sizes = [max(1.0, voxels / factor**3) for factor in self.shrink_factors]
        return [min(1.0, self.samples / size) for size in sizes]


@contextmanager
def _itk_threads(count: int) -> Iterator[None]:
    """Set the threads of every ITK filter: those within a registration do not heed the registration's own setting."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _to_float(image: Image) -> sitk.Image:
    return to_sitk(scale_intensity(image).voxels.cpu().numpy(), image.grid)


def _to_affine(transform: Rigid) -> sitk.AffineTransform:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(transform.rotation.flatten().tolist())
    affine.SetTranslation(transform.translation_mm.tolist())
    return affine


def _to_euler(motion: Rigid, center_mm: Vector) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetCenter(center_mm.tolist())
    transform.SetMatrix(motion.rotation.flatten().tolist())
    transform.SetTranslation(motion.to_parameters(center_mm)[:3].tolist())
    return transform


def _to_rigid(transform: sitk.Euler3DTransform) -> Rigid:
    rotation = torch.tensor(transform.GetMatrix(), dtype=torch.float64).reshape(3, 3)
    center = torch.tensor(transform.GetCenter(), dtype=torch.float64)
    translation = torch.tensor(transform.GetTranslation(), dtype=torch.float64)
    return Rigid(rotation, center - rotation @ center + translation)


def _reason(error: RuntimeError) -> str:
    """Take the last line of ITK's message, which is the only one that is not about its source code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split("): ")[-1] if lines else "ITK gave no reason"
