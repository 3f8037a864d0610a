"""The protocol with methods whose outcome is known."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.evaluation.toys import REFERENCE, Crashing, Toy, rigid, toy_case, written_case

from crossalign.data import Case, LoadedCase, load_case
from crossalign.errors import ImageError, InputError, OverlapError
from crossalign.evaluation import Evaluation, Row, evaluate, parse_initialisations, protocol, scores_of
from crossalign.geometry import Grid, Rigid
from crossalign.registration import Identity, Method

RANGES = parse_initialisations("4,0-8")
NEAR = rigid(3.0, 0.0, 0.0, 0.0, 0.0, 0.0)
NOT_A_NUMBER = Rigid(torch.full((3, 3), math.nan).double(), torch.zeros(3).double())


def of(evaluation: Evaluation, method: str) -> list[Row]:
    return [row for row in evaluation.rows if row.method == method]


def test_rows_come_in_order_with_who_and_where_from() -> None:
    cases = [toy_case("one", "p1"), toy_case("two", "p2")]
    evaluation = evaluate(cases, {"a": Identity(), "b": Toy()}, RANGES, 2, 5)
    keys = [(row.case, row.initialisation, row.repeat, row.method) for row in evaluation.rows]
    expected = [(c, s, r, m) for c in ("one", "two") for s in ("4", "0-8") for r in (0, 1) for m in ("a", "b")]
    assert keys == expected
    assert {(row.case, row.patient, row.split) for row in evaluation.rows} == {
        ("one", "p1", "val"),
        ("two", "p2", "val"),
    }
    assert (evaluation.methods, evaluation.initialisations, evaluation.count, evaluation.seed) == (
        ("a", "b"),
        ("4", "0-8"),
        2,
        5,
    )
    assert evaluation.settings == {"a": {}, "b": {"steps": "1"}}
    assert evaluation.failed() == ()


def test_identity_ends_where_it_began() -> None:
    for row in evaluate([toy_case()], {"identity": Identity()}, RANGES, 3, 0).rows:
        assert row.after == row.before
        assert [step.sre_mm for step in row.steps] == [row.before.sre_mm]
        assert row.initialisation == "0-8" or row.before.sre_mm == pytest.approx(4.0, abs=0.01)


def test_the_truth_scores_what_the_case_allows() -> None:
    for row in evaluate([toy_case()], {"oracle": Toy(warnings=("far",))}, RANGES, 2, 0).rows:
        assert row.after.sre_mm == pytest.approx(0.0, abs=1e-9)
        assert row.after.tre_mm == pytest.approx(2.0)  # planted in the landmarks
        assert row.after.dice > max(0.9, row.before.dice)
        assert row.warnings == ("far",)


def test_every_stage_is_measured() -> None:
    (row,) = evaluate([toy_case()], {"two": Toy((NEAR, rigid(*[0.0] * 4, 0.0, 0.0)))}, RANGES[:1], 1).rows
    assert [step.name for step in row.steps] == ["step0", "step1"]
    assert [step.sre_mm for step in row.steps] == pytest.approx([3.0, 0.0], abs=1e-9)
    assert [step.seconds for step in row.steps] == [0.25, 0.5]
    assert row.after.sre_mm == pytest.approx(0.0, abs=1e-9)
    assert row.seconds >= 0


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Crashing(), "ZeroDivisionError: it broke"),
        (Crashing(OverlapError("the initial transform is off")), "the initial transform is off"),
        (Crashing(RuntimeError()), "RuntimeError: no message"),
        (Toy((NOT_A_NUMBER,)), "NaN"),
    ],
)
def test_a_failure_becomes_a_row_with_the_initial_numbers(method: Method, message: str) -> None:
    evaluation = evaluate([toy_case()], {"good": Toy(), "bad": method}, RANGES[:1], 2, 0)
    assert len(evaluation.rows) == 4
    for good, bad in zip(of(evaluation, "good"), of(evaluation, "bad"), strict=True):
        assert message in bad.error
        assert "\n" not in bad.error
        assert (bad.before, bad.after, bad.steps) == (good.before, good.before, ())
        assert good.error == ""
    assert evaluation.failed() == tuple(of(evaluation, "bad"))


def test_an_initial_transform_without_overlap_is_a_failure_of_that_registration() -> None:
    case = toy_case()
    far = Grid.centered((900.0, 0.0, 0.0), case.moving.grid.shape, (2.0, 2.0, 2.0))
    away = replace(case, moving=replace(case.moving, grid=far))
    (row,) = evaluate([away], {"identity": Identity()}, RANGES[:1], 1, 0).rows
    assert "no point of gland" in row.error
    assert row.after.sre_mm == pytest.approx(4.0, abs=0.01)


def test_what_a_case_lacks_is_nan() -> None:
    scores = scores_of(toy_case(complete=False), REFERENCE)
    assert scores.sre_mm == 0
    assert math.isnan(scores.tre_mm)
    assert math.isnan(scores.dice)


def test_seeds_and_other_cases_do_not_change_a_case() -> None:
    def initial_errors(cases: list[LoadedCase], seed: int) -> list[float]:
        rows = evaluate(cases, {"identity": Identity()}, RANGES[1:], 3, seed).rows
        return [row.before.sre_mm for row in rows if row.case == "toy"]

    alone = initial_errors([toy_case()], 0)
    assert initial_errors([toy_case("first"), toy_case(), toy_case("last")], 0) == alone
    assert initial_errors([toy_case()], 1) != alone


def test_cases_from_files_are_read_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = toy_case("disk", complete=False)
    case = written_case(loaded, tmp_path / "disk")
    reads: list[str] = []

    def counted(wanted: Case) -> LoadedCase:
        reads.append(wanted.name)
        return load_case(wanted)

    monkeypatch.setattr(protocol, "load_case", counted)
    from_files = evaluate([case], {"identity": Identity(), "oracle": Toy()}, RANGES, 2, 0)
    in_memory = evaluate([loaded], {"identity": Identity(), "oracle": Toy()}, RANGES, 2, 0)
    assert reads == ["disk"]
    for ours, theirs in zip(from_files.rows, in_memory.rows, strict=True):
        # surface_points may be asked for more points than the toy keeps, so the two draw different transforms.
        assert ours.error == theirs.error == ""
        assert ours.method == "identity" or ours.after.sre_mm < 1e-3


def test_a_case_that_cannot_be_read_is_raised(tmp_path: Path) -> None:
    case = written_case(toy_case(), tmp_path / "case")
    case.moving.write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"moving\.nrrd"):
        evaluate([case], {"identity": Identity()}, RANGES, 1)


def test_progress_is_reported_after_each_registration() -> None:
    told: list[tuple[int, int, str]] = []
    cases = [toy_case("one"), toy_case("two")]
    evaluate(
        cases, {"identity": Identity()}, RANGES[:1], 2, 0, lambda done, total, row: told.append((done, total, row.case))
    )
    assert told == [(1, 4, "one"), (2, 4, "one"), (3, 4, "two"), (4, 4, "two")]


def test_a_script_needs_only_cases_methods_and_text() -> None:
    evaluation = evaluate([toy_case()], [Identity(), Toy()], "4,0-8", count=2)
    assert (evaluation.methods, evaluation.initialisations) == (("identity", "toy"), ("4", "0-8"))
    frame = evaluation.to_dataframe()
    assert len(frame) == len(evaluation.rows) == 8
    assert frame[frame.method == "toy"].sre_mm.max() == pytest.approx(0, abs=1e-9)
    assert frame.initial_sre_mm.tolist() == [row.before.sre_mm for row in evaluation.rows]
    with pytest.raises(InputError, match="two methods have one name"):
        evaluate([toy_case()], [Toy(), Toy()])


def test_requests_that_make_no_table_are_refused() -> None:
    case, methods = toy_case(), {"identity": Identity()}
    with pytest.raises(InputError, match="1 case or more"):
        evaluate([], methods, RANGES, 1)
    with pytest.raises(InputError, match="1 method or more"):
        evaluate([case], {}, RANGES, 1)
    with pytest.raises(InputError, match="1 initialisation or more, got none"):
        evaluate([case], methods, [], 1)
    with pytest.raises(InputError, match="1 initialisation or more for each case, got 0"):
        evaluate([case], methods, RANGES, 0)
    with pytest.raises(InputError, match="the initialisation 4 is given twice"):
        evaluate([case], methods, [RANGES[0], RANGES[0]], 1)
    with pytest.raises(InputError, match="'toy' is given twice"):
        evaluate([case, toy_case()], methods, RANGES, 1)
