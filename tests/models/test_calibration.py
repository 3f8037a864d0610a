"""Calibrations with evidence: worse evidence never expects less, old files load, bounds go with a probability."""

import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossalign.errors import InputError
from crossalign.fields import settings_of
from crossalign.models import Calibration, EvidenceTerm

VALUES = st.floats(-50, 50)
TERMS = (EvidenceTerm("return_mm", 0.8, 3.0, 10.0), EvidenceTerm("moving_dice", 12.0, 0.9, 0.5, falls=True))
FULL = Calibration(2.0, 0.1, 0.4, 7.0, TERMS, 1.6, 0.9)


@given(slope=st.floats(0, 5), beyond=VALUES, value=VALUES, worse=st.floats(0, 20), falls=st.booleans())
def test_worse_evidence_never_means_a_smaller_expected_error(
    slope: float, beyond: float, value: float, worse: float, falls: bool
) -> None:
    calibration = Calibration(3.0, 0.0, 0.0, 5.0, (EvidenceTerm("some", slope, beyond, 8.0, falls),))
    before, after = (
        calibration.expected_sre_mm(None, None, {"some": one})
        for one in (value, value - worse if falls else value + worse)
    )
    assert before is not None
    assert after is not None
    assert 3.0 <= before <= after <= 3.0 + 8.0 * slope + 1e-9


def test_the_sum_by_hand_and_what_adds_most() -> None:
    evidence = {"return_mm": 5.0, "moving_dice": 0.6, "unknown": 1.0}
    assert FULL.expected_sre_mm(2.0, 5.0, evidence) == pytest.approx(2 + 0.2 + 2.0 + 1.6 + 3.6)
    assert FULL.weightiest(evidence, 0.5) == ("moving_dice", "return_mm")
    assert FULL.weightiest(evidence, 2.0) == ("moving_dice",)
    assert FULL.bound_mm(5.0) == pytest.approx(8.0)


def test_evidence_that_is_missing_adds_nothing_and_one_that_is_no_number_the_most() -> None:
    assert FULL.expected_sre_mm(0.0, 0.0) == 2.0
    assert FULL.expected_sre_mm(0.0, 0.0, {"return_mm": math.nan}) == pytest.approx(2 + 8.0)


def test_it_survives_json_and_an_earlier_one_is_read() -> None:
    assert settings_of(Calibration, json.loads(json.dumps(asdict(FULL)))) == FULL
    earlier = {"base_mm": 1.74, "per_dispersion": 0.0, "per_network": 0.92, "threshold_mm": 5.7}
    read = settings_of(Calibration, earlier)
    assert (read.terms, read.bound_factor, read.bound_mm(4.0)) == ((), None, None)
    assert read.expected_sre_mm(None, 4.0, {"return_mm": 99.0}) == pytest.approx(1.74 + 0.92 * 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EvidenceTerm("return_mm", -1.0, 0.0, 1.0), "'return_mm' needs a slope of 0 or more"),
        (lambda: EvidenceTerm("return_mm", 1.0, 0.0, 0.0), "largest over 0"),
        (lambda: EvidenceTerm("return_mm", math.nan, 0.0, 1.0), "finite numbers"),
        (lambda: replace(FULL, bound_probability=None), "both a factor and a probability"),
        (lambda: replace(FULL, bound_probability=1.0), "probability between 0 and 1"),
        (lambda: replace(FULL, bound_factor=0.0), "factor over 0"),
        (lambda: replace(FULL, bound_factor=math.nan), "factor over 0"),
    ],
)
def test_bad_numbers_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
