"""Calibration: expected errors fitted to the true SRE, on registrations whose answer is known."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossalign.cells import plain_cell
from crossalign.errors import InputError
from crossalign.evaluation.statistics import Values, rank_correlation
from crossalign.input import excerpt, finite_number, read_table
from crossalign.models import Calibration

FEWEST_REGISTRATIONS = 10
ERROR_COLUMNS = ("sre_mm", "dispersion_mm", "network_sre_mm")
ADVISED_TABLE = "give the table that `crossalign evaluate -o` wrote"


@dataclass(frozen=True, eq=False)
class ErrorEstimates:
    """True SRE and what a method expected of it, a value for each registration, mm; a column that is absent is None."""

    sre_mm: Values
    dispersion_mm: Values | None
    network_mm: Values | None

    def __post_init__(self) -> None:
        if len(self.sre_mm) < FEWEST_REGISTRATIONS:
            raise InputError(
                f"a calibration needs {FEWEST_REGISTRATIONS} registrations or more, got {len(self.sre_mm)}"
            )
        if self.dispersion_mm is None and self.network_mm is None:
            raise InputError(
                "these registrations say nothing of their own error: run them from several initialisations, or with a "
                "network that expects its own error"
            )


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
    expected SRE first.
    """

    calibration: Calibration
    rank_correlation: float
    reliability: tuple[Reliability, ...]
    coverage: Values
    risk_mm: Values
    trusted_sre_mm: float
    untrusted_sre_mm: float


def read_error_estimates(path: str | os.PathLike[str], method: str | None = None) -> ErrorEstimates:
    """Read the table of `crossalign evaluate`; rows that failed do not count. Raises InputError.

    `method` chooses one where the table has several.
    """
    name = excerpt(Path(path).name)
    records = _records(path, name)
    names = sorted({record["method"] for _, record in records})
    if method is None and len(names) > 1:
        several = excerpt(", ".join(names), 200)
        raise InputError(f"{name}: holds several methods, choose one with --method: {several}")
    selected = [(number, record) for number, record in records if record["method"] == (method or names[0])]
    if not selected:
        known = excerpt(", ".join(names), 200)
        raise InputError(f"{name}: no method is called '{excerpt(method)}': there are {known}")
    sre, dispersion, network = (_column(selected, column, name) for column in ERROR_COLUMNS)
    if sre is None:
        raise InputError(f"{name}: the column sre_mm has empty cells: {ADVISED_TABLE}")
    return ErrorEstimates(sre, dispersion, network)


def fit_calibration(estimates: ErrorEstimates, threshold_mm: float | None = None, keep: float = 0.8) -> Calibration:
    """Fit expected SRE = base + slope * dispersion + slope * network's expectation, by least squares, slopes >= 0.

    `threshold_mm` None takes the expected SRE under which the fraction `keep` of these registrations lies. Raises
    InputError.
    """
    from scipy.optimize import lsq_linear

    if not 0 < keep <= 1:
        raise InputError(f"the fraction to keep lies in (0, 1], got {keep}")
    nothing = np.zeros_like(estimates.sre_mm)
    known = (estimates.dispersion_mm, estimates.network_mm)
    columns = np.stack([np.ones_like(nothing), *(nothing if c is None else c for c in known)], axis=1)
    if not np.isfinite(columns).all() or not np.isfinite(estimates.sre_mm).all():
        raise InputError("a calibration needs finite numbers: leave out the registrations without them")
    fit = lsq_linear(columns, estimates.sre_mm, bounds=([-np.inf, 0, 0], np.inf), method="bvls")
    base, dispersion, network = (float(value) for value in fit.x)
    draft = Calibration(base, _flat(dispersion), _flat(network), 1.0)
    limit = float(np.quantile(expected_mm(draft, estimates), keep)) if threshold_mm is None else threshold_mm
    return Calibration(draft.base_mm, draft.per_dispersion, draft.per_network, limit)


def expected_mm(calibration: Calibration, estimates: ErrorEstimates) -> Values:
    """Return the expected SRE of each registration, mm; raises InputError where a column that it needs is absent."""
    n = len(estimates.sre_mm)
    rows = zip(_listed(estimates.dispersion_mm, n), _listed(estimates.network_mm, n), strict=True)
    values = [calibration.expected_sre_mm(dispersion, network) for dispersion, network in rows]
    if None in values:
        raise InputError("this calibration needs a dispersion or a network's expectation that the table has not")
    return np.array(values, dtype=np.float64)


def judge_calibration(calibration: Calibration, estimates: ErrorEstimates, bins: int = 5) -> CalibrationReport:
    """Measure a calibration on registrations whose answer is known, best on others than it was fitted on."""
    expected = expected_mm(calibration, estimates)
    trusted = expected <= calibration.threshold_mm
    coverage, risk = risk_coverage(expected, estimates.sre_mm)
    return CalibrationReport(
        calibration=calibration,
        rank_correlation=rank_correlation(expected, estimates.sre_mm),
        reliability=reliability_table(expected, estimates.sre_mm, bins),
        coverage=coverage,
        risk_mm=risk,
        trusted_sre_mm=_mean(estimates.sre_mm[trusted]),
        untrusted_sre_mm=_mean(estimates.sre_mm[~trusted]),
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
        f"trusted up to {c.threshold_mm:.2f} mm",
        f"mean true SRE: trusted {_mm(report.trusted_sre_mm)}, untrusted {_mm(report.untrusted_sre_mm)}",
        f"rank correlation with the true SRE: {report.rank_correlation:.3f}",
        "reliability (n, expected, true):",
        *(f"  {r.count:5d}  {r.expected_mm:6.2f} mm  {r.true_mm:6.2f} mm" for r in report.reliability),
        "mean true SRE of the fraction with the lowest expected SRE:",
    ]
    n = len(report.coverage)
    return lines + [f"  {part:4.0%}  {report.risk_mm[max(0, math.ceil(part * n) - 1)]:6.2f} mm" for part in fractions]


def _records(path: str | os.PathLike[str], name: str) -> list[tuple[int, dict[str, str]]]:
    """Read the registrations that did not fail, each with the number of its row (the header is row 1)."""
    rows = [(number, row) for number, row in enumerate(read_table(path), start=1) if any(row)]
    header = rows[0][1] if rows else []
    if not {"method", *ERROR_COLUMNS} <= set(header) or len(rows) == 1:
        raise InputError(f"{name}: no registrations in it: {ADVISED_TABLE}")
    if len(set(header)) != len(header):
        raise InputError(f"{name}, row 1: a column stands there twice: {ADVISED_TABLE}")
    for number, row in rows:
        if len(row) != len(header):
            raise InputError(f"{name}, row {number}: {len(row)} values, expected {len(header)}: {ADVISED_TABLE}")
    cells = ((number, dict(zip(header, map(plain_cell, row), strict=True))) for number, row in rows[1:])
    found = [(number, record) for number, record in cells if not record.get("error")]
    if not found:
        raise InputError(f"{name}: no registrations in it: every one failed")
    return found


def _column(records: Sequence[tuple[int, dict[str, str]]], column: str, name: str) -> Values | None:
    cells = [(number, record[column]) for number, record in records]
    filled = [bool(cell) for _, cell in cells]
    if not all(filled):
        if any(filled):
            raise InputError(f"{name}: the column {column} is filled in some rows and empty in others")
        return None
    return np.array([_number(f"{name}, row {number}, column '{column}'", cell) for number, cell in cells])


def _number(where: str, cell: str) -> float:
    value = finite_number(cell)
    if value is None:
        raise InputError(f"{where}: got '{excerpt(cell, 40)}', expected a finite number (mm)")
    return value


def _listed(values: Values | None, count: int) -> Sequence[float | None]:
    return [None] * count if values is None else values.tolist()


def _flat(slope: float) -> float:
    return slope if slope > 1e-9 else 0.0


def _mean(values: Values) -> float:
    return float(values.mean()) if len(values) else math.nan


def _mm(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.2f} mm"
