"""Whether the answer of an iterative method is to be trusted, from what the method can see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.registration.frame import structure_extent_mm
from crossalign.registration.information import SharedInformation, orientations
from crossalign.registration.problem import Expectation, Problem
from crossalign.types import Points

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
    slopes of 0 or more, on cases whose answer is known (benchmarks/verdict_cases.py, docs/uncertainty.md).
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
