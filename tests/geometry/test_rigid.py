"""Rigid: a group that acts on points, the papers' six parameters, and what is not rigid."""

import math

import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.geometry.strategies import numbers, rigids, triples

from crossalign.errors import InputError
from crossalign.geometry import Rigid, mean_displacement_mm

POINTS_MM = torch.tensor([[0.0, 0.0, 0.0], [50.0, -20.0, 30.0], [-80.0, 10.0, 5.0], [1.0, 2.0, 300.0]]).double()


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def same(a: Rigid, b: Rigid, atol: float = 1e-9) -> None:
    close(a.matrix(), b.matrix(), atol)


@given(rigids(), rigids(), rigids())
def test_group_laws(a: Rigid, b: Rigid, c: Rigid) -> None:
    identity = Rigid.identity()
    same((a @ b) @ c, a @ (b @ c))
    same(a @ identity, a)
    same(identity @ a, a)
    same(a @ a.inverse(), identity)
    same(a.inverse() @ a, identity)
    same((a @ b).inverse(), b.inverse() @ a.inverse())


@given(rigids(), rigids())
def test_composition_applies_the_right_one_first(a: Rigid, b: Rigid) -> None:
    close((a @ b).apply(POINTS_MM), a.apply(b.apply(POINTS_MM)))
    close((a @ b).matrix(), a.matrix() @ b.matrix())


@given(rigids())
def test_distances_are_kept(a: Rigid) -> None:
    close(torch.cdist(a.apply(POINTS_MM), a.apply(POINTS_MM)), torch.cdist(POINTS_MM, POINTS_MM), atol=1e-6)


@given(rigids())
def test_the_matrix_does_what_apply_does(a: Rigid) -> None:
    homogeneous = torch.cat((POINTS_MM, torch.ones(len(POINTS_MM), 1).double()), dim=1)
    close((homogeneous @ a.matrix().T)[:, :3], a.apply(POINTS_MM))
    same(Rigid.from_matrix(a.matrix()), a)


@given(triples(-50, 50), st.tuples(numbers(-170, 170), numbers(-85, 85), numbers(-170, 170)), triples(-200, 200))
def test_parameters_come_back_about_a_center(
    shift_mm: tuple[float, float, float], angle_deg: tuple[float, float, float], center: tuple[float, float, float]
) -> None:
    parameters = torch.tensor([*shift_mm, *angle_deg], dtype=torch.float64)
    center_mm = torch.tensor(center, dtype=torch.float64)
    rigid = Rigid.from_parameters(parameters, center_mm)
    close(rigid.to_parameters(center_mm), parameters, atol=1e-7)
    close(rigid.apply(center_mm[None])[0], center_mm + parameters[:3])


@given(rigids(), triples(-200, 200))
def test_every_rigid_has_parameters_about_every_center(a: Rigid, center: tuple[float, float, float]) -> None:
    center_mm = torch.tensor(center, dtype=torch.float64)
    same(Rigid.from_parameters(a.to_parameters(center_mm), center_mm), a, atol=1e-4)


@given(triples(-50, 50), triples(-3, 3), triples(-200, 200))
def test_it_agrees_with_itk(
    shift_mm: tuple[float, float, float], angle_rad: tuple[float, float, float], center: tuple[float, float, float]
) -> None:
    theirs = sitk.Euler3DTransform()
    theirs.SetComputeZYX(True)
    theirs.SetCenter(center)
    theirs.SetRotation(*angle_rad)
    theirs.SetTranslation(shift_mm)
    parameters = torch.tensor([*shift_mm, *(math.degrees(a) for a in angle_rad)], dtype=torch.float64)
    ours = Rigid.from_parameters(parameters, torch.tensor(center, dtype=torch.float64))
    expected = torch.tensor([theirs.TransformPoint(point) for point in POINTS_MM.tolist()], dtype=torch.float64)
    close(ours.apply(POINTS_MM), expected)


@given(st.lists(rigids(), min_size=1, max_size=4))
def test_a_batch_equals_its_parts(parts: list[Rigid]) -> None:
    batch = Rigid.stack(parts)
    points_mm = POINTS_MM.expand(len(parts), -1, -1)
    centers_mm = torch.linspace(-9, 9, 3 * len(parts), dtype=torch.float64).reshape(-1, 3)
    moved, inverse, squared = batch.apply(points_mm), batch.inverse(), batch @ batch
    parameters, angles_deg = batch.to_parameters(centers_mm), batch.angle_deg()
    far_mm = mean_displacement_mm(batch, Rigid.identity(), points_mm)
    for i, part in enumerate(parts):
        same(batch[i], part)
        close(moved[i], part.apply(POINTS_MM))
        same(inverse[i], part.inverse())
        same(squared[i], part @ part)
        close(parameters[i], part.to_parameters(centers_mm[i]))
        close(angles_deg[i], part.angle_deg())
        close(far_mm[i], mean_displacement_mm(part, Rigid.identity(), POINTS_MM))
    same(Rigid.from_parameters(parameters, centers_mm), batch, atol=1e-4)
    same(Rigid.from_matrix(batch.matrix()), batch)
    assert len(batch) == len(list(batch)) == len(parts)
    same(Rigid.cat([batch[:1], batch[1:]]), batch)
    same(Rigid.cat([part[None] for part in parts]), batch)


def test_one_transform_is_no_batch() -> None:
    with pytest.raises(TypeError, match="no length"):
        len(Rigid.identity())
    assert len(Rigid.from_translation(torch.ones(4, 3))) == 4


def test_one_transform_serves_a_batch_of_points_and_a_batch_serves_one_set_of_points() -> None:
    parameters = torch.tensor([[1.0, 2, 3, 4, 5, 6], [0, 0, 0, 10, 0, 0]]).double()
    center_mm = torch.tensor([5.0, 6, 7]).double()
    batch = Rigid.from_parameters(parameters, center_mm)
    same(batch[1], Rigid.from_parameters(parameters[1], center_mm))
    close(batch.to_parameters(center_mm), parameters)
    close(batch.apply(POINTS_MM)[1], batch[1].apply(POINTS_MM))
    close(batch[1].apply(POINTS_MM.expand(2, -1, -1))[0], batch[1].apply(POINTS_MM))
    far_mm = mean_displacement_mm(batch, Rigid.identity(), POINTS_MM)
    close(far_mm[1], mean_displacement_mm(batch[1], Rigid.identity(), POINTS_MM))
    same((batch @ batch[0])[1], batch[1] @ batch[0])
    same((batch[0] @ batch)[1], batch[0] @ batch[1])


@pytest.mark.parametrize("angle_deg", [0.0, 1e-5, 0.5, 90.0, 179.0, 180.0])
@pytest.mark.parametrize("axis", [3, 4, 5])
def test_the_angle_of_a_turn_about_one_axis(angle_deg: float, axis: int) -> None:
    parameters = torch.zeros(6, dtype=torch.float64)
    parameters[axis] = angle_deg
    rigid = Rigid.from_parameters(parameters, torch.zeros(3).double())
    assert float(rigid.angle_deg()) == pytest.approx(angle_deg, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (torch.diag(torch.tensor([1.01, 1.0, 1.0, 1.0])), "R R"),
        (torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0])), "mirrors"),
        (torch.tensor([[1.0, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "R R"),
        (torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0.2, 1]]), "last row"),
        (torch.tensor([[1.0, 0, 0, math.nan], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "not finite"),
        (torch.zeros(4, 4), "last row"),
    ],
)
def test_what_is_not_rigid_is_refused(change: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rigid.from_matrix(change)
    with pytest.raises(InputError, match=message):
        Rigid.from_matrix(torch.stack((torch.eye(4), change)))


@given(triples(-30, 30))
def test_mean_displacement_of_a_shift_is_its_length(shift_mm: tuple[float, float, float]) -> None:
    shift = Rigid.from_translation(torch.tensor(shift_mm, dtype=torch.float64))
    close(mean_displacement_mm(shift, Rigid.identity(), POINTS_MM), shift.translation_mm.norm())


@given(rigids(), rigids(), rigids())
def test_mean_displacement_is_a_distance_that_ignores_a_common_motion(a: Rigid, b: Rigid, c: Rigid) -> None:
    distance = mean_displacement_mm(a, b, POINTS_MM)
    close(distance, mean_displacement_mm(b, a, POINTS_MM))
    close(distance, mean_displacement_mm(c @ a, c @ b, POINTS_MM), atol=1e-6)
    assert distance <= mean_displacement_mm(a, c, POINTS_MM) + mean_displacement_mm(c, b, POINTS_MM) + 1e-9
    assert float(mean_displacement_mm(a, a, POINTS_MM)) == 0


def test_mean_displacement_has_the_right_gradient() -> None:
    truth = Rigid.from_parameters(torch.tensor([1.0, -2, 3, 4, -5, 6]).double(), torch.zeros(3).double())
    center_mm = torch.tensor([[10.0, 20.0, -5.0]]).double()

    def error_mm(parameters: torch.Tensor) -> torch.Tensor:
        return mean_displacement_mm(Rigid.from_parameters(parameters, center_mm), truth, POINTS_MM[None])

    parameters = torch.tensor([[3.0, 1.0, -2.0, 8.0, 3.0, -4.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(error_mm, (parameters,))
