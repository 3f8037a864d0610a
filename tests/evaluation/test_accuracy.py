"""SRE, TRE and Dice against numbers worked out by hand and against SimpleITK."""

import math

import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.toys import CENTER_MM, REFERENCE, rigid, toy_case

from crossalign.errors import ImageError, InputError
from crossalign.evaluation import (
    dice_score,
    surface_registration_error_mm,
    target_registration_error_mm,
    target_registration_errors_mm,
)
from crossalign.geometry import Grid, Rigid
from crossalign.images import LabelMap

CASE = toy_case()


def to_sitk(transform: Rigid) -> sitk.AffineTransform:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(transform.rotation.flatten().tolist())
    affine.SetTranslation(transform.translation_mm.tolist())
    return affine


def mask_to_sitk(mask: LabelMap) -> sitk.Image:
    image = sitk.GetImageFromArray((mask.labels != 0).numpy().astype("uint8"))
    image.SetSpacing(mask.grid.spacing_mm)
    image.SetOrigin(mask.grid.origin_mm)
    image.SetDirection([value for line in mask.grid.direction for value in line])
    return image


def test_sre_of_a_shift_is_its_length() -> None:
    shifted = REFERENCE @ rigid(3.0, 0.0, 4.0, 0.0, 0.0, 0.0)
    assert surface_registration_error_mm(shifted, REFERENCE, CASE.surface_mm) == pytest.approx(5.0)


def test_sre_of_a_half_turn_is_twice_the_distance_to_the_axis() -> None:
    points = torch.tensor(CENTER_MM).double() + torch.tensor([[3.0, 4.0, 9.0], [0.0, -7.0, 1.0]]).double()
    turned = REFERENCE @ rigid(0.0, 0.0, 0.0, 0.0, 0.0, 180.0)
    assert surface_registration_error_mm(turned, REFERENCE, points) == pytest.approx((10 + 14) / 2)


@given(st.lists(st.floats(-20, 20), min_size=6, max_size=6))
def test_sre_is_the_mean_distance_between_points_that_simpleitk_maps(parameters: list[float]) -> None:
    estimate = REFERENCE @ rigid(*parameters)
    ours, truth = to_sitk(estimate), to_sitk(REFERENCE)
    points = CASE.surface_mm[::10].tolist()
    expected = sum(math.dist(ours.TransformPoint(p), truth.TransformPoint(p)) for p in points) / len(points)
    assert surface_registration_error_mm(estimate, REFERENCE, CASE.surface_mm[::10]) == pytest.approx(
        expected, abs=1e-9
    )


def test_a_transform_in_float32_is_measured_in_float64() -> None:
    single = REFERENCE.to("cpu", torch.float32)
    assert surface_registration_error_mm(single, REFERENCE, CASE.surface_mm) < 1e-4


def test_tre_of_the_reference_is_what_was_planted() -> None:
    marks = CASE.landmarks
    assert marks is not None
    errors = target_registration_errors_mm(REFERENCE, marks.fixed_mm, marks.moving_mm)
    torch.testing.assert_close(errors, torch.tensor([0.0, 5.0, 1.0]).double(), atol=1e-9, rtol=0)
    assert target_registration_error_mm(REFERENCE, marks.fixed_mm, marks.moving_mm) == pytest.approx(2.0)


@given(st.lists(st.floats(-20, 20), min_size=6, max_size=6))
def test_tre_agrees_with_simpleitk(parameters: list[float]) -> None:
    marks, estimate = CASE.landmarks, REFERENCE @ rigid(*parameters)
    assert marks is not None
    mapped = [to_sitk(estimate).TransformPoint(p) for p in marks.fixed_mm.tolist()]
    expected = [math.dist(p, q) for p, q in zip(mapped, marks.moving_mm.tolist(), strict=True)]
    errors = target_registration_errors_mm(estimate, marks.fixed_mm, marks.moving_mm)
    assert errors.tolist() == pytest.approx(expected, abs=1e-9)


def test_errors_without_points_are_refused() -> None:
    none = torch.zeros(0, 3).double()
    with pytest.raises(InputError, match="surface point"):
        surface_registration_error_mm(REFERENCE, REFERENCE, none)
    with pytest.raises(InputError, match="landmarks"):
        target_registration_error_mm(REFERENCE, none, none)
    with pytest.raises(InputError, match="in pairs"):
        target_registration_errors_mm(REFERENCE, torch.zeros(1, 3).double(), none)


def test_dice_of_boxes_by_hand() -> None:
    grid = Grid.centered((0.0, 0.0, 0.0), (1, 1, 6), (1.0, 1.0, 1.0))
    left = LabelMap(torch.tensor([[[1, 1, 1, 0, 0, 0]]]), grid)
    right = LabelMap(torch.tensor([[[0, 0, 7, 7, 7, 7]]]), grid)
    assert dice_score(left, left, Rigid.identity()) == 1.0
    assert dice_score(left, right, Rigid.identity()) == pytest.approx(2 * 1 / (3 + 4))
    # A point at x is looked up at x + 2: the four voxels come to 0..3.
    assert dice_score(left, right, rigid(2.0, 0.0, 0.0, 0.0, 0.0, 0.0)) == pytest.approx(2 * 3 / (3 + 4))
    assert dice_score(left, right, rigid(50.0, 0.0, 0.0, 0.0, 0.0, 0.0)) == 0.0


@given(st.lists(st.floats(-12, 12), min_size=6, max_size=6))
def test_dice_agrees_with_simpleitk(parameters: list[float]) -> None:
    assert CASE.moving_mask is not None
    estimate = REFERENCE @ rigid(*parameters)
    fixed, moving = mask_to_sitk(CASE.fixed_mask), mask_to_sitk(CASE.moving_mask)
    moved = sitk.Resample(moving, fixed, to_sitk(estimate), sitk.sitkNearestNeighbor, 0)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(fixed, moved)
    ours = dice_score(CASE.fixed_mask, CASE.moving_mask, estimate)
    # A voxel centre that falls between two voxels to the last bit may go either way.
    assert ours == pytest.approx(overlap.GetDiceCoefficient(), abs=2e-3)


def test_dice_of_the_reference_is_high_and_of_an_empty_mask_undefined() -> None:
    assert CASE.moving_mask is not None
    assert dice_score(CASE.fixed_mask, CASE.moving_mask, REFERENCE) > 0.9
    empty = LabelMap(torch.zeros_like(CASE.fixed_mask.labels), CASE.fixed_mask.grid, "nothing")
    with pytest.raises(ImageError, match="nothing: the mask is empty"):
        dice_score(empty, CASE.moving_mask, REFERENCE)
