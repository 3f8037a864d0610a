"""What the evidence of networks says in words: reasons, each with what to try next, and a bound for trusted results."""

import pytest

from crossalign.models import Calibration, EvidenceTerm
from crossalign.registration.causes import CAUSES
from crossalign.registration.evidence import EVIDENCE
from crossalign.registration.network_verdict import network_expectation
from crossalign.registration.refinement import Refinement

LAST = Refinement((), None, 4.0)
GOOD = {name: 1.0 if falls else 0.0 for name, falls in EVIDENCE.items()}
BAD = {name: 0.0 if falls else 9.0 for name, falls in EVIDENCE.items()}


def calibration(*names: str) -> Calibration:
    terms = tuple(EvidenceTerm(name, 9.0, GOOD[name], 1.0, EVIDENCE[name]) for name in names)
    return Calibration(1.0, 0.0, 1.0, 6.0, terms, 1.5, 0.9)


def test_a_good_answer_is_trusted_and_has_a_bound() -> None:
    expectation, warnings = network_expectation(LAST, calibration("return_mm"), GOOD)
    assert (expectation.expected_sre_mm, expectation.trusted, expectation.reasons, warnings) == (5.0, True, (), ())
    assert (expectation.bound_mm, expectation.bound_probability) == (7.5, 0.9)
    assert expectation.bound_text() == ", under 7.5 mm with 90%"


@pytest.mark.parametrize("name", EVIDENCE)
def test_every_piece_of_evidence_has_words_and_something_to_try(name: str) -> None:
    expectation, _ = network_expectation(LAST, calibration(name), {**GOOD, name: BAD[name]})
    assert expectation.trusted is False
    (reason,) = expectation.reasons
    assert reason.startswith("its expected SRE is 14.0 mm, over the limit of 6.0 mm: ")
    (cause,) = (cause for cause in CAUSES if name in cause.names)
    assert cause.try_next in reason
    assert "--" in cause.try_next or "check" in cause.try_next
    assert (expectation.bound_mm, expectation.bound_text()) == (None, "")


@pytest.mark.parametrize("name", ["fixed_dice", "moving_dice", "information"])
def test_outside_its_domain_it_names_the_methods_that_are_for_any_pair(name: str) -> None:
    expectation, _ = network_expectation(LAST, calibration(name), BAD)
    assert "--method mind-best or mi" in " ".join(expectation.reasons)


def test_the_weightiest_causes_come_first_and_three_at_most() -> None:
    expectation, _ = network_expectation(LAST, calibration(*EVIDENCE), BAD)
    assert len(expectation.reasons) == 3
    few, _ = network_expectation(LAST, calibration("return_mm"), BAD)
    assert len(few.reasons) == 1


def test_without_evidence_the_reason_says_what_to_try() -> None:
    expectation, _ = network_expectation(LAST, Calibration(3.0, 0.0, 1.0, 6.0), {})
    (reason,) = expectation.reasons
    assert reason.startswith("its expected SRE is 7.0 mm, over the limit of 6.0 mm; begin closer")
    assert "mind-best" in reason


def test_without_a_calibration_nothing_is_judged_and_the_evidence_stays() -> None:
    expectation, _ = network_expectation(LAST, None, BAD)
    assert (expectation.expected_sre_mm, expectation.trusted, expectation.bound_mm) == (4.0, None, None)
    assert expectation.evidence == BAD
