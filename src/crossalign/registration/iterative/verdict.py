"""Whether the answer of an iterative method is to be trusted, from mutual information at it and around it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.images import Image, foreground, places_of, scale_intensity, to_working_spacing
from crossalign.registration.frame import structure_extent_mm
from crossalign.registration.iterative.sampling_region import sampled_region
from crossalign.registration.problem import Expectation, Problem
from crossalign.types import Distances, Points

BINS = 16
SAMPLES = 6000
LEAST_SAMPLES = 200  # fewer say nothing of a joint histogram of 16 x 16 bins
NEAR_MM = 10.0  # of the working frame, about the structure and about the moving image
STEPS = 30  # working voxels across the structure


@dataclass(frozen=True, eq=False)
class SharedInformation:
    """Samples of a fixed image, and the moving image that they are compared with, both in BINS grey levels.

    `points_mm` (n, 3) lie in the fixed image, `levels` (n,) are its grey levels there. Levels of the moving volume are
    -1 where it shows nothing.
    """

    points_mm: Points
    levels: Int[Tensor, " n"]
    moving: Image

    @staticmethod
    def of(problem: Problem, extent_mm: float) -> SharedInformation:
        """Prepare a problem in its working frame; `extent_mm` is the structure's size there."""
        spacing = max(extent_mm / STEPS, min(problem.fixed.grid.spacing_mm), min(problem.moving.grid.spacing_mm))
        points = _drawn_points(problem)
        fixed = _levels(problem.fixed, spacing, points)
        moving = _levels(problem.moving, spacing, torch.cat((2 * points, -2 * points)))  # in every orientation
        levels = _nearest(fixed, points)
        shown = levels >= 0
        return SharedInformation(points[shown], levels[shown], moving)

    def coefficients(self, fixed_to_moving: Rigid) -> tuple[Distances, Distances]:
        """Return the uncertainty coefficient (b,), 0 to 1, of a batch of transforms, and the share of points seen (b,).

        2 I(F; M) / (H(F) + H(M)) over the points at which both show something (Press et al., Numerical Recipes),
        less its bias in few samples; 0 where fewer than 200 points are seen.
        """
        found = [self._coefficient(fixed_to_moving[index]) for index in range(len(fixed_to_moving.rotation))]
        values, shares = zip(*found, strict=True)
        return torch.tensor(values, dtype=torch.float64), torch.tensor(shares, dtype=torch.float64)

    def _coefficient(self, fixed_to_moving: Rigid) -> tuple[float, float]:
        seen = _nearest(self.moving, fixed_to_moving.apply(self.points_mm))
        known = seen >= 0
        count = int(known.sum())
        share = count / max(1, len(seen))
        if count < LEAST_SAMPLES:
            return 0.0, share
        joint = torch.bincount(self.levels[known] * BINS + seen[known], minlength=BINS * BINS).double()
        joint = joint.reshape(BINS, BINS) / count
        rows, columns = joint.sum(1), joint.sum(0)
        used = [int((part > 0).sum()) for part in (rows, columns)]
        shared = _entropy(rows) + _entropy(columns) - _entropy(joint) - (used[0] - 1) * (used[1] - 1) / (2 * count)
        total = _entropy(rows) + _entropy(columns)
        return (max(0.0, 2 * shared / total) if total > 0 else 0.0), share


def orientations() -> Rigid:
    """Return the 23 rotations of a cube that are not the identity, as a batch about the origin."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = torch.zeros(3, 3, dtype=torch.float64)
            for row, (column, sign) in enumerate(zip(order, signs, strict=True)):
                matrix[row, column] = sign
            if float(torch.linalg.det(matrix)) > 0 and not torch.equal(matrix, torch.eye(3, dtype=torch.float64)):
                found.append(matrix)
    return Rigid(torch.stack(found), torch.zeros(len(found), 3, dtype=torch.float64))


def _levels(image: Image, spacing_mm: float, near_mm: Points) -> Image:
    """Bring an image, or of a large one what lies near some points, to working voxels.

    They hold grey levels 0 to BINS - 1, and -1 for nothing.
    """
    scaled = to_working_spacing(scale_intensity(image), spacing_mm, near_mm=near_mm, overwrite=True)
    shown = Image(foreground(image.voxels).float(), image.grid, image.name)
    inside = to_working_spacing(shown, spacing_mm, near_mm=near_mm, overwrite=True).voxels > 0.5
    values = scaled.voxels
    if not bool(inside.any()):
        return Image(torch.full_like(values, -1.0), scaled.grid, image.name)
    levels = (values * BINS).floor().clamp(0, BINS - 1)
    return Image(torch.where(inside, levels, torch.full_like(levels, -1.0)), scaled.grid, image.name)


def _drawn_points(problem: Problem) -> Points:
    """Draw points (n, 3) among the voxels that an iterative method compares; the same for every problem alike."""
    region = sampled_region(problem, NEAR_MM, NEAR_MM)
    count = int(torch.count_nonzero(region))
    ranks = torch.randint(count, (SAMPLES,), generator=torch.Generator().manual_seed(0))
    return problem.fixed.grid.to_physical(places_of(region, ranks).flip(-1).double())


def _nearest(levels: Image, points_mm: Points) -> Int[Tensor, " n"]:
    index = levels.grid.to_voxel(points_mm).add(0.5).floor().long()
    size = torch.tensor(levels.grid.shape[::-1])
    inside = ((index >= 0) & (index < size)).all(-1)
    x, y, z = torch.where(inside[:, None], index, 0).unbind(-1)
    return torch.where(inside, levels.voxels[z, y, x].long(), -1)


def _entropy(shares: Tensor) -> float:
    positive = shares[shares > 0]
    return float(-(positive * positive.log()).sum())


TRY_ANOTHER = "look at the overlay, and try another start (--initial) or another method (--method)"
MOST_RIVALRY, MOST_DISPERSION = 1.5, 0.5  # evidence beyond this says no more, and would make the fit follow outliers


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against an answer.

    `dispersion` is how far the other climbs ended from it, the median over them of the structure's mean displacement,
    as a share of the structure's extent. `information` is the uncertainty coefficient (0 to 1) of both images at the
    answer, `before` at the start, `rival` the highest of the other 23 orientations of the moving image about the
    structure's centre. `seen` is the share of the compared points at which the moving image shows something.
    """

    dispersion: float
    information: float
    before: float
    rival: float
    seen: float

    def rivalry(self) -> float:
        """Return how much a wrong orientation shares beside the answer: near 0 where the answer stands out."""
        return min(MOST_RIVALRY, self.rival / self.information) if self.information > 0 else MOST_RIVALRY


@dataclass(frozen=True)
class Judgement:
    """The error to expect, as a share of the structure's extent, and up to which it is trusted.

    base + per_rivalry * rivalry + per_dispersion * dispersion + per_both * rivalry * sqrt(dispersion). Fitted, with
    slopes of 0 or more, on cases whose answer is known (studies/verdict_cases.py, docs/uncertainty.md).
    """

    base: float = 0.0
    per_rivalry: float = 0.0
    per_dispersion: float = 0.0
    per_both: float = 0.0
    trusted_share: float = 0.12

    def expected_share(self, evidence: Evidence) -> float:
        """Return the error to expect, as a share of the structure's extent."""
        rivalry, dispersion = evidence.rivalry(), min(MOST_DISPERSION, evidence.dispersion)
        both = rivalry * dispersion**0.5
        return self.base + self.per_rivalry * rivalry + self.per_dispersion * dispersion + self.per_both * both


# Climbs that end where they stand still tell much by their scatter; those that are held back, little.
OF_CLIMBS = Judgement(base=0.058, per_both=0.677)
OF_SHORT_STEPS = Judgement(per_rivalry=0.206, per_dispersion=0.633)


def gather_evidence(
    problem: Problem, found: Rigid, rivals: Sequence[Rigid], points_mm: Points, coarse: Rigid | None = None
) -> Evidence:
    """Measure an answer of a problem in its working frame; `rivals` are where other climbs ended, one or more.

    `points_mm` (n, 3) spread over the structure, whose centre is the origin. Where the rivals stopped at a coarse
    level, `coarse` is where the answer's own climb stood then; the nearer of the two counts.
    """
    extent = structure_extent_mm(points_mm)
    stands = (found,) if coarse is None else (found, coarse)
    apart = sorted(min(float(mean_displacement_mm(rival, stand, points_mm)) for stand in stands) for rival in rivals)
    shared = SharedInformation.of(problem, extent)
    turned = found @ orientations()
    together = Rigid(
        torch.cat((found.rotation[None], problem.initial.rotation[None], turned.rotation)),
        torch.cat((found.translation_mm[None], problem.initial.translation_mm[None], turned.translation_mm)),
    )
    values, seen = shared.coefficients(together)
    dispersion = apart[len(apart) // 2] / extent
    return Evidence(dispersion, float(values[0]), float(values[1]), float(values[2:].max()), float(seen[0]))


def judged(evidence: Evidence, extent_mm: float, judgement: Judgement) -> Expectation:
    """Turn evidence into the SRE to expect, mm, and reasons for doubt; `extent_mm` is the structure's true size."""
    share = judgement.expected_share(evidence)
    expected = share * extent_mm
    facts = {name: float(value) for name, value in asdict(evidence).items()}
    if share <= judgement.trusted_share:
        return Expectation(expected, True, evidence.dispersion * extent_mm, None, (), facts)
    limit = f"over the limit of {_mm(judgement.trusted_share * extent_mm)}"
    doubt = f"do not trust this result: its expected SRE is {_mm(expected)}, {limit} ({_reasons(evidence, extent_mm)})"
    return Expectation(expected, False, evidence.dispersion * extent_mm, None, (f"{doubt}; {TRY_ANOTHER}",), facts)


def _reasons(evidence: Evidence, extent_mm: float) -> str:
    """Say what the evidence is in words."""
    reasons = [f"other starts ended {_mm(evidence.dispersion * extent_mm)} away"]
    if evidence.rival > evidence.information:
        reasons.append("the scans agree better when one is turned by a quarter or a half: check the orientation")
    elif evidence.rivalry() > 0.5:
        reasons.append("turned the wrong way the scans agree nearly as well")
    if evidence.information < evidence.before:
        reasons.append("they agreed better at the start")
    return ", ".join(reasons)


def _mm(value: float) -> str:
    return f"{value:.1f} mm" if value >= 1 else f"{value:.2g} mm"
