"""Statistics of paired, clustered errors: intervals by patient, paired tests, Holm's correction.

A patient may have several cases and each case several initialisations; registrations of one patient are not
independent. Intervals therefore resample patients. The tests pair single registrations, as the papers' do, and so are
too sure of themselves where patients have many: read them beside the interval of the difference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
RESAMPLES = 2000
COVERAGE = 0.95


@dataclass(frozen=True)
class MeanSd:
    """Mean, sd (n - 1) and median of a sample, and the 95 % bootstrap interval by patient of the mean; NaN without."""

    mean: float = math.nan
    sd: float = math.nan
    median: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @staticmethod
    def of(values: npt.ArrayLike, patients: Sequence[str], seed: int) -> "MeanSd":
        """Describe the values that are not NaN; `patients` says whose each one is."""
        numbers = np.asarray(values, dtype=np.float64)
        known = ~np.isnan(numbers)
        numbers = numbers[known]
        if len(numbers) == 0:
            return MeanSd()
        interval = bootstrap_interval(numbers, np.asarray(patients, dtype=np.str_)[known].tolist(), seed)
        sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan
        return MeanSd(float(numbers.mean()), sd, float(np.median(numbers)), *interval)


def bootstrap_interval(
    values: Values, patients: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean when whole patients are drawn with replacement, NaN for one."""
    names, whose = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        return math.nan, math.nan
    sums = np.bincount(whose, weights=values)
    counts = np.bincount(whose)
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, (tail, 1 - tail)).tolist()
    return low, high


def paired_p_values(a: Values, b: Values) -> tuple[float, float]:
    """Return the two-sided p of the paired t-test and of Wilcoxon's signed-rank test of a against b, paired by index.

    NaN where undefined: the t-test needs two pairs whose differences vary, Wilcoxon's one difference that is not 0.
    """
    from scipy import stats  # takes a second to import, and only tables need it

    differences = a - b
    t_p = wilcoxon_p = math.nan
    size = float(np.abs(differences).max(initial=0.0))
    if len(differences) > 1 and float(np.ptp(differences)) > 1e-12 * size:
        t_p = float(stats.ttest_rel(a, b).pvalue)
    if size > 0:
        wilcoxon_p = float(stats.wilcoxon(differences).pvalue)
    return t_p, wilcoxon_p


def rank_correlation(a: Values, b: Values) -> float:
    """Return Spearman's rank correlation, -1 to 1; NaN for one pair or where one is constant.

    Only pairs of two finite numbers count.
    """
    from scipy import stats

    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 2 or np.ptp(a[known]) == 0 or np.ptp(b[known]) == 0:
        return math.nan
    return float(stats.spearmanr(a[known], b[known]).statistic)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Correct a family of p-values by Holm's step-down method, in the order given; NaN stays NaN and is not counted."""
    known = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[index] = largest
    return tuple(corrected)
