"""Calibration: expected errors fitted to the true SRE, on registrations whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from crossalign.errors import InputError
from crossalign.evaluation.error_estimates import ErrorEstimates, check_count
from crossalign.evaluation.evidence_fit import (
    FOLDS,
    SMALLEST_MM,
    candidate_terms,
    conformal_factor,
    fitted_slopes,
    folds_of,
    term_columns,
)
from crossalign.evaluation.statistics import Values, rank_correlation
from crossalign.models import Calibration, EvidenceTerm

FEWEST_FOR_EVIDENCE = 40


@dataclass(frozen=True)
class Reliability:
    """Registrations whose expected SRE is alike: how many, and the means of expected and true SRE, mm."""

    count: int
    expected_mm: float
    true_mm: float


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """A calibration and what it is worth on the registrations that it is judged by.

    `coverage` and `risk_mm` are the curve of the mean true SRE of the registrations retained, those with the lowest
    expected SRE first. `within_bound` is the fraction of the `trusted_count` trusted ones whose true SRE lies under the
    bound, NaN without.
    """

    calibration: Calibration
    rank_correlation: float
    reliability: tuple[Reliability, ...]
    coverage: Values
    risk_mm: Values
    trusted_sre_mm: float
    untrusted_sre_mm: float
    trusted_count: int
    within_bound: float


def fit_calibration(
    estimates: ErrorEstimates, threshold_mm: float | None = None, keep: float = 0.8, probability: float = 0.9
) -> Calibration:
    """Fit expected SRE = base + slopes of 0 or more times dispersion, the network's expectation, and evidence.

    By least squares; where there are fewer than 40 registrations evidence is left out. `threshold_mm` None takes the
    expected SRE under which the fraction `keep` of the registrations that should be trusted lies. With 40 or more it is
    judged by what others expect: the fit is repeated without each fifth of the patients, and threshold and bound (for
    `probability`) are those of what these fits expect of the patients that they did not see. Raises InputError.
    """
    if not 0 < keep <= 1:
        raise InputError(f"the fraction to keep lies in (0, 1], got {keep}")
    if not 0 < probability < 1:
        raise InputError(f"the bound's probability lies between 0 and 1, got {probability}")
    check_count(estimates.sre_mm)
    draft = _fitted(estimates)
    unseen = expected_unseen_mm(estimates)
    ordinary = estimates.ordinary()
    limit = float(np.quantile(unseen[ordinary], keep)) if threshold_mm is None else threshold_mm
    trusted = unseen <= limit
    factor = conformal_factor(estimates.sre_mm[trusted], unseen[trusted], probability)
    bound = (None, None) if factor is None else (factor, probability)
    return replace(draft, threshold_mm=limit, bound_factor=bound[0], bound_probability=bound[1])


def expected_unseen_mm(estimates: ErrorEstimates) -> Values:
    """Return what fits without a registration's patient expect of it, (n,), mm; of few registrations, one fit's."""
    patients = estimates.patients or tuple(map(str, range(len(estimates.sre_mm))))
    if len(patients) < FEWEST_FOR_EVIDENCE or len(set(patients)) < FOLDS:
        return expected_mm(_fitted(estimates), estimates)
    expected, folds = np.empty(len(patients)), folds_of(patients)
    for fold in range(FOLDS):
        left_out = folds == fold
        expected[left_out] = expected_mm(_fitted(estimates.part(~left_out)), estimates.part(left_out))
    return expected


def _fitted(estimates: ErrorEstimates) -> Calibration:
    """Fit base and slopes; the threshold is none yet."""
    known = [estimates.dispersion_mm, estimates.network_mm]
    columns = [np.zeros_like(estimates.sre_mm) if column is None else column for column in known]
    terms = []
    if len(estimates.sre_mm) >= FEWEST_FOR_EVIDENCE:
        terms = candidate_terms(estimates.evidence, estimates.ordinary())
    matrix = np.column_stack([*columns, *term_columns(terms, estimates.evidence)])
    if not np.isfinite(matrix).all() or not np.isfinite(estimates.sre_mm).all():
        raise InputError("a calibration needs finite numbers: leave out the registrations without them")
    base, *slopes = fitted_slopes(matrix, estimates.sre_mm, _weight(estimates), len(known)).tolist()
    chosen = [replace(term, slope=slope) for term, slope in zip(terms, slopes[2:], strict=True)]
    kept = tuple(term for term in chosen if term.slope * term.largest > SMALLEST_MM)
    return Calibration(base, _flat(slopes[0]), _flat(slopes[1]), 1.0, kept)


def _weight(estimates: ErrorEstimates) -> Values:
    """Weigh all failures together as much as all registrations that should be trusted."""
    ordinary = estimates.ordinary()
    failures = int((~ordinary).sum())
    kind = np.where(ordinary, 1.0, ordinary.sum() / failures if failures else 1.0)
    return kind if estimates.weight is None else kind * estimates.weight


def expected_mm(calibration: Calibration, estimates: ErrorEstimates) -> Values:
    """Return the expected SRE of each registration, mm; raises InputError where a column that it needs is absent."""
    n = len(estimates.sre_mm)
    rows = zip(_listed(estimates.dispersion_mm, n), _listed(estimates.network_mm, n), strict=True)
    evidence = [estimates.evidence_of(index) for index in range(n)]
    values = [calibration.expected_sre_mm(*row, known) for row, known in zip(rows, evidence, strict=True)]
    if None in values:
        raise InputError("this calibration needs a dispersion or a network's expectation that the table has not")
    return np.array(values, dtype=np.float64)


def judge_calibration(calibration: Calibration, estimates: ErrorEstimates, bins: int = 5) -> CalibrationReport:
    """Measure a calibration on registrations whose answer is known, best on others than it was fitted on."""
    expected = expected_mm(calibration, estimates)
    trusted = expected <= calibration.threshold_mm
    coverage, risk = risk_coverage(expected, estimates.sre_mm)
    within = estimates.sre_mm <= (calibration.bound_factor or 0.0) * expected
    return CalibrationReport(
        calibration=calibration,
        rank_correlation=rank_correlation(expected, estimates.sre_mm),
        reliability=reliability_table(expected, estimates.sre_mm, bins),
        coverage=coverage,
        risk_mm=risk,
        trusted_sre_mm=_mean(estimates.sre_mm[trusted]),
        untrusted_sre_mm=_mean(estimates.sre_mm[~trusted]),
        trusted_count=int(trusted.sum()),
        within_bound=math.nan if calibration.bound_factor is None else _mean(within[trusted]),
    )


def reliability_table(expected: Values, true: Values, bins: int = 5) -> tuple[Reliability, ...]:
    """Split registrations by expected SRE into `bins` of equal size (fewer where there are not so many)."""
    order = np.argsort(expected, kind="stable")
    groups = [group for group in np.array_split(order, bins) if len(group)]
    return tuple(Reliability(len(g), float(expected[g].mean()), float(true[g].mean())) for g in groups)


def risk_coverage(expected: Values, true: Values) -> tuple[Values, Values]:
    """Return the coverage (n,), 1/n to 1, and the mean true SRE (n,) of the registrations with the least expected."""
    order = np.argsort(expected, kind="stable")
    counts = np.arange(1, len(order) + 1, dtype=np.float64)
    return counts / len(order), np.cumsum(true[order]) / counts


def report_lines(report: CalibrationReport, fractions: Sequence[float] = (0.25, 0.5, 0.75, 1.0)) -> list[str]:
    """Describe a calibration, and what it is worth, in lines of text."""
    c = report.calibration
    lines = [
        f"expected SRE = {c.base_mm:.3f} mm + {c.per_dispersion:.3f} x dispersion + {c.per_network:.3f} x network",
        *(_term(term) for term in c.terms),
        f"trusted up to {c.threshold_mm:.2f} mm",
        *_bound_lines(report),
        f"mean true SRE: trusted {_mm(report.trusted_sre_mm)}, untrusted {_mm(report.untrusted_sre_mm)}",
        f"rank correlation with the true SRE: {report.rank_correlation:.3f}",
        "reliability (n, expected, true):",
        *(f"  {r.count:5d}  {r.expected_mm:6.2f} mm  {r.true_mm:6.2f} mm" for r in report.reliability),
        "mean true SRE of the fraction with the lowest expected SRE:",
    ]
    n = len(report.coverage)
    return lines + [f"  {part:4.0%}  {report.risk_mm[max(0, math.ceil(part * n) - 1)]:6.2f} mm" for part in fractions]


def _term(term: EvidenceTerm) -> str:
    side, most_mm = "below" if term.falls else "above", term.slope * term.largest
    return f"  + {term.slope:.3g} x {term.name} {side} {term.beyond:.3g}, up to {most_mm:.2f} mm"


def _bound_lines(report: CalibrationReport) -> list[str]:
    c = report.calibration
    if c.bound_factor is None or c.bound_probability is None:
        return []
    within = "" if math.isnan(report.within_bound) else f": so were {report.within_bound:.0%} of {report.trusted_count}"
    return [
        f"true SRE of trusted ones under {c.bound_factor:.2f} x the expected with {c.bound_probability:.0%}{within}"
    ]


def _listed(values: Values | None, count: int) -> Sequence[float | None]:
    return [None] * count if values is None else values.tolist()


def _flat(slope: float) -> float:
    return slope if slope > 1e-9 else 0.0


def _mean(values: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _mm(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.2f} mm"
