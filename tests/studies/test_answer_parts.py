"""The studies of an answer's parts and of the references: replaced parts, refits, and worlds that differ in scale."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from studies.error_parts import half_way, main, variants, with_rotation
from studies.reference_refits import Refit, difference, distance_to, rotation_vector
from studies.reference_uncertainty import Rescaled, in_world_of
from tests.evaluation.test_protocol import NEAR
from tests.evaluation.toys import CENTER_MM, FLIPPED, REFERENCE, Toy, rigid, toy_case, written_case

from crossalign.errors import InputError
from crossalign.evaluation import error_parts, evaluate, parse_initialisations, rows_csv
from crossalign.geometry import Grid, Rigid, euler_to_rotation
from crossalign.images import Image

UPRIGHT = torch.eye(3).double()
CASE = toy_case()
CENTER = CASE.fixed_mask.centroid_mm()


def turn(x: float, y: float, z: float) -> torch.Tensor:
    return euler_to_rotation(torch.tensor([x, y, z], dtype=torch.float64) * (math.pi / 180))


def test_a_replaced_part_leaves_the_other_as_it_is() -> None:
    answer = REFERENCE @ rigid(4.0, -2.0, 1.0, 6.0, 0.0, -9.0)
    whole = error_parts(answer, CASE)
    found = {name: error_parts(one, CASE) for name, one in variants(CASE, answer, UPRIGHT)}
    assert found["as it is"] == whole
    turned, centred = found["with the reference's rotation"], found["with the reference's centre"]
    assert turned.angle_deg == pytest.approx(0, abs=1e-5)
    assert turned.center_mm == pytest.approx(whole.center_mm)
    assert centred.distance_mm == pytest.approx(0, abs=1e-9)
    assert centred.angle_deg == pytest.approx(whole.angle_deg)
    assert found["with the prior's rotation"].center_mm == pytest.approx(whole.center_mm)
    assert found["reference's centre, prior's rotation"].distance_mm == pytest.approx(0, abs=1e-9)
    assert found["reference's centre, prior's rotation"].angle_deg == pytest.approx(
        found["with the prior's rotation"].angle_deg
    )


def test_half_way_is_as_far_from_both() -> None:
    a, b = turn(10, 0, 5), turn(-4, 8, 0)
    middle = half_way(a, b)
    angles = [float(Rigid(one.mT @ middle, torch.zeros(3).double()).angle_deg()) for one in (a, b)]
    whole = float(Rigid(a.mT @ b, torch.zeros(3).double()).angle_deg())
    assert angles == pytest.approx([whole / 2, whole / 2])


def test_a_rotation_is_replaced_about_the_centre() -> None:
    answer = with_rotation(REFERENCE, turn(3, 2, 1), CENTER)
    torch.testing.assert_close(answer.apply(CENTER[None]), REFERENCE.apply(CENTER[None]))
    assert torch.equal(answer.rotation, turn(3, 2, 1))


def test_the_table_of_a_run_is_read_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = written_case(CASE, tmp_path / "toy")
    manifest = tmp_path / "cases.csv"
    names = ("case", "split", "fixed", "moving", "fixed_mask", "reference")
    values = (row.name, row.split, row.fixed, row.moving, row.fixed_mask)
    manifest.write_text(",".join(names) + "\n" + ",".join(map(str, (*values, row.reference))) + "\n")
    table = tmp_path / "rows.csv"
    table.write_text(rows_csv(evaluate([CASE], {"near": Toy((NEAR,))}, parse_initialisations("4"), 2)))
    assert main([str(table), str(manifest)]) == 0
    printed = capsys.readouterr().out
    assert "| as it is | 2 | 3.00 ± 0.00 | - | 0.00 ± 0.00 |" in printed
    assert "| with the reference's rotation | 2 | 3.00 ± 0.00 |" in printed
    assert "| with the reference's centre | 2 | 0.0" in printed
    manifest.write_text(manifest.read_text().replace("\ntoy,", "\nother,"))
    assert main([str(table), str(manifest)]) == 2
    assert "no case 'toy'" in capsys.readouterr().err


def test_signed_distances_are_those_of_a_ball() -> None:
    grid = Grid.centered((0.0, 0.0, 0.0), (33, 33, 33), (1.0, 1.0, 1.0))
    ball = replace(CASE.fixed_mask, labels=(grid.points_mm().norm(dim=-1) < 10).long(), grid=grid)
    points = torch.tensor([[0.0, 0.0, 14.0], [0.0, 6.0, 0.0], [5.0, 0.0, 0.0]]).double()
    assert distance_to(ball)(points).tolist() == pytest.approx([4.0, -4.0, -5.0], abs=1.0)


def test_a_refit_of_the_truth_stays_and_one_of_a_moved_start_comes_back() -> None:
    marks = CASE.landmarks
    assert marks is not None
    exact = replace(CASE, landmarks=replace(marks, moving_mm=REFERENCE.apply(marks.fixed_mm)))
    assert difference(exact, Refit(exact).fitted(1.0, 1.0), UPRIGHT).sre_mm < 0.5
    off = REFERENCE @ rigid(1.0, -0.5, 0.5, 2.0, 0.0, -1.0)
    moved = replace(exact, fixed_to_moving=off)
    back = difference(exact, Refit(moved).fitted(0.0, 1.0), UPRIGHT)
    assert back.sre_mm < 1e-3
    assert back.tre_mm < 1e-3
    with pytest.raises(InputError, match="moving gland"):
        Refit(toy_case(complete=False))


def test_a_refit_can_be_held_to_a_rotation() -> None:
    wanted = REFERENCE.rotation @ turn(0, 0, 8)
    free, held = Refit(CASE).fitted(1.0, 0.0), Refit(CASE).fitted(1.0, 0.0, held_to=wanted)
    away = [float(rotation_vector(wanted.mT @ one.rotation).norm()) for one in (free, held)]
    assert away[1] < away[0]


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (10.0, -20.0, 5.0), (0.0, 0.0, 170.0)])
def test_a_rotation_vector_has_the_rotations_axis_and_angle(angles: tuple[float, float, float]) -> None:
    rotation = turn(*angles)
    vector = rotation_vector(rotation)
    torch.testing.assert_close(rotation @ vector, vector)
    angle = float(Rigid(rotation, torch.zeros(3).double()).angle_deg())
    assert float(vector.norm()) * 180 / math.pi == pytest.approx(angle)


def test_one_scene_in_two_files_is_laid_on_itself() -> None:
    """One image with its right spacing and one whose header says less: the transform is the same in both worlds."""
    grid = Grid((20, 24, 26), (1.5, 1.5, 1.5), (-1.5, -1.5, 1.5), FLIPPED)
    lying = replace(grid, spacing_mm=(1.2, 1.2, 1.2))
    scale = Rescaled.between(lying, grid, 1.5)
    points = torch.tensor([[0.0, 0, 0], [5, 7, 3]]).double()
    torch.testing.assert_close(scale.points(lying.to_physical(points)), grid.to_physical(points))
    image = Image(torch.rand(grid.shape, generator=torch.Generator().manual_seed(0)), grid)
    assert scale.correlation(Image(image.voxels, lying), image) == pytest.approx(1.0)
    assert Rescaled.between(lying, grid, 1.4).correlation(Image(image.voxels, lying), image) < 0.5
    there = rigid(3.0, 2.0, 1.0, 4.0, 5.0, 6.0, center_mm=CENTER_MM)
    here = in_world_of(there, scale, scale)
    seen = torch.tensor([[1.0, 2.0, 3.0], [-30.0, 8.0, 0.0], [4.0, 4.0, 40.0]]).double()
    torch.testing.assert_close(here.apply(scale.points(seen)), scale.points(there.apply(seen)))
