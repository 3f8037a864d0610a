"""Summaries and comparisons against numbers worked out by hand."""

import math
from dataclasses import replace

import pytest
from scipy import stats
from tests.evaluation.toys import hand_evaluation, row

from crossalign.evaluation import Evaluation, Row, compare_with_best, summarize
from crossalign.evaluation.summary import best_method


def test_a_summary_by_hand() -> None:
    still, net = summarize(hand_evaluation())
    assert (still.method, net.method, net.start) == ("still", "net_&_two", "0-20")
    assert (net.registrations, net.patients, net.failed) == (4, 2, 1)
    assert net.start_sre_mm.mean == still.sre_mm.mean == pytest.approx((10 + 8 + 12 + 6) / 4)
    # The failed registration from 6 mm counts with 6 mm at each stage.
    assert net.sre_mm.mean == pytest.approx((4 + 5 + 3 + 6) / 4)
    assert net.sre_mm.sd == pytest.approx(math.sqrt((0.25 + 0.25 + 2.25 + 2.25) / 3))
    assert net.sre_mm.median == pytest.approx(4.5)
    assert [stage.name for stage in net.stages] == ["s0", "s1"]
    assert [stage.sre_mm.mean for stage in net.stages] == pytest.approx([(6 + 5 + 7 + 6) / 4, 4.5])
    assert [stage.seconds.n for stage in net.stages] == [3, 3]
    assert net.seconds.n == 3
    assert net.share_improved == 0.75
    assert net.share_under_5mm == 0.5  # 5.0 is not under 5
    assert still.share_improved == 0.0
    assert net.tre_mm.mean == pytest.approx(5.5)
    assert net.dice.mean == pytest.approx(1 - 4.5 / 20)
    # Both patients' means are 4.5 mm: resampling patients cannot change the mean.
    assert (net.sre_mm.low, net.sre_mm.high) == pytest.approx((4.5, 4.5))


def test_a_comparison_by_hand() -> None:
    (comparison,) = compare_with_best(hand_evaluation())
    still, net = [10.0, 8.0, 12.0, 6.0], [4.0, 5.0, 3.0, 6.0]
    assert (comparison.method, comparison.best, comparison.pairs) == ("still", "net_&_two", 4)
    assert comparison.difference_mm == pytest.approx(4.5)
    assert comparison.t_p == comparison.t_p_holm == pytest.approx(stats.ttest_rel(still, net).pvalue)
    assert comparison.wilcoxon_p == comparison.wilcoxon_p_holm == pytest.approx(2 / 2**3)  # 3 differences, all positive


def test_pairs_are_matched_by_case_and_repeat_not_by_order() -> None:
    evaluation = hand_evaluation()
    shuffled = replace(evaluation, rows=tuple(reversed(evaluation.rows[1:])) + evaluation.rows[:1])
    assert compare_with_best(shuffled)[0].t_p == pytest.approx(compare_with_best(evaluation)[0].t_p)


def test_holm_runs_over_the_whole_table() -> None:
    ends_mm = {"best": (1.0, 2.0, 1.5, 2.5), "worse": (3.0, 4.5, 3.0, 5.0), "worst": (6.0, 9.0, 7.0, 9.0)}
    rows: list[Row] = []
    for start in ("8", "16"):
        for index in range(4):
            case = f"{index}c"
            rows += [replace(row(case, name, 10.0, (mm[index],)), start=start) for name, mm in ends_mm.items()]
    comparisons = compare_with_best(Evaluation(tuple(rows), tuple(ends_mm), ("8", "16"), 1, 0))
    assert [(item.start, item.method) for item in comparisons] == [
        *(("8", "worse"), ("8", "worst"), ("16", "worse"), ("16", "worst")),
    ]
    largest = max(item.t_p for item in comparisons)
    smallest = min(item.t_p for item in comparisons)
    assert max(item.t_p_holm for item in comparisons) == pytest.approx(max(2 * largest, 4 * smallest))
    assert min(item.t_p_holm for item in comparisons) == pytest.approx(4 * smallest)


def test_a_method_that_never_ran_is_not_the_best() -> None:
    rows = tuple(r for c in ("a", "b") for r in (row(c, "bad", 5.0, (), error="no"), row(c, "worse", 5.0, (9.0,))))
    evaluation = Evaluation(rows, ("bad", "worse"), ("0-20",), 1, 0)
    assert best_method(evaluation, "0-20") == "worse"
    assert [summary.failed_always() for summary in summarize(evaluation)] == [True, False]
    assert math.isnan(summarize(evaluation)[0].seconds.mean)


def test_one_registration_is_summarised_without_intervals() -> None:
    (summary,) = summarize(Evaluation((row("a", "m", 8.0, (2.0,)),), ("m",), ("0-20",), 1, 0))
    assert (summary.sre_mm.n, summary.sre_mm.mean) == (1, 2.0)
    assert math.isnan(summary.sre_mm.sd)
    assert math.isnan(summary.sre_mm.low)
    assert compare_with_best(Evaluation((row("a", "m", 8.0, (2.0,)),), ("m",), ("0-20",), 1, 0)) == ()
