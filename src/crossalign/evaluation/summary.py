"""From rows to what a table says: one summary for each method and start range, and each method against the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from crossalign.evaluation.protocol import Evaluation, Row
from crossalign.evaluation.statistics import (
    Spread,
    bootstrap_interval,
    holm,
    paired_p_values,
    rank_correlation,
    spread,
)

UNDER_MM = 5.0


@dataclass(frozen=True)
class StageSummary:
    """SRE after one stage, over all registrations, and its seconds over those that got there."""

    name: str
    sre_mm: Spread
    seconds: Spread


@dataclass(frozen=True)
class Trust:
    """What a method's own expectation is worth, over the registrations that have one; NaN where undefined.

    `rank_correlation` is Spearman's, of expected and true SRE; `kept` and `flagged` count those that the method trusts
    and those that it does not, each with its mean true SRE.
    """

    expected_sre_mm: float
    sre_mm: float
    rank_correlation: float
    kept: int
    flagged: int
    kept_sre_mm: float
    flagged_sre_mm: float


@dataclass(frozen=True)
class Summary:
    """One method from one start range; every figure counts each registration (case x start) once, as the papers do.

    A failed registration counts with its start's errors and is left out of the seconds. `start_sre_mm` is what doing
    nothing scores.
    """

    method: str
    start: str
    registrations: int
    patients: int
    failed: int
    start_sre_mm: Spread
    sre_mm: Spread
    stages: tuple[StageSummary, ...]
    start_tre_mm: Spread
    tre_mm: Spread
    start_dice: Spread
    dice: Spread
    share_improved: float
    share_under_5mm: float
    seconds: Spread
    trust: Trust | None = None

    def failed_always(self) -> bool:
        """Say whether no registration ended without an error: the method then has no result of its own."""
        return self.failed == self.registrations


@dataclass(frozen=True)
class Comparison:
    """One method against the method with the lowest mean SRE from the same start range, paired on (case, start).

    `difference_mm` is the mean of method - best, with its 95 % bootstrap interval by patient. The corrected p-values
    (`_holm`) take every comparison of the evaluation as one family, each test by itself.
    """

    method: str
    best: str
    start: str
    pairs: int
    difference_mm: float
    low_mm: float
    high_mm: float
    t_p: float
    wilcoxon_p: float
    t_p_holm: float = math.nan
    wilcoxon_p_holm: float = math.nan


def summarize(evaluation: Evaluation) -> tuple[Summary, ...]:
    """Summarise every method from every start range, ordered by start, then as the methods were given."""
    return tuple(
        _summary(method, start, _picked(evaluation, method, start), evaluation.seed)
        for start in evaluation.starts
        for method in evaluation.methods
    )


def best_method(evaluation: Evaluation, start: str) -> str:
    """Return the method with the lowest mean SRE from this start range: the first of equals, not one that never ran."""

    def rank(method: str) -> tuple[bool, float]:
        rows = _picked(evaluation, method, start)
        return all(row.error for row in rows), float(np.mean([row.after.sre_mm for row in rows]))

    return min(evaluation.methods, key=rank)


def compare_with_best(evaluation: Evaluation) -> tuple[Comparison, ...]:
    """Test every other method against the best of its start range: paired t-test and Wilcoxon, Holm-corrected."""
    comparisons = [
        _comparison(evaluation, method, best, start)
        for start in evaluation.starts
        for best in (best_method(evaluation, start),)
        for method in evaluation.methods
        if method != best
    ]
    t_p = holm([comparison.t_p for comparison in comparisons])
    wilcoxon_p = holm([comparison.wilcoxon_p for comparison in comparisons])
    return tuple(
        replace(comparison, t_p_holm=t, wilcoxon_p_holm=w)
        for comparison, t, w in zip(comparisons, t_p, wilcoxon_p, strict=True)
    )


def _picked(evaluation: Evaluation, method: str, start: str) -> list[Row]:
    return [row for row in evaluation.rows if row.method == method and row.start == start]


def _summary(method: str, start: str, rows: list[Row], seed: int) -> Summary:
    def over(value: Callable[[Row], float]) -> Spread:
        return spread([value(row) for row in rows], [row.patient for row in rows], seed)

    return Summary(
        method=method,
        start=start,
        registrations=len(rows),
        patients=len({row.patient for row in rows}),
        failed=sum(bool(row.error) for row in rows),
        start_sre_mm=over(lambda row: row.before.sre_mm),
        sre_mm=over(lambda row: row.after.sre_mm),
        stages=_stages(rows, seed),
        start_tre_mm=over(lambda row: row.before.tre_mm),
        tre_mm=over(lambda row: row.after.tre_mm),
        start_dice=over(lambda row: row.before.dice),
        dice=over(lambda row: row.after.dice),
        share_improved=float(np.mean([row.after.sre_mm < row.before.sre_mm for row in rows])),
        share_under_5mm=float(np.mean([row.after.sre_mm < UNDER_MM for row in rows])),
        seconds=over(lambda row: math.nan if row.error else row.seconds),
        trust=_trust(rows),
    )


def _trust(rows: list[Row]) -> Trust | None:
    told = [(row.expectation, row.after.sre_mm) for row in rows if row.expectation.expected_sre_mm is not None]
    if not told:
        return None
    expected = np.array([expectation.expected_sre_mm for expectation, _ in told], dtype=np.float64)
    sre = np.array([sre_mm for _, sre_mm in told])
    kept = np.array([expectation.trusted is True for expectation, _ in told])
    flagged = np.array([expectation.trusted is False for expectation, _ in told])
    return Trust(
        expected_sre_mm=float(expected.mean()),
        sre_mm=float(sre.mean()),
        rank_correlation=rank_correlation(expected, sre),
        kept=int(kept.sum()),
        flagged=int(flagged.sum()),
        kept_sre_mm=float(sre[kept].mean()) if kept.any() else math.nan,
        flagged_sre_mm=float(sre[flagged].mean()) if flagged.any() else math.nan,
    )


def _stages(rows: list[Row], seed: int) -> tuple[StageSummary, ...]:
    patients = [row.patient for row in rows]
    longest = max(rows, key=lambda row: len(row.steps))
    stages = []
    for index, step in enumerate(longest.steps):
        there = [index < len(row.steps) for row in rows]
        # A registration that stopped before this stage stands where it ended.
        sre = [row.steps[index].sre_mm if t else row.after.sre_mm for row, t in zip(rows, there, strict=True)]
        seconds = [row.steps[index].seconds if t else math.nan for row, t in zip(rows, there, strict=True)]
        stages.append(StageSummary(step.name, spread(sre, patients, seed), spread(seconds, patients, seed)))
    return tuple(stages)


def _comparison(evaluation: Evaluation, method: str, best: str, start: str) -> Comparison:
    theirs = {(row.case, row.repeat): row.after.sre_mm for row in _picked(evaluation, best, start)}
    rows = [row for row in _picked(evaluation, method, start) if (row.case, row.repeat) in theirs]
    a = np.array([row.after.sre_mm for row in rows])
    b = np.array([theirs[row.case, row.repeat] for row in rows])
    low, high = bootstrap_interval(a - b, [row.patient for row in rows], evaluation.seed)
    return Comparison(method, best, start, len(rows), float((a - b).mean()), low, high, *paired_p_values(a, b))
