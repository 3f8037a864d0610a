"""The script that shows how methods fail: what it picks, where it draws, what it says."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from studies.case_pictures import (
    Registration,
    failure_table,
    initial_motion,
    main,
    picture_name,
    plane_mask,
    read_rows,
    residual_motion,
    selected,
)
from tests.evaluation.toys import REFERENCE, Toy, hand_evaluation, rigid, toy_case, written_case

from crossalign.errors import InputError
from crossalign.evaluation import Evaluation, evaluate, parse_initialisations, rows_csv, scores_of
from crossalign.geometry import Rigid

SHIFTED = rigid(3.0, -4.0, 0.0, 0.0, 0.0, 0.0)


def toy_rows(folder: Path) -> tuple[Path, Evaluation]:
    evaluation = evaluate([toy_case()], {"oracle": Toy(), "off": Toy((SHIFTED,))}, parse_initialisations("0-20"), 2, 3)
    path = folder / "rows.csv"
    path.write_text(rows_csv(evaluation))
    return path, evaluation


def test_the_residual_gives_the_result_back() -> None:
    motion, case = rigid(2.0, -1.0, 4.0, 5.0, -12.0, 8.0), toy_case()
    residual = scores_of(case, REFERENCE @ motion).residual
    back = Rigid.from_parameters(torch.tensor(residual).double(), case.fixed_mask.centroid_mm())
    torch.testing.assert_close(back.matrix(), motion.matrix())
    assert scores_of(case, REFERENCE).residual == pytest.approx([0.0] * 6, abs=1e-9)


def test_best_median_and_worst() -> None:
    rows = [
        Registration(f"c{k}", "8", 0, "m", 8.0, sre_mm, math.nan, (0.0,) * 6) for k, sre_mm in enumerate((5, 1, 9, 4))
    ]
    rows += [replace(rows[0], initialisation="16", sre_mm=99.0), replace(rows[0], method="other", sre_mm=0.1)]
    assert [(kind, row.sre_mm) for kind, row in selected(rows, "m", "8").items()] == [
        ("best", 1),
        ("median", 4),
        ("worst", 9),
    ]
    with pytest.raises(InputError, match="no row of m from 0-20"):
        selected(rows, "m", "0-20")


def test_rows_are_read_and_drawn_where_they_were(tmp_path: Path) -> None:
    path, evaluation = toy_rows(tmp_path)
    case = toy_case()
    for row, expected in zip(read_rows(path), evaluation.rows, strict=True):
        assert (row.case, row.method) == ("toy", expected.method)
        assert row.sre_mm == pytest.approx(expected.after.sre_mm, abs=1e-3)
        start = initial_motion(case, row, seed=3)
        assert scores_of(case, REFERENCE @ start).sre_mm == pytest.approx(row.initial_sre_mm, abs=1e-3)
        moved = residual_motion(case, row).matrix()
        wanted = SHIFTED if row.method == "off" else Rigid.identity()
        torch.testing.assert_close(moved, wanted.matrix(), atol=1e-3, rtol=0)
    with pytest.raises(InputError, match="give its --seed"):
        initial_motion(case, read_rows(path)[0], seed=4)


def test_a_plane_through_a_moved_gland_shows_it_moved() -> None:
    case = toy_case()
    center = case.fixed_mask.centroid_mm()
    still = plane_mask(case.fixed_mask, center, (0, 1)) > 0.5
    assert float(still.sum()) == pytest.approx(math.pi * 18 * 14, rel=0.08)  # mm^2, at a step of 1 mm
    moved = plane_mask(case.fixed_mask, center, (0, 1), SHIFTED.inverse()) > 0.5
    shift = moved.nonzero().double().mean(0) - still.nonzero().double().mean(0)
    assert shift.tolist() == pytest.approx([-4.0, 3.0], abs=0.3)  # rows are y, columns x
    assert case.moving_mask is not None
    again = plane_mask(case.moving_mask, center, (0, 1), REFERENCE) > 0.5
    assert float((again ^ still).sum()) < 0.1 * float(still.sum())


def test_the_table_distinguishes_shift_from_rotation(tmp_path: Path) -> None:
    path, _ = toy_rows(tmp_path)
    header, _, oracle, off = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in failure_table(read_rows(path), {"toy": toy_case()}, 3)
    )
    row_of = dict(zip(header, off, strict=True))
    assert (row_of["method"], row_of["n"], row_of["SRE, mm"]) == ("off", "2", "5.00")
    assert row_of["mean shift x, y, z, mm"] == "+3.0, -4.0, +0.0"
    assert row_of["remaining shift, of the initial one, mm"].startswith("5.0 of ")
    assert row_of["remaining rotation, of the initial one, deg"].startswith("0.0 of ")
    assert dict(zip(header, oracle, strict=True))["worse than initially"] == "0%"


def test_the_command_draws_each_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, _ = toy_rows(tmp_path)
    case = written_case(toy_case(), tmp_path / "toy")
    manifest, out = tmp_path / "manifest.csv", tmp_path / "out"
    out.mkdir()
    with manifest.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [
                ["case", "patient", "split", "fixed", "moving", "fixed_mask", "reference"],
                ["toy", "p0", "val", case.fixed, case.moving, case.fixed_mask, case.reference],
            ]
        )
    assert main([str(rows), str(manifest), "-o", str(out), "--seed", "3"]) == 0
    assert capsys.readouterr().out.count("\n") == 4
    for name in ("cases-oracle.png", "cases-off.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert (out / name).stat().st_size < 120_000
    assert main([str(rows), str(manifest), "-o", str(out)]) == 2
    assert "give its --seed" in capsys.readouterr().err


def test_a_table_without_residuals_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    path.write_text("case,method\na,m\n")
    with pytest.raises(InputError, match="write the table anew"):
        read_rows(path)
    path.write_text(rows_csv(hand_evaluation()))
    with pytest.raises(InputError, match="residual"):
        read_rows(path)


def test_names_of_pictures() -> None:
    assert picture_name("Attention-Reg (label)") == "cases-attention-reg-label.png"
