"""Holm, paired tests, the bootstrap by patient: against hand-worked values, scipy and a slow twin."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from crossalign.evaluation.statistics import MeanSd, bootstrap_interval, holm, paired_p_values

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()


def test_holm_leaves_out_what_is_undefined() -> None:
    corrected = holm([0.02, math.nan, 0.03])
    assert corrected[0] == pytest.approx(0.04)
    assert math.isnan(corrected[1])
    assert corrected[2] == pytest.approx(0.04)


@given(probabilities)
def test_holm_lies_between_nothing_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p) + 1e-15
    in_order = [corrected[index] for index in np.argsort(p_values)]
    assert in_order == sorted(in_order)


@given(probabilities, st.floats(0.01, 0.2))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    rejected: set[int] = set()
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        if (len(p_values) - rank) * p_values[index] > level:
            break
        rejected.add(index)
    assert {index for index, q in enumerate(holm(p_values)) if q <= level} == rejected


def test_paired_tests_by_hand() -> None:
    b = np.array([3.0, 1.0, 4.0, 1.5, 5.0])
    t_p, wilcoxon_p = paired_p_values(b + np.array([1.0, 2.0, 3.0, 4.0, 5.0]), b)
    t = 3.0 / (math.sqrt(2.5) / math.sqrt(5.0))  # mean, sd and size of the differences
    assert t_p == pytest.approx(2 * stats.t.sf(t, df=4))
    assert wilcoxon_p == pytest.approx(2 / 2**5)  # all five signs agree


def test_paired_tests_pair() -> None:
    a = np.arange(20.0) ** 2
    t_p, wilcoxon_p = paired_p_values(a + 1 + 0.01 * np.arange(20), a)
    assert t_p < 1e-10
    assert wilcoxon_p < 1e-4
    assert stats.ttest_ind(a + 1, a).pvalue > 0.9


def test_tests_that_are_undefined_are_nan() -> None:
    a = np.array([1.0, 2.0, 3.0])
    assert all(math.isnan(p) for p in paired_p_values(a, a))
    t_p, wilcoxon_p = paired_p_values(a + 1, a)
    assert math.isnan(t_p)
    assert wilcoxon_p == pytest.approx(0.25)
    assert math.isnan(paired_p_values(a[:1], a[:1] + 1)[0])
    assert all(math.isnan(p) for p in paired_p_values(a[:0], a[:0]))


def test_bootstrap_agrees_with_its_slow_twin() -> None:
    values, patients = np.array([1.0, 2.0, 7.0, 4.0, 4.5, 9.0]), ["a", "a", "b", "c", "c", "c"]
    groups = [[1.0, 2.0], [7.0], [4.0, 4.5, 9.0]]
    drawn = np.random.default_rng(5).integers(3, size=(300, 3))
    means = [np.mean([value for index in line for value in groups[index]]) for line in drawn]
    expected = np.quantile(means, (0.025, 0.975))
    assert bootstrap_interval(values, patients, 5, resamples=300) == pytest.approx(expected.tolist())


def test_more_initialisations_of_the_same_patients_do_not_narrow_the_interval() -> None:
    values, patients = np.array([1.0, 5.0, 3.0, 8.0]), ["a", "b", "c", "d"]
    once = bootstrap_interval(values, patients, 0)
    assert bootstrap_interval(np.tile(values, 10), patients * 10, 0) == pytest.approx(once)
    assert once[0] < 4.25 < once[1]


def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        sample = generator.normal(10.0, 2.0, size=30)
        low, high = bootstrap_interval(sample, [str(index) for index in range(30)], 0, resamples=400)
        hits += low < 10 < high
    assert 87 <= hits <= 99


def test_one_patient_gives_no_interval() -> None:
    assert all(math.isnan(end) for end in bootstrap_interval(np.array([1.0, 2.0]), ["a", "a"], 0))


def test_mean_and_sd_leave_out_nan_and_are_nan_where_there_is_nothing() -> None:
    found = MeanSd.of([1.0, math.nan, 3.0, 8.0], ["a", "a", "b", "c"], 0)
    assert (found.mean, found.median) == (4.0, 3.0)
    assert found.sd == pytest.approx(math.sqrt(13))
    assert found.low == pytest.approx(1.0)
    assert found.high == pytest.approx(8.0)
    assert math.isnan(MeanSd.of([math.nan], ["a"], 0).mean)
    assert math.isnan(MeanSd.of([2.0], ["a"], 0).sd)
