"""Initial transforms: exactly as far as asked, and the same for ever."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.toys import toy_case

from crossalign.errors import InputError
from crossalign.evaluation import (
    InitialisationRange,
    draw_initialisations,
    parse_initialisations,
    surface_registration_error_mm,
)
from crossalign.evaluation.initialisations import initialisation_title
from crossalign.geometry import Rigid

CASE = toy_case()
GOLDEN = [2.798599, -1.508164, -0.335525, -0.619544, -4.526737, -1.157258]  # mm, degrees
ends_mm = st.floats(0, 25).map(lambda value: round(value, 3))
ranges = st.tuples(ends_mm, ends_mm).map(lambda ends: InitialisationRange(min(ends), max(ends)))


def sre_mm(start: Rigid) -> float:
    return surface_registration_error_mm(start, CASE.fixed_to_moving, CASE.surface_mm)


def matrices(transforms: tuple[Rigid, ...]) -> torch.Tensor:
    return torch.stack([one.matrix() for one in transforms])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8", (8, 8)), ("16", (16, 16)), ("0-20", (0, 20)), (" 2.5 - 7 ", (2.5, 7)), ("0", (0, 0)), ("3-3", (3, 3))],
)
def test_parse(text: str, expected: tuple[float, float]) -> None:
    assert InitialisationRange.parse(text) == InitialisationRange(*map(float, expected))


@given(ranges)
def test_text_reads_back(initial_range: InitialisationRange) -> None:
    assert InitialisationRange.parse(str(initial_range)) == initial_range


def test_text_is_as_short_as_the_papers() -> None:
    assert [str(start) for start in parse_initialisations("8, 16,0-20,0.001-3.50")] == ["8", "16", "0-20", "0.001-3.5"]


@pytest.mark.parametrize("text", ["", "far", "-8", "20-0", "1-2-3", "nan", "inf", "0-inf", "8mm"])
def test_what_is_no_initialisation_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="8, 16 or 0-20"):
        InitialisationRange.parse(text)


@pytest.mark.parametrize(("text", "message"), [(" , ", "no initialisation between"), ("8,16,8.0", "8 is given twice")])
def test_what_is_no_list_of_initialisations_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_initialisations(text)


@given(ranges, st.integers(-5, 10**9))
def test_an_initial_transform_lies_in_its_range(initial_range: InitialisationRange, seed: int) -> None:
    for start in draw_initialisations(CASE, initial_range, 2, seed):
        assert initial_range.low_mm - 0.01 <= sre_mm(start) <= initial_range.high_mm + 0.01


def test_a_range_is_filled_evenly() -> None:
    reached = sorted(sre_mm(start) for start in draw_initialisations(CASE, InitialisationRange(0.0, 20.0), 100, 3))
    uniform = [20 * (index + 0.5) / 100 for index in range(100)]
    assert max(abs(a - b) for a, b in zip(reached, uniform, strict=True)) < 20 * 0.14  # Kolmogorov-Smirnov, p = 0.04


def test_an_initial_transform_depends_on_seed_case_range_and_index_alone() -> None:
    eight = InitialisationRange(8.0, 8.0)
    first = matrices(draw_initialisations(CASE, eight, 5, 0))
    torch.testing.assert_close(matrices(draw_initialisations(CASE, eight, 5, 0)), first, atol=0, rtol=0)
    torch.testing.assert_close(matrices(draw_initialisations(CASE, eight, 2, 0)), first[:2], atol=0, rtol=0)
    others = [
        *first[1:],
        draw_initialisations(CASE, eight, 1, 1)[0].matrix(),
        draw_initialisations(toy_case("another"), eight, 1, 0)[0].matrix(),
        draw_initialisations(CASE, InitialisationRange(8.0, 8.001), 1, 0)[0].matrix(),
    ]
    assert all(float((other - first[0]).abs().max()) > 0.01 for other in others)


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    draw_initialisations(CASE, InitialisationRange(0.0, 20.0), 1, 0)
    assert bool((torch.random.get_rng_state() == before).all())


def test_initial_transforms_have_not_changed_since_tables_were_made_from_them() -> None:
    start = draw_initialisations(CASE, InitialisationRange(0.0, 20.0), 1, 0)[0]
    motion = (CASE.fixed_to_moving.inverse() @ start).to_parameters(CASE.fixed_mask.centroid_mm())
    torch.testing.assert_close(motion, torch.tensor(GOLDEN).double(), atol=1e-4, rtol=0)


def test_none_is_refused() -> None:
    with pytest.raises(InputError, match="1 initialisation or more"):
        draw_initialisations(CASE, InitialisationRange(8.0, 8.0), 0, 0)


@pytest.mark.parametrize(
    ("text", "title"),
    [("8", "8 mm"), ("0-20", "[0, 20] mm"), ("masks", "masks"), ("mask-center", "mask-center"), ("center", "center")],
)
def test_an_initialisation_is_titled_with_its_unit_where_it_has_one(text: str, title: str) -> None:
    assert initialisation_title(text) == title
