"""Centre and rotation apart: a known motion gives exactly its own numbers, along the axes that were asked for."""

import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.toys import REFERENCE, Toy, hand_evaluation, rigid, toy_case
from tests.geometry.strategies import rotations

from crossalign.errors import InputError
from crossalign.evaluation import (
    ErrorParts,
    error_parts,
    evaluate,
    parse_initialisations,
    part_plots,
    rows_csv,
    scores_of,
    summarise,
    summary_markdown,
)
from crossalign.evaluation.error_parts import axes_text
from crossalign.geometry import Grid, Rigid, axis_orientations, quarter_turn
from crossalign.images import Image, LabelMap

CASE = toy_case()
CENTER = CASE.fixed_mask.centroid_mm()
shifts = st.tuples(*[st.floats(-30, 30)] * 3)


def off_by(shift: tuple[float, float, float], rotation: torch.Tensor) -> Rigid:
    """Move the fixed structure's centre by a shift, turn the structure about it, and map it by the reference."""
    shift_mm = torch.tensor(shift, dtype=torch.float64)
    return REFERENCE @ Rigid(rotation, CENTER + shift_mm - rotation @ CENTER)


@given(shifts, rotations())
def test_a_motion_of_the_structure_is_its_own_error(shift: tuple[float, float, float], rotation: torch.Tensor) -> None:
    parts = error_parts(off_by(shift, rotation), CASE)
    assert parts.center_mm == pytest.approx(shift, abs=1e-8)
    assert parts.distance_mm == pytest.approx(math.dist(shift, (0, 0, 0)), abs=1e-8)
    angle = float(Rigid(rotation, torch.zeros(3).double()).angle_deg())
    assert parts.angle_deg == pytest.approx(angle, abs=1e-5)


@given(shifts, rotations(), st.integers(0, 23))
def test_only_the_centres_error_turns_with_the_patients_axes(
    shift: tuple[float, float, float], rotation: torch.Tensor, way: int
) -> None:
    ways = axis_orientations().double()
    fixed_to_patient = ways[torch.linalg.det(ways) > 0][way]
    plain = error_parts(off_by(shift, rotation), CASE)
    turned = error_parts(off_by(shift, rotation), CASE, fixed_to_patient)
    expected = fixed_to_patient @ torch.tensor(plain.center_mm, dtype=torch.float64)
    assert turned.center_mm == pytest.approx(expected.tolist(), abs=1e-9)
    assert turned.angle_deg == plain.angle_deg
    assert turned.distance_mm == pytest.approx(plain.distance_mm)


def test_a_quarter_turn_takes_the_headers_left_for_anterior() -> None:
    """Where the header's -x is really posterior, as in the published pairs, its +x (left) is anterior."""
    parts = error_parts(off_by((2.0, 0.0, 0.0), torch.eye(3).double()), CASE, quarter_turn(3))
    assert parts.center_mm == pytest.approx((0.0, -2.0, 0.0))


@given(rotations())
def test_a_common_rotation_of_both_worlds_changes_nothing(turn: torch.Tensor) -> None:
    """The axes are the fixed image's own, so they turn with it; a large turn may exchange their names."""
    world = Rigid(turn, torch.tensor([5.0, -3.0, 8.0]).double())
    direction = (world.rotation @ torch.tensor(CASE.fixed.grid.direction).double()).tolist()
    (x, y, z) = world.apply(torch.tensor([CASE.fixed.grid.origin_mm]).double())[0].tolist()
    (a, b, c) = (tuple(row) for row in direction)
    grid = Grid(CASE.fixed.grid.shape, CASE.fixed.grid.spacing_mm, (x, y, z), (a, b, c))
    moved = replace(
        CASE,
        fixed=Image(CASE.fixed.voxels, grid, "fixed"),
        fixed_mask=LabelMap(CASE.fixed_mask.labels, grid, "gland"),
        fixed_to_moving=REFERENCE @ world.inverse(),
    )
    answer = off_by(
        (1.0, -4.0, 2.5), Rigid.from_parameters(torch.tensor([0, 0, 0, 3.0, 2, 1]).double(), CENTER).rotation
    )
    here, there = error_parts(answer, CASE), error_parts(answer @ world.inverse(), moved)
    assert there.angle_deg == pytest.approx(here.angle_deg, abs=1e-5)
    assert sorted(map(abs, there.center_mm)) == pytest.approx(sorted(map(abs, here.center_mm)), abs=1e-6)
    if float(world.angle_deg()) < 35:
        assert there.center_mm == pytest.approx(here.center_mm, abs=1e-6)


def test_rows_tables_and_summary_say_the_same() -> None:
    motion = rigid(3.0, -1.0, 0.5, 0.0, 0.0, 9.0)
    turned = quarter_turn(1)
    evaluation = evaluate(
        [toy_case("a", "p"), toy_case("b", "q")],
        {"off": Toy((motion,)), "oracle": Toy()},
        parse_initialisations("6"),
        2,
        fixed_to_patient=turned,
    )
    lines = list(csv.DictReader(io.StringIO(rows_csv(evaluation))))
    for line, row in zip(lines, evaluation.rows, strict=True):
        parts = row.after.parts
        assert parts is not None
        assert float(line["center_error_left_mm"]) == pytest.approx(parts.center_mm[0], abs=1e-3)
        assert float(line["initial_center_error_mm"]) == pytest.approx(
            math.dist(
                [float(line[f"initial_center_error_{axis}_mm"]) for axis in ("left", "posterior", "superior")], [0] * 3
            ),
            abs=1e-3,
        )
        if row.method == "off":
            assert parts.angle_deg == pytest.approx(9.0)
            expected = turned @ torch.tensor([3.0, -1.0, 0.5]).double()
            rounded = error_parts(REFERENCE @ motion, toy_case(), turned).center_mm
            assert parts.center_mm == pytest.approx(rounded)
            assert parts.center_mm == pytest.approx(expected.tolist(), abs=0.1)  # the mask's centroid is near CENTER_MM
    table = summarise(evaluation).set_index("method")
    assert table.loc["off", "center_error_left_mm_mean"] > 0
    assert table.loc["off", "center_error_left_abs_mm_mean"] == abs(table.loc["off", "center_error_left_mm_mean"])
    assert table.loc["off", "angle_error_deg_mean"] == pytest.approx(9.0)
    assert table.loc["oracle", "center_error_mm_mean"] == pytest.approx(0.0, abs=1e-9)
    text = summary_markdown(evaluation)
    assert "Centre and rotation apart." in text
    assert text.count("| no registration |") == 2
    assert "call L, P, S is taken for P, R, S" in text


def test_signs_cancel_in_the_bias_and_not_in_the_size() -> None:
    evaluation = hand_evaluation()
    errors = iter([(3.0, 0.0, 0.0), (-1.0, 0.0, 0.0)] * 4)
    rows = tuple(
        replace(row, after=replace(row.after, parts=ErrorParts(next(errors), 4.0)), method="m")
        for row in evaluation.rows
    )
    (record,) = summarise(replace(evaluation, rows=rows, methods=("m",))).to_dict("records")
    assert record["center_error_left_mm_mean"] == pytest.approx(1.0)
    assert record["center_error_left_abs_mm_mean"] == pytest.approx(2.0)
    assert record["center_error_mm_mean"] == pytest.approx(2.0)
    assert np.isnan(record["initial_center_error_mm_mean"])


def test_what_was_not_measured_is_left_out_of_the_tables() -> None:
    assert "Centre and rotation" not in summary_markdown(hand_evaluation())
    (panel, *_) = part_plots(hand_evaluation()).axes
    assert len(panel.get_xticklabels()) == 3


def test_a_picture_of_the_parts_has_a_panel_for_each_axis_and_one_for_the_angle() -> None:
    evaluation = evaluate([toy_case()], {"oracle": Toy()}, parse_initialisations("4,8"), 3)
    panels = part_plots(evaluation).axes
    assert len(panels) == 2 * 4
    assert [panel.get_title() for panel in panels[:4]] == [
        "centre to left (mm)",
        "centre to posterior (mm)",
        "centre to superior (mm)",
        "rotation (deg)",
    ]


def test_what_is_no_rotation_is_refused() -> None:
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0]).double())
    for wrong in (mirror, 2 * torch.eye(3).double()):
        with pytest.raises(InputError, match="must be a rotation"):
            evaluate([CASE], [Toy()], "4", 1, fixed_to_patient=wrong)


def test_axes_are_named_in_words() -> None:
    assert "as their headers name them" in axes_text(None)
    assert axes_text(torch.eye(3)) == axes_text(None)
    assert axes_text(quarter_turn(3)).endswith("call L, P, S is taken for A, L, S")


def test_scores_carry_the_parts() -> None:
    parts = scores_of(CASE, REFERENCE).parts
    assert parts is not None
    assert parts.center_mm == pytest.approx((0, 0, 0), abs=1e-9)
    assert parts.angle_deg == pytest.approx(0, abs=1e-5)
