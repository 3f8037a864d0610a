"""Whether the answer of an iterative method is to be trusted, from mutual information at it and around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from crossalign.geometry import Rigid, axis_orientations, mean_displacement_mm
from crossalign.geometry.resampling import nearest_values
from crossalign.images import Image, marked_voxels, to_working_spacing
from crossalign.images.preprocessing import preprocess
from crossalign.registration.iterative.sampling_region import sampled_region
from crossalign.registration.problem import WHAT_TO_TRY, Expectation, Problem
from crossalign.types import Distances, Mask, Points

GREY_LEVELS = 16
SAMPLED_POINTS = 6000
LEAST_COMPARED = 200  # fewer say nothing of a joint histogram of 16 x 16 bins
NEAR_MM = 10.0  # of the working frame, about the structure and about the moving image
WORKING_VOXELS = 30  # working voxels across the structure


@dataclass(frozen=True, eq=False)
class SharedInformation:
    """Samples of a fixed image, and the moving image that they are compared with, both in GREY_LEVELS grey levels.

    `points_mm` (n, 3) lie in the fixed image, `levels` (n,) are its grey levels there. Levels of the moving volume are
    -1 in its background.
    """

    points_mm: Points
    levels: Int[Tensor, " n"]
    moving: Image

    @staticmethod
    def of(problem: Problem, region: Mask | None = None) -> SharedInformation:
        """Prepare a problem in its working frame; `region` is `sampled_region` within NEAR_MM, where it is known."""
        spacings = problem.fixed.grid.spacing_mm, problem.moving.grid.spacing_mm
        spacing = max(problem.extent_mm / WORKING_VOXELS, *map(min, spacings))
        region = sampled_region(problem, NEAR_MM, NEAR_MM) if region is None else region
        generator, count = torch.Generator().manual_seed(0), int(torch.count_nonzero(region))
        ranks = torch.randint(count, (SAMPLED_POINTS,), generator=generator)
        points = problem.fixed.grid.to_physical(marked_voxels(region, ranks).flip(-1).double())
        fixed = _grey_levels(problem.fixed, problem.fixed_foreground, spacing, points)
        everywhere = torch.cat((2 * points, -2 * points))  # whatever the orientation
        moving = _grey_levels(problem.moving, problem.moving_foreground, spacing, everywhere)
        levels = nearest_values(fixed.voxels, fixed.grid, points, -1).long()
        return SharedInformation(points[levels >= 0], levels[levels >= 0], moving)

    def coefficients(self, fixed_to_moving: Rigid) -> tuple[Distances, Distances]:
        """Return the uncertainty coefficient (b,), 0 to 1, of a batch of transforms, and the fraction compared (b,).

        2 I(F; M) / (H(F) + H(M)) over the points at which both show something (Press et al., Numerical Recipes),
        less its bias in few samples; 0 where fewer than 200 points are compared.
        """
        values, fractions = zip(*map(self._coefficient, fixed_to_moving), strict=True)
        return torch.tensor(values, dtype=torch.float64), torch.tensor(fractions, dtype=torch.float64)

    def _coefficient(self, fixed_to_moving: Rigid) -> tuple[float, float]:
        moving = nearest_values(self.moving.voxels, self.moving.grid, fixed_to_moving.apply(self.points_mm), -1).long()
        compared = moving >= 0
        count = int(compared.sum())
        fraction = count / max(1, len(moving))
        if count < LEAST_COMPARED:
            return 0.0, fraction
        joint = torch.bincount(self.levels[compared] * GREY_LEVELS + moving[compared], minlength=GREY_LEVELS**2)
        joint = joint.double().reshape(GREY_LEVELS, GREY_LEVELS) / count
        rows, columns = joint.sum(1), joint.sum(0)
        used = [int((part > 0).sum()) for part in (rows, columns)]
        information = _entropy(rows) + _entropy(columns) - _entropy(joint) - (used[0] - 1) * (used[1] - 1) / (2 * count)
        total = _entropy(rows) + _entropy(columns)
        return (max(0.0, 2 * information / total) if total > 0 else 0.0), fraction


def rotated_orientations() -> Rigid:
    """Return the 23 rotations of a cube that are not the identity, as a batch about the origin."""
    matrices = axis_orientations().double()
    rotations = matrices[torch.linalg.det(matrices) > 0][1:]
    return Rigid(rotations, torch.zeros(len(rotations), 3, dtype=torch.float64))


def _grey_levels(image: Image, foreground: Mask, spacing_mm: float, near_mm: Points) -> Image:
    """Resample an image, or of a large one what lies near some points, to working voxels.

    They hold grey levels 0 to GREY_LEVELS - 1, and -1 in the background.
    """
    scaled = preprocess(image, spacing_mm, near_mm)
    shown = Image(foreground.float(), image.grid, image.name)
    inside = to_working_spacing(shown, spacing_mm, near_mm=near_mm, overwrite=True).voxels > 0.5
    levels = (scaled.voxels * GREY_LEVELS).floor().clamp(0, GREY_LEVELS - 1)
    return Image(torch.where(inside, levels, torch.full_like(levels, -1.0)), scaled.grid, image.name)


def _entropy(fractions: Tensor) -> float:
    positive = fractions[fractions > 0]
    return float(-(positive * positive.log()).sum())


MOST_RIVALRY, MOST_DISPERSION = 1.5, 0.5  # evidence beyond this says no more, and would make the fit follow outliers


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against an answer.

    `dispersion` is how far other runs of the optimisation ended from it, the median over them of the structure's mean
    displacement, as a fraction of the structure's extent. `information` is the uncertainty coefficient (0 to 1) of both
    images at the answer, `initial_information` at the initial transform, `rotated_information` the highest of the other
    23 orientations of the moving image about the structure's centre. `compared` is the fraction of the sampled points
    at which the moving image shows something.
    """

    dispersion: float
    information: float
    initial_information: float
    rotated_information: float
    compared: float

    def rivalry(self) -> float:
        """Return how much a wrong orientation shares beside the answer: near 0 where the answer stands out."""
        return min(MOST_RIVALRY, self.rotated_information / self.information) if self.information > 0 else MOST_RIVALRY


@dataclass(frozen=True)
class ErrorModel:
    """The error to expect, as a fraction of the structure's extent, and up to which it is trusted.

    base + per_rivalry * rivalry + per_dispersion * dispersion + per_both * rivalry * sqrt(dispersion). Fitted, with
    slopes of 0 or more, on cases whose answer is known (studies/verdict_cases.py, docs/concepts/expected-error.md).
    """

    base: float = 0.0
    per_rivalry: float = 0.0
    per_dispersion: float = 0.0
    per_both: float = 0.0
    trusted_fraction: float = 0.12

    def expected_fraction(self, evidence: Evidence) -> float:
        """Return the error to expect, as a fraction of the structure's extent."""
        rivalry, dispersion = evidence.rivalry(), min(MOST_DISPERSION, evidence.dispersion)
        both = rivalry * dispersion**0.5
        return self.base + self.per_rivalry * rivalry + self.per_dispersion * dispersion + self.per_both * both

    def expectation(self, evidence: Evidence, extent_mm: float) -> Expectation:
        """Return the SRE to expect, mm, and reasons not to trust; `extent_mm` is the structure's true size."""
        fraction = self.expected_fraction(evidence)
        expected, dispersion = fraction * extent_mm, evidence.dispersion * extent_mm
        facts = {name: float(value) for name, value in asdict(evidence).items()}
        found = Expectation(expected, True, dispersion, evidence=facts)
        if fraction <= self.trusted_fraction:
            return found
        limit = _mm(self.trusted_fraction * extent_mm)
        why = ", ".join(_in_words(evidence, dispersion))
        return found.untrusted(f"its expected SRE is {_mm(expected)}, over the limit of {limit} ({why}); {WHAT_TO_TRY}")


# Runs that converge tell much by their dispersion; those that a penalty or few steps hold back, little.
CONVERGED_RUNS = ErrorModel(base=0.058, per_both=0.677)
SHORT_RUNS = ErrorModel(per_rivalry=0.206, per_dispersion=0.633)


def gather_evidence(
    problem: Problem, found: Rigid, others: Sequence[Rigid], coarse: Rigid | None = None, region: Mask | None = None
) -> Evidence:
    """Measure an answer of a problem in its working frame; `others` are where other runs ended, one or more.

    Where the others stopped at a coarse level, `coarse` is where the answer's own run was then; the nearer of the two
    counts. `region` is as for `SharedInformation.of`.
    """
    answers = (found,) if coarse is None else (found, coarse)
    points = problem.structure_mm
    apart = sorted(min(float(mean_displacement_mm(other, one, points)) for one in answers) for other in others)
    transforms = Rigid.cat([found[None], problem.initial[None], found @ rotated_orientations()])
    values, compared = SharedInformation.of(problem, region).coefficients(transforms)
    return Evidence(
        dispersion=apart[len(apart) // 2] / problem.extent_mm,
        information=float(values[0]),
        initial_information=float(values[1]),
        rotated_information=float(values[2:].max()),
        compared=float(compared[0]),
    )


def _in_words(evidence: Evidence, dispersion_mm: float) -> list[str]:
    facts = [f"other initialisations ended {_mm(dispersion_mm)} away"]
    if evidence.rotated_information > evidence.information:
        facts.append("the scans agree better when one is rotated by 90 or 180 degrees: check the orientation")
    elif evidence.rivalry() > 0.5:
        facts.append("with one rotated the wrong way the scans agree nearly as well")
    if evidence.information < evidence.initial_information:
        facts.append("they agreed better initially")
    return facts


def _mm(value: float) -> str:
    return f"{value:.1f} mm" if value >= 1 else f"{value:.2g} mm"
