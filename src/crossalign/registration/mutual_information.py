"""The classical peer: Mattes mutual information, rigid, multi-resolution, by SimpleITK."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import SimpleITK as sitk
import torch

from crossalign.errors import InputError
from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap, scale_intensity
from crossalign.images.files import to_sitk
from crossalign.registration.problem import Method, Problem, Solution, Step


@dataclass(frozen=True)
class MutualInformation(Method):
    """Climbs Mattes mutual information from the start, coarse to fine, over six parameters about the structure.

    `shrink_factors` and `smoothing_mm` (sd of the Gaussian) have one value for each level. At each level the score is
    taken over `samples` random voxels, drawn with `seed`, within `margin_mm` of the fixed mask (of the whole fixed
    image without one). One thread: ITK adds the threads' sums in the order in which they end, so that more of them
    give an answer that differs from run to run.
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
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.shrink_factors or len(self.shrink_factors) != len(self.smoothing_mm):
            raise InputError(
                "shrink_factors and smoothing_mm need one value for each level, "
                f"got {self.shrink_factors} and {self.smoothing_mm}"
            )
        if min(self.bins - 4, self.samples, self.iterations, self.threads, *self.shrink_factors) < 1:
            raise InputError("bins must be 5 or more; samples, iterations, threads and shrink_factors 1 or more")
        if self.seed < 1 or self.margin_mm < 0 or not 0 < self.last_step_mm <= self.first_step_mm:
            raise InputError("expected a seed of 1 or more, margin_mm >= 0 and 0 < last_step_mm <= first_step_mm")

    @property
    def name(self) -> str:
        """Short name."""
        return "mi"

    def settings(self) -> dict[str, str]:
        """Every field, as text."""
        return {key: str(value) for key, value in asdict(self).items()}

    def solve(self, problem: Problem) -> Solution:
        """Register; where ITK cannot score the start at all, the start is the answer and a warning says so."""
        began = time.perf_counter()
        correction = sitk.Euler3DTransform()
        correction.SetCenter(problem.center_mm().tolist())
        registration, mask = self._optimizer(), self._mask(problem.fixed_mask)
        if mask is not None:
            registration.SetMetricFixedMask(mask)
        registration.SetMetricSamplingPercentagePerLevel(self._shares(problem.fixed, mask), self.seed)
        registration.SetMovingInitialTransform(_to_affine(problem.initial))
        registration.SetInitialTransform(correction, inPlace=True)  # ITK applies the initial transform after this one
        try:
            with _itk_threads(self.threads):
                registration.Execute(_to_float(problem.fixed), _to_float(problem.moving))
        except RuntimeError as error:
            warning = f"mutual information could not be computed, the start is returned: {_reason(error)}"
            return Solution((Step(self.name, problem.initial, time.perf_counter() - began),), (warning,))
        found = problem.initial @ _to_rigid(correction)
        return Solution((Step(self.name, found, time.perf_counter() - began),))

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

    def _mask(self, fixed_mask: LabelMap | None) -> sitk.Image | None:
        if fixed_mask is None:
            return None
        inside = to_sitk((fixed_mask.labels != 0).numpy().astype(np.uint8), fixed_mask.grid)
        distance = sitk.SignedMaurerDistanceMap(inside, squaredDistance=False, useImageSpacing=True)
        return distance <= self.margin_mm

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


def _to_rigid(transform: sitk.Euler3DTransform) -> Rigid:
    rotation = torch.tensor(transform.GetMatrix(), dtype=torch.float64).reshape(3, 3)
    center = torch.tensor(transform.GetCenter(), dtype=torch.float64)
    translation = torch.tensor(transform.GetTranslation(), dtype=torch.float64)
    return Rigid(rotation, center - rotation @ center + translation)


def _reason(error: RuntimeError) -> str:
    """Take the last line of ITK's message, which is the only one that is not about its source code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split("): ")[-1] if lines else "ITK gave no reason"
