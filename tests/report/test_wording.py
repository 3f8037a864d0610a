import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossalign.geometry import Rigid
from crossalign.report.wording import Motion

ORIGIN = torch.zeros(3, dtype=torch.float64)
FINITE = st.floats(-30, 30)


def motion(*parameters: float) -> Motion:
    return Motion.of(Rigid.from_parameters(torch.tensor(parameters, dtype=torch.float64), ORIGIN), ORIGIN)


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ((5.1, 0, 0), "5.1 mm to the patient's left"),
        ((-5.1, 0, 0), "5.1 mm to the patient's right"),
        ((0, 2, 0), "2.0 mm towards the back"),
        ((0, -2, 0), "2.0 mm towards the front"),
        ((0, 0, 3), "3.0 mm towards the head"),
        ((0, 0, -3), "3.0 mm towards the feet"),
        ((1, 0, -3), "3.0 mm towards the feet, 1.0 mm to the patient's left"),
        ((0, 0.01, 0), "less than 0.1 along each axis"),
    ],
)
def test_shifts_are_named_after_lps(shift: tuple[float, ...], words: str) -> None:
    assert motion(*shift, 0, 0, 0).moved_parts() == words


# Where a turn takes the head end (S) or the front (A) of the patient, by the words.
@pytest.mark.parametrize(
    ("turn", "words", "start", "towards"),
    [
        ((10, 0, 0), "tipping the head end towards the front", (0, 0, 1), (0, -1, 0)),
        ((-10, 0, 0), "tipping the head end towards the back", (0, 0, 1), (0, 1, 0)),
        ((0, 10, 0), "tipping the head end towards the left", (0, 0, 1), (1, 0, 0)),
        ((0, -10, 0), "tipping the head end towards the right", (0, 0, 1), (-1, 0, 0)),
        ((0, 0, 10), "turning the front towards the left", (0, -1, 0), (1, 0, 0)),
        ((0, 0, -10), "turning the front towards the right", (0, -1, 0), (-1, 0, 0)),
    ],
)
def test_turns_say_what_they_do(turn, words, start, towards) -> None:
    rigid = Rigid.from_parameters(torch.tensor((0, 0, 0, *turn), dtype=torch.float64), ORIGIN)
    moved = rigid.apply(torch.tensor([start], dtype=torch.float64))[0]
    assert float(moved @ torch.tensor(towards, dtype=torch.float64)) == pytest.approx(math.sin(math.radians(10)))
    found = Motion.of(rigid, ORIGIN)
    assert found.turned_parts() == f"10.0° {words}"
    assert found.turned() == "10.0°"
    assert found.moved() == ""


@given(st.tuples(FINITE, FINITE, FINITE, FINITE, FINITE, FINITE))
def test_lengths_are_those_of_the_transform(parameters: tuple[float, ...]) -> None:
    rigid = Rigid.from_parameters(torch.tensor(parameters, dtype=torch.float64), ORIGIN)
    found = Motion.of(rigid, ORIGIN)
    assert found.distance_mm == pytest.approx(math.hypot(*parameters[:3]), abs=1e-9)
    assert found.angle_deg == pytest.approx(float(rigid.angle_deg()), abs=1e-6)


@pytest.mark.parametrize("axis", [(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (0.6, 0, 0.8)])
def test_half_a_turn_has_an_axis(axis: tuple[float, ...]) -> None:
    unit = torch.tensor(axis, dtype=torch.float64)
    half_turn = Rigid(2 * torch.outer(unit, unit) - torch.eye(3, dtype=torch.float64), ORIGIN)
    vector = torch.tensor(Motion.of(half_turn, ORIGIN).turn_deg, dtype=torch.float64)
    assert float((vector @ unit).abs()) == pytest.approx(180, abs=1e-4)
