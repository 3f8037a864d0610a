"""The tables of the papers, as cells: what stands where, before any format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from crossalign.evaluation.statistics import Spread
from crossalign.evaluation.summary import Comparison, Summary

NOTHING = "-"
NO_REGISTRATION = "no registration"


@dataclass(frozen=True)
class Cell:
    """One entry; the best of its column is bold."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """A caption, a header, rows of as many cells, and where (before which row) a rule separates groups."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    rules: tuple[int, ...] = ()


def result_table(summaries: tuple[Summary, ...]) -> Table:
    """Lay out the MICCAI paper's Table 1: the final SRE of each method, one group for each start range."""
    rows: list[tuple[Cell, ...]] = []
    rules: list[int] = []
    for group in _by_start(summaries):
        rules.append(len(rows))
        best = min((item.sre_mm.mean for item in group if not item.failed_always()), default=math.nan)
        first = group[0]
        rows.append((Cell(NO_REGISTRATION), Cell(_range(first.start)), *_result_cells(first.start_sre_mm, math.nan)))
        rows += [
            (Cell(_named(item)), Cell(""), *_result_cells(item.sre_mm, math.nan if item.failed_always() else best))
            for item in group
        ]
    header = ("Method", "Initialization", "Result SRE (mm)", "Median", "95 % interval", "n")
    return Table("Table 1. Result of each method, by start.", header, tuple(rows), tuple(rules[1:]))


def stage_table(summaries: tuple[Summary, ...], parameter_counts: Mapping[str, int]) -> Table:
    """Lay out the MICCAI paper's Table 2: SRE after each stage, trainable parameters and run time of one stage."""
    depth = max(1, *(len(summary.stages) for summary in summaries))
    rows: list[tuple[Cell, ...]] = []
    rules: list[int] = []
    for group in _by_start(summaries):
        rules.append(len(rows))
        best = [_lowest(group, index) for index in range(depth)]
        rows += [
            (
                Cell(_named(summary)),
                Cell(_range(summary.start) if summary is group[0] else ""),
                Cell(_mean_sd(summary.start_sre_mm)),
                *(_stage_cell(summary, index, best[index]) for index in range(depth)),
                Cell(_count(parameter_counts.get(summary.method))),
                Cell(_run_time(summary)),
            )
            for summary in group
        ]
    stages = tuple(f"Stage {index + 1}" for index in range(depth))
    header = ("Method", "Initial.", "Start SRE", *stages, "#Parameters", "Runtime")
    caption = "Table 2. SRE (mm) after each stage. Parameter count and run time (median) are of one stage."
    return Table(caption, header, tuple(rows), tuple(rules[1:]))


def detail_table(summaries: tuple[Summary, ...]) -> Table:
    """Lay out what the papers leave out: sizes, failures, landmarks, overlap, shares."""
    header = (
        *("Method", "Start", "n", "Patients", "Failed", "TRE before (mm)", "TRE after (mm)"),
        *("Dice before", "Dice after", "Improved", "Under 5 mm", "Seconds"),
    )
    rows = tuple(
        tuple(
            Cell(text)
            for text in (
                *(summary.method, _range(summary.start), str(summary.registrations), str(summary.patients)),
                *(str(summary.failed), _mean_sd(summary.start_tre_mm), _mean_sd(summary.tre_mm)),
                *(_mean_sd(summary.start_dice), _mean_sd(summary.dice), f"{summary.share_improved:.0%}"),
                *(f"{summary.share_under_5mm:.0%}", _mean_sd(summary.seconds)),
            )
        )
        for summary in summaries
    )
    return Table("Sizes, landmarks, overlap and failures.", header, rows)


def trust_table(summaries: tuple[Summary, ...]) -> Table:
    """Lay out what the methods' expected errors are worth, for those that expect one."""
    header = (
        *("Method", "Start", "Expected SRE (mm)", "Result SRE (mm)", "Rank correlation"),
        *("Kept", "Kept SRE (mm)", "Flagged", "Flagged SRE (mm)"),
    )
    rows = tuple(
        tuple(
            Cell(text)
            for text in (
                *(summary.method, _range(summary.start), _number(trust.expected_sre_mm)),
                *(_number(trust.sre_mm), _number(trust.rank_correlation)),
                *(str(trust.kept), _number(trust.kept_sre_mm), str(trust.flagged), _number(trust.flagged_sre_mm)),
            )
        )
        for summary in summaries
        if (trust := summary.trust) is not None
    )
    return Table("Expected error: means, rank correlation with the true SRE, kept and flagged results.", header, rows)


def comparison_table(comparisons: tuple[Comparison, ...]) -> Table:
    """Lay out each method against the best of its start range."""
    header = ("Method", "Best", "Start", "Pairs", "Difference (mm)", "95 % interval", "t-test p", "Wilcoxon p")
    rows = tuple(
        tuple(
            Cell(text)
            for text in (
                *(item.method, item.best, _range(item.start), str(item.pairs), _number(item.difference_mm)),
                *(_interval(item.low_mm, item.high_mm), p_text(item.t_p_holm), p_text(item.wilcoxon_p_holm)),
            )
        )
        for item in comparisons
    )
    return Table("Each method against the best of its start; p-values are Holm-corrected.", header, rows)


def p_text(p: float) -> str:
    """Write a p-value as papers do."""
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _by_start(summaries: tuple[Summary, ...]) -> list[list[Summary]]:
    groups: dict[str, list[Summary]] = {}
    for summary in summaries:
        groups.setdefault(summary.start, []).append(summary)
    return list(groups.values())


def _lowest(group: list[Summary], index: int) -> float:
    return min((item.stages[index].sre_mm.mean for item in group if index < len(item.stages)), default=math.nan)


def _stage_cell(summary: Summary, index: int, best: float) -> Cell:
    if index >= len(summary.stages):
        return Cell(NOTHING)
    sre = summary.stages[index].sre_mm
    return Cell(_mean_sd(sre), bold=sre.mean == best)


def _named(summary: Summary) -> str:
    return f"{summary.method} ({summary.failed} failed)" if summary.failed else summary.method


def _result_cells(sre: Spread, best_mm: float) -> tuple[Cell, ...]:
    return (
        Cell(_mean_sd(sre), sre.mean == best_mm),
        Cell(_number(sre.median)),
        Cell(_interval(sre.low, sre.high)),
        Cell(str(sre.n)),
    )


def _range(start: str) -> str:
    low, _, high = start.partition("-")
    return f"[{low}, {high}] mm" if high else f"{low} mm"


def _number(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.2f}"


def _mean_sd(sample: Spread) -> str:
    if sample.n == 0:
        return NOTHING
    return _number(sample.mean) if math.isnan(sample.sd) else f"{sample.mean:.2f} ± {sample.sd:.2f}"


def _interval(low: float, high: float) -> str:
    return NOTHING if math.isnan(low) else f"{low:.2f} to {high:.2f}"


def _count(parameters: int | None) -> str:
    return NOTHING if parameters is None else f"{parameters:,}"


def _run_time(summary: Summary) -> str:
    seconds = [stage.seconds.median for stage in summary.stages if not math.isnan(stage.seconds.median)]
    return " / ".join(f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms" for value in seconds) or NOTHING
