"""Calibrations: planted coefficients come back, ranks agree with scipy, tables are read and refused."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.evaluation.toys import hand_evaluation, row

from crossalign.errors import InputError
from crossalign.evaluation import Evaluation, rows_csv, summarise, summary_csv, summary_markdown
from crossalign.evaluation.calibration import (
    expected_mm,
    fit_calibration,
    judge_calibration,
    reliability_table,
    report_lines,
    risk_coverage,
)
from crossalign.evaluation.error_estimates import ErrorEstimates, read_error_estimates
from crossalign.evaluation.evidence_fit import conformal_factor, folds_of
from crossalign.evaluation.statistics import rank_correlation
from crossalign.models import Calibration
from crossalign.registration import Expectation

FEW = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=30)


def planted(noise_mm: float, count: int = 400, seed: int = 0) -> ErrorEstimates:
    """True SRE = 1.5 + 0.8 dispersion + 1.2 network, and noise."""
    drawn = np.random.default_rng(seed)
    dispersion, network = drawn.uniform(0, 4, count), drawn.uniform(1, 6, count)
    return ErrorEstimates(
        1.5 + 0.8 * dispersion + 1.2 * network + noise_mm * drawn.standard_normal(count), dispersion, network
    )


def test_planted_coefficients_come_back() -> None:
    exact = fit_calibration(planted(0.0))
    assert (exact.base_mm, exact.per_dispersion, exact.per_network) == pytest.approx((1.5, 0.8, 1.2), abs=1e-6)
    noisy = fit_calibration(planted(0.5))
    assert (noisy.base_mm, noisy.per_dispersion, noisy.per_network) == pytest.approx((1.5, 0.8, 1.2), abs=0.15)


def test_one_column_is_enough_and_a_slope_never_falls() -> None:
    estimates = planted(0.0)
    alone = fit_calibration(replace(estimates, dispersion_mm=None))
    assert alone.per_dispersion == 0
    assert alone.per_network == pytest.approx(1.2, abs=0.1)
    assert alone.expected_sre_mm(None, 2.0) == pytest.approx(alone.base_mm + 2 * alone.per_network)
    assert estimates.dispersion_mm is not None
    backwards = fit_calibration(replace(estimates, sre_mm=10 - estimates.dispersion_mm))
    assert backwards.per_dispersion == 0


def test_the_threshold_keeps_the_fraction_that_was_asked_for_or_is_the_one_given() -> None:
    estimates = planted(0.5)
    calibration = fit_calibration(estimates, keep=0.7)
    assert (expected_mm(calibration, estimates) <= calibration.threshold_mm).mean() == pytest.approx(0.7, abs=0.01)
    assert fit_calibration(estimates, threshold_mm=4.5).threshold_mm == 4.5
    for keep in (0.0, 1.2):
        with pytest.raises(InputError, match="fraction to keep"):
            fit_calibration(estimates, keep=keep)


@settings(max_examples=30)
@given(pairs=FEW)
def test_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=np.float64).T
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert math.isnan(rank_correlation(a, b))
    else:
        assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
        assert rank_correlation(a**3, b) == pytest.approx(rank_correlation(a, b))


def test_rank_correlation_leaves_out_what_is_no_number() -> None:
    a, b = np.array([1.0, 2, 3, np.nan]), np.array([2.0, 4, 6, 0])
    assert rank_correlation(a, b) == pytest.approx(1)
    assert math.isnan(rank_correlation(a[:1], b[:1]))


def test_reliability_and_risk_by_hand() -> None:
    expected, true = np.array([4.0, 1.0, 3.0, 2.0]), np.array([9.0, 2.0, 4.0, 1.0])
    low, high = reliability_table(expected, true, 2)
    assert (low.count, low.expected_mm, low.true_mm) == (2, 1.5, 1.5)
    assert (high.count, high.expected_mm, high.true_mm) == (2, 3.5, 6.5)
    coverage, risk = risk_coverage(expected, true)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([2.0, 1.5, 7 / 3, 4.0])


def test_a_fit_judged_on_other_registrations() -> None:
    report = judge_calibration(fit_calibration(planted(0.5)), planted(0.5, seed=1))
    assert report.rank_correlation > 0.9
    assert report.trusted_sre_mm < report.untrusted_sre_mm
    for part in report.reliability:
        assert part.true_mm == pytest.approx(part.expected_mm, abs=0.3)
    assert report.risk_mm[-1] == pytest.approx(planted(0.5, seed=1).sre_mm.mean())
    text = "\n".join(report_lines(report))
    assert f"rank correlation with the true SRE: {report.rank_correlation:.3f}" in text
    assert f"{report.risk_mm[-1]:6.2f} mm" in text


def expected(index: int) -> Expectation:
    return Expectation(1.0 + index, index < 6, 0.5 * index, 2.0 * index)


def evaluation(method: str = "net") -> Evaluation:
    rows = [replace(row(f"{'ab'[i % 2]}{i}", method, 12.0, (1.0 + i,)), expectation=expected(i)) for i in range(12)]
    return Evaluation(tuple(rows), (method,), ("0-20",), 1, 0)


def test_a_table_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(rows_csv(evaluation()))
    estimates = read_error_estimates(path)
    assert estimates.sre_mm.tolist() == pytest.approx([1.0 + i for i in range(12)])
    assert estimates.dispersion_mm is not None
    assert estimates.dispersion_mm.tolist() == pytest.approx([0.5 * i for i in range(12)])
    assert judge_calibration(fit_calibration(estimates), estimates).rank_correlation == pytest.approx(1)


def test_a_table_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    header, _, lines = rows_csv(evaluation()).partition("\n")
    earlier = header.replace("initialisation", "start").replace("initial_", "start_")
    (tmp_path / "t.csv").write_text(f"{earlier}\n{lines}")
    assert read_error_estimates(tmp_path / "t.csv").sre_mm.tolist() == pytest.approx([1.0 + i for i in range(12)])


def test_tables_that_cannot_be_calibrated(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with pytest.raises(InputError, match="no such file"):
        read_error_estimates(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no registrations"):
        read_error_estimates(path)
    path.write_text(rows_csv(hand_evaluation()))
    with pytest.raises(InputError, match="several methods"):
        read_error_estimates(path)
    with pytest.raises(InputError, match="no method is called 'other'"):
        read_error_estimates(path, "other")
    with pytest.raises(InputError, match="10 registrations or more"):
        read_error_estimates(path, "still")
    silent = [replace(one, expectation=Expectation()) for one in evaluation().rows]
    path.write_text(rows_csv(replace(evaluation(), rows=tuple(silent))))
    with pytest.raises(InputError, match="nothing of their own error"):
        read_error_estimates(path)
    path.write_text(rows_csv(replace(evaluation(), rows=(*silent[:1], *evaluation().rows[1:]))))
    with pytest.raises(InputError, match="filled in some rows"):
        read_error_estimates(path)
    path.write_text(rows_csv(evaluation()).replace("4.0000", "four"))
    with pytest.raises(InputError, match="four"):
        read_error_estimates(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("4.0000", "inf"),
            r"^t\.csv, row 5, column '\w+': got 'inf', expected a finite number",
        ),
        (lambda text: text.replace("4.0000", "1_000"), r"row 5, column '\w+': got '1_000'"),
        (lambda text: text[:-20], r"^t\.csv, row 13: \d+ values, expected \d+"),
        (lambda text: text + "net\n", r"row 14: 1 values, expected"),
        (lambda text: text.replace("dispersion_mm", "sre_mm", 1), "no registrations in it: give the table"),
        (lambda text: text.replace("expected_sre_mm", "sre_mm", 1), "row 1: a column stands there twice"),
        (lambda text: text.splitlines()[0], "no registrations in it: give the table"),
        (lambda _: "", "no registrations in it: give the table"),
        (lambda text: "\0" + text, "NUL"),
        (lambda text: text.replace("net,", "net" * 40_000 + ",", 1), "holds several methods"),
    ],
)
def test_cells_that_cannot_be_read_are_named(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    (tmp_path / "t.csv").write_text(change(rows_csv(evaluation())))
    with pytest.raises(InputError, match=message) as caught:
        read_error_estimates(tmp_path / "t.csv")
    assert len(str(caught.value)) < 500


def test_a_calibration_needs_what_it_was_fitted_on() -> None:
    estimates = planted(0.0)
    with pytest.raises(InputError, match="the table has not"):
        expected_mm(Calibration(0.0, 1.0, 0.0, 5.0), replace(estimates, dispersion_mm=None))


def test_the_summary_says_what_the_expectation_is_worth() -> None:
    (summary,) = summarise(evaluation()).to_dict("records")
    assert (summary["trust_trusted"], summary["trust_untrusted"]) == (6, 6)
    assert summary["trust_rank_correlation"] == pytest.approx(1)
    assert (summary["trust_trusted_sre_mm"], summary["trust_untrusted_sre_mm"]) == pytest.approx((3.5, 9.5))
    markdown = summary_markdown(evaluation())
    assert "| net | [0, 20] mm | 6.50 | 6.50 | 1.00 | 6 | 3.50 | 6 | 9.50 |" in markdown
    assert "trust_rank_correlation" in summary_csv(evaluation())
    assert "1.0000,6.5000,6.5000,6,6,3.5000,9.5000" in summary_csv(evaluation())
    assert summarise(hand_evaluation()).trust_trusted.isna().all()
    assert "Expected error" not in summary_markdown(hand_evaluation())


def test_rows_hold_what_was_expected() -> None:
    header, first, *_ = rows_csv(evaluation()).splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True))
    assert (cells["expected_sre_mm"], cells["trusted"]) == ("1.0000", "1")
    assert (cells["dispersion_mm"], cells["network_sre_mm"]) == ("0.0000", "0.0000")
    last = dict(zip(header.split(","), rows_csv(evaluation()).splitlines()[-1].split(","), strict=True))
    assert last["trusted"] == "0"


def evidenced(count: int, seed: int) -> ErrorEstimates:
    """Registrations whose error grows with one piece of evidence; a third are failures, which another one shows."""
    drawn = np.random.default_rng(seed)
    failure = drawn.random(count) < 1 / 3
    back, network = drawn.uniform(0, 6, count), drawn.uniform(3, 6, count)
    dice = np.where(failure, drawn.uniform(0.3, 0.75, count), drawn.uniform(0.85, 0.95, count))
    typical = 2 + 0.9 * np.maximum(back - 2, 0)
    error = np.where(failure, drawn.uniform(11, 30, count), typical * drawn.lognormal(0.0, 0.25, count))
    patients = tuple(f"p{number % 40}" for number in range(count))
    evidence = {"return_mm": back, "moving_dice": dice, "unknown": drawn.random(count)}
    return ErrorEstimates(error, None, network, evidence, patients, failure)


def test_failures_are_not_trusted_and_the_bound_covers_what_it_says_on_others() -> None:
    calibration = fit_calibration(evidenced(400, 0), keep=0.95)
    assert {term.name for term in calibration.terms} == {"return_mm", "moving_dice"}
    others = evidenced(3000, 1)
    expected = expected_mm(calibration, others)
    trusted = expected <= calibration.threshold_mm
    assert others.failure is not None
    assert not trusted[others.failure].any()
    assert trusted[~others.failure].mean() == pytest.approx(0.95, abs=0.03)
    assert calibration.bound_factor is not None
    within = others.sre_mm <= calibration.bound_factor * expected
    assert within[trusted].mean() == pytest.approx(0.9, abs=0.03)
    assert rank_correlation(expected[trusted], others.sre_mm[trusted]) > 0.6


def test_the_bound_is_that_of_the_probability_that_was_asked_for() -> None:
    factors = [fit_calibration(evidenced(400, 0), probability=p).bound_factor for p in (0.6, 0.8, 0.95)]
    assert factors == sorted(factors)  # type: ignore[type-var]
    with pytest.raises(InputError, match="between 0 and 1"):
        fit_calibration(evidenced(400, 0), probability=1.0)


def test_few_registrations_are_fitted_without_evidence() -> None:
    few = evidenced(400, 0).part(np.arange(400) < 30)
    assert fit_calibration(few).terms == ()


@settings(max_examples=20)
@given(ratios=st.lists(st.floats(0.1, 5), min_size=1, max_size=60), probability=st.floats(0.05, 0.95))
def test_the_conformal_factor_is_an_order_statistic(ratios: list[float], probability: float) -> None:
    factor = conformal_factor(np.array(ratios), np.ones(len(ratios)), probability)
    if factor is None:
        assert math.ceil((len(ratios) + 1) * probability) > len(ratios)
    else:
        assert factor in ratios
        assert sum(ratio <= factor for ratio in ratios) >= (len(ratios) + 1) * probability - 1e-9


def test_registrations_of_one_patient_are_in_one_fold() -> None:
    patients = [f"p{number % 7}" for number in range(50)]
    folds = folds_of(patients)
    assert len({(name, fold) for name, fold in zip(patients, folds, strict=True)}) == 7
    assert set(folds) <= set(range(5))


def test_evidence_goes_through_the_table(tmp_path: Path) -> None:
    rows = [
        replace(one, expectation=replace(one.expectation, evidence={"return_mm": 0.25 * i} if i else {}))
        for i, one in enumerate(evaluation().rows)
    ]
    (tmp_path / "t.csv").write_text(rows_csv(replace(evaluation(), rows=tuple(rows))))
    estimates = read_error_estimates(tmp_path / "t.csv")
    assert estimates.evidence["return_mm"][1:].tolist() == pytest.approx([0.25 * i for i in range(1, 12)])
    assert estimates.evidence_of(0) == {}
    assert set(estimates.patients) == {row.patient for row in rows}
    assert estimates.failure is None
