"""Fit of the terms of a calibration: expected errors that never fall where evidence gets worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from crossalign.evaluation.statistics import Values
from crossalign.models import EvidenceTerm
from crossalign.registration.evidence import EVIDENCE

BEYOND = (0.5, 0.9)  # quantiles of ordinary registrations at which a term begins: what ranks, and what is a failure
LARGEST = 0.98  # quantile of all registrations, failures included, beyond which evidence says no more
RIDGE = 0.5  # of each scaled slope, as a fraction of the registrations (chosen on patients left out of the fit)
SMALLEST_MM = 0.02  # what a term must be able to add
LARGEST_MM = 15.0  # errors beyond count as this: a failure is a failure
FOLDS = 5


def candidate_terms(evidence: Mapping[str, Values], ordinary: npt.NDArray[np.bool_]) -> list[EvidenceTerm]:
    """Make the terms that a fit may use, of slope 1: for each evidence those beyond two quantiles of ordinary ones."""
    terms = []
    for name, falls in EVIDENCE.items():
        values = evidence.get(name)
        if values is None or np.isnan(values[ordinary]).all():
            continue
        signed = -values if falls else values
        largest = float(np.nanquantile(signed, LARGEST))
        for quantile in BEYOND:
            beyond = float(np.nanquantile(signed[ordinary], quantile))
            if largest - beyond > 1e-6 * max(1.0, abs(beyond)):
                terms.append(EvidenceTerm(name, 1.0, -beyond if falls else beyond, largest - beyond, falls))
    return terms


def fitted_slopes(columns: Values, errors_mm: Values, weight: Values, plain: int) -> Values:
    """Return base and slopes (k + 1,) of columns (n, k) by weighted least squares; all but the base 0 or more.

    After the first `plain` columns slopes, scaled to a standard deviation of 1, are drawn to 0 a little (ridge), so
    that evidence that says the same shares what it adds.
    """
    from scipy.optimize import lsq_linear

    count, width = columns.shape
    scale = np.r_[np.ones(plain), np.maximum(columns[:, plain:].std(axis=0), 1e-9)]
    root = np.sqrt(weight * (count / weight.sum()))
    ridge = math.sqrt(RIDGE * count) * np.eye(width + 1)[1 + plain :]
    matrix = np.vstack([np.column_stack([np.ones(count), columns / scale]) * root[:, None], ridge])
    target = np.concatenate([np.minimum(errors_mm, LARGEST_MM) * root, np.zeros(len(ridge))])
    fit = lsq_linear(matrix, target, bounds=(np.r_[-np.inf, np.zeros(width)], np.inf), method="bvls")
    return np.r_[fit.x[0], np.maximum(fit.x[1:], 0.0) / scale]  # the solver may end a rounding below its bound


def term_columns(terms: Sequence[EvidenceTerm], evidence: Mapping[str, Values]) -> list[Values]:
    """Return, for each term, how far its evidence is beyond its value, (n,); 0 where there is no such evidence."""
    return [
        np.array([0.0 if np.isnan(value) else term.excess(float(value)) for value in evidence[term.name]])
        for term in terms
    ]


def folds_of(patients: Sequence[str], folds: int = FOLDS) -> npt.NDArray[np.int64]:
    """Return the fold (n,) of each registration: those of one patient are in one."""
    names = sorted(set(patients))
    order = np.random.default_rng(0).permutation(len(names))
    fold = {name: int(order[index] % folds) for index, name in enumerate(names)}
    return np.array([fold[name] for name in patients], dtype=np.int64)


def conformal_factor(true_mm: Values, expected_mm: Values, probability: float) -> float | None:
    """Return the factor of the expected error under which the fraction `probability` of true ones lies.

    Split conformal: of n ratios of true to expected error the ceil((n + 1) probability)-th smallest, so that it holds
    on average for one more like these. None where there are too few for that.
    """
    ratios = np.sort(true_mm / np.maximum(expected_mm, 1e-6))
    rank = math.ceil((len(ratios) + 1) * probability)
    return float(ratios[rank - 1]) if 1 <= rank <= len(ratios) else None
