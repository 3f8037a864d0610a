"""The benchmark of cut fields of view: what it cuts, how it names sides, and what it measures of known methods."""

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from benchmarks.bench_field_of_view import (
    SIDES,
    cuts_of,
    main,
    measure,
    movement,
    seen_part,
    simulated_cases,
    structure_cut,
    without_end,
)
from tests.evaluation.toys import CENTER_MM, REFERENCE, toy_case

from crossalign.data import LoadedCase
from crossalign.errors import InputError
from crossalign.geometry import Grid, Rigid, quarter_turn
from crossalign.images import Image
from crossalign.registration import Identity, Method, Problem, Solution, Step

UPRIGHT = torch.eye(3).double()


@dataclass(frozen=True)
class PicturesMiddle(Method):
    """Answers that the structure lies in the middle of the moving image, turned as the reference is."""

    @property
    def name(self) -> str:
        return "middle"

    def settings(self) -> dict[str, str]:
        return {}

    def solve(self, problem: Problem) -> Solution:
        rotation = REFERENCE.rotation
        shift = problem.moving.grid.center_mm() - rotation @ problem.center_mm
        return Solution((Step("middle", Rigid(rotation, shift), 0.0),))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_a_cut_image_shows_the_same_at_the_same_places(axis: int, last: bool) -> None:
    image = toy_case().moving
    cut = without_end(image, axis, last, 4)
    assert sum(cut.grid.shape) == sum(image.grid.shape) - 4
    torch.testing.assert_close(image.resampled(cut.grid).voxels, cut.voxels)
    lost = image.grid.center_mm() - cut.grid.center_mm()
    expected = 2 * image.grid.spacing_mm[axis]  # half of four voxels
    toward = torch.tensor(image.grid.direction).double()[:, axis] * (1 if last else -1)
    torch.testing.assert_close(lost, expected * toward)


def test_more_than_there_is_cannot_be_cut() -> None:
    with pytest.raises(InputError, match="lower --mm"):
        without_end(toy_case().moving, 1, True, 25)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_sides_are_the_patients(quarters: int) -> None:
    case, fixed_to_patient = toy_case(), quarter_turn(quarters)
    patient_to_moving = case.fixed_to_moving.rotation @ fixed_to_patient.mT
    cuts = list(cuts_of(case, fixed_to_patient, 5.0))
    assert [cut.side for cut in cuts] == list(SIDES)
    for cut, (axis, end) in zip(cuts, SIDES.values(), strict=True):
        outward = patient_to_moving[:, axis] * end
        assert float(outward @ cut.away) < -0.9  # REFERENCE turns by 18 degrees
        kept = case.moving.grid.center_mm() - cut.image.grid.center_mm()
        torch.testing.assert_close(kept, -cut.away * cut.cut_mm / 2)


def test_the_structure_that_is_cut_away_is_measured() -> None:
    case = toy_case()
    assert structure_cut(case, case.moving.grid) == 0
    assert structure_cut(case, Grid.centered((900.0, 0.0, 0.0), (2, 2, 2), (1.0, 1.0, 1.0))) == 1
    x, y, z = REFERENCE.apply(torch.tensor([CENTER_MM]).double())[0].tolist()
    half = Grid.centered((x + 50.0, y, z), (200, 90, 100), (1.0, 1.0, 0.5))
    assert structure_cut(case, half) == pytest.approx(0.5, abs=0.05)
    assert structure_cut(toy_case(complete=False), half) == pytest.approx(0.5, abs=0.05)


def test_a_method_that_follows_the_picture_moves_with_its_middle_and_one_that_does_not_stays() -> None:
    rows = list(measure(toy_case(), [Identity(), PicturesMiddle()], [REFERENCE], UPRIGHT, 6.0))
    assert len(rows) == 2 * len(SIDES)
    for row in rows:
        followed = row.cut_mm / 2 if row.method == "middle" else 0.0
        assert (row.along_mm, row.moved_mm) == pytest.approx((followed, followed), abs=1e-9)
        axis, end = SIDES[row.side]
        patient = (row.moved_left_mm, row.moved_posterior_mm, row.moved_superior_mm)
        assert torch.tensor(patient).norm().item() == pytest.approx(followed, abs=1e-6)
        assert patient[axis] * end <= -0.9 * followed
        assert row.initial_sre_mm == 0
        if row.method == "identity":
            assert row.sre_whole_mm == row.sre_cut_mm == 0


def test_movement_is_that_of_the_structures_centre() -> None:
    case = toy_case()
    shift = torch.tensor([1.0, -2.0, 3.0]).double()
    torch.testing.assert_close(movement(case, REFERENCE, Rigid.from_translation(shift) @ REFERENCE), shift)
    turned = Rigid.from_parameters(torch.tensor([0.0, 0, 0, 9, 8, 7]).double(), case.fixed_mask.centroid_mm())
    torch.testing.assert_close(movement(case, REFERENCE, REFERENCE @ turned), torch.zeros(3).double())


def test_an_empty_margin_is_left_out() -> None:
    voxels = torch.zeros(6, 7, 8)
    voxels[1:5, 2:4, 3:8] = torch.rand(4, 2, 5) + 0.5
    image = Image(voxels, Grid((6, 7, 8), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0)))
    part = seen_part(image)
    assert part.grid.shape == (4, 2, 5)
    torch.testing.assert_close(part.voxels, image.resampled(part.grid).voxels)


def test_simulated_cases_are_upright_and_their_structure_is_seen() -> None:
    (case,) = simulated_cases(1)
    assert isinstance(case, LoadedCase)
    assert float(case.fixed_to_moving.angle_deg()) < 45
    assert structure_cut(case, case.moving.grid) == 0


def test_the_command_prints_a_table_and_writes_every_registration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.csv"
    assert main(["--method", "identity", "--mm", "8", "-o", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "| **all sides** | 24 | 4 |" in printed
    assert "| where none of the structure is cut away | " in printed
    assert "| 0.00 ± 0.00 | 0.00 ± 0.00 |" in printed
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 24
    assert {row["side"] for row in rows} == set(SIDES)
    assert main(["--method", "unheard-of"]) == 2
    assert "unknown method" in capsys.readouterr().err
