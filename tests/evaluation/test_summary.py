"""Summaries and comparisons, by hand."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from scipy import stats
from tests.evaluation.toys import hand_evaluation, row

from crossalign.evaluation import Evaluation, Row, compare_with_best, summarise


def by_method(evaluation: Evaluation) -> dict[str, pd.Series]:
    return {record["method"]: record for _, record in summarise(evaluation).iterrows()}


def test_a_summary_by_hand() -> None:
    summaries = by_method(hand_evaluation())
    assert list(summaries) == ["still", "net_&_two"]
    still, net = summaries.values()
    assert net.initialisation == "0-20"
    assert (net.n, net.patients, net.failed) == (4, 2, 1)
    assert net.initial_sre_mm_mean == still.sre_mm_mean == pytest.approx((10 + 8 + 12 + 6) / 4)
    # The failed registration from 6 mm counts with 6 mm at each stage.
    assert net.sre_mm_mean == pytest.approx((4 + 5 + 3 + 6) / 4)
    assert net.sre_mm_sd == pytest.approx(math.sqrt((0.25 + 0.25 + 2.25 + 2.25) / 3))
    assert net.sre_mm_median == pytest.approx(4.5)
    assert [net.stage_1_sre_mm_mean, net.stage_2_sre_mm_mean] == pytest.approx([(6 + 5 + 7 + 6) / 4, 4.5])
    assert math.isnan(still.stage_2_sre_mm_mean)
    assert (net.stage_1_seconds_median, net.stage_2_seconds_median) == pytest.approx((0.01, 0.02))
    assert net.fraction_improved == 0.75
    assert net.fraction_under_5mm == 0.5  # 5.0 is not under 5
    assert still.fraction_improved == 0.0
    assert net.tre_mm_mean == pytest.approx(5.5)
    assert net.dice_mean == pytest.approx(1 - 4.5 / 20)
    # Both patients' means are 4.5 mm: resampling patients cannot change the mean.
    assert (net.sre_mm_low, net.sre_mm_high) == pytest.approx((4.5, 4.5))
    assert still.best == "net_&_two"
    assert pd.isna(net.best)


def test_a_comparison_by_hand() -> None:
    (comparison,) = compare_with_best(hand_evaluation()).to_dict("records")
    still, net = [10.0, 8.0, 12.0, 6.0], [4.0, 5.0, 3.0, 6.0]
    assert (comparison["method"], comparison["best"], comparison["pairs"]) == ("still", "net_&_two", 4)
    assert comparison["against_best_difference_mm"] == pytest.approx(4.5)
    t_p, wilcoxon_p = comparison["against_best_t_p"], comparison["against_best_wilcoxon_p"]
    assert t_p == comparison["against_best_t_p_holm"] == pytest.approx(stats.ttest_rel(still, net).pvalue)
    assert wilcoxon_p == pytest.approx(2 / 2**3)  # 3 differences, all positive
    assert comparison["against_best_wilcoxon_p_holm"] == wilcoxon_p


def test_pairs_are_matched_by_case_and_repeat_not_by_order() -> None:
    evaluation = hand_evaluation()
    shuffled = replace(evaluation, rows=tuple(reversed(evaluation.rows[1:])) + evaluation.rows[:1])
    expected = compare_with_best(evaluation).against_best_t_p[0]
    assert compare_with_best(shuffled).against_best_t_p[0] == pytest.approx(expected)


def test_holm_runs_over_the_whole_table() -> None:
    ends_mm = {"best": (1.0, 2.0, 1.5, 2.5), "worse": (3.0, 4.5, 3.0, 5.0), "worst": (6.0, 9.0, 7.0, 9.0)}
    rows: list[Row] = []
    for initialisation in ("8", "16"):
        for index in range(4):
            made = {name: row(f"{index}c", name, 10.0, (mm[index],)) for name, mm in ends_mm.items()}
            rows += [replace(one, initialisation=initialisation) for one in made.values()]
    found = compare_with_best(Evaluation(tuple(rows), tuple(ends_mm), ("8", "16"), 1, 0))
    pairs = list(zip(found.initialisation, found.method, strict=True))
    assert pairs == [("8", "worse"), ("8", "worst"), ("16", "worse"), ("16", "worst")]
    p, corrected = found.against_best_t_p, found.against_best_t_p_holm
    assert corrected.max() == pytest.approx(max(2 * p.max(), 4 * p.min()))
    assert corrected.min() == pytest.approx(4 * p.min())


def test_a_method_that_never_ran_is_not_the_best() -> None:
    rows = tuple(r for c in ("a", "b") for r in (row(c, "bad", 5.0, (), error="no"), row(c, "worse", 5.0, (9.0,))))
    evaluation = Evaluation(rows, ("bad", "worse"), ("0-20",), 1, 0)
    assert compare_with_best(evaluation).best.tolist() == ["worse"]
    summaries = by_method(evaluation)
    assert [summary.failed == summary.n for summary in summaries.values()] == [True, False]
    assert math.isnan(summaries["bad"].seconds_mean)


def test_one_registration_is_summarised_without_intervals() -> None:
    evaluation = Evaluation((row("a", "m", 8.0, (2.0,)),), ("m",), ("0-20",), 1, 0)
    summary = by_method(evaluation)["m"]
    assert (summary.n, summary.sre_mm_mean) == (1, 2.0)
    assert math.isnan(summary.sre_mm_sd)
    assert math.isnan(summary.sre_mm_low)
    assert len(compare_with_best(evaluation)) == 0
