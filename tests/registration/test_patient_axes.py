"""Crops are cut along the patient's axes, in whichever of 24 ways the fixed header names them."""

from dataclasses import replace

import pytest
import torch
from tests.registration.toys import TRUTH, Finder, blob_problem, method, shift, stage

from crossalign.geometry import orientation_rotations, quarter_turn
from crossalign.images import Image
from crossalign.networks.recognition import rotated_crop

ROTATIONS = orientation_rotations()


@pytest.mark.parametrize("number", range(24))
def test_crops_along_other_axes_are_the_same_crops_rotated(number: int) -> None:
    problem, found = blob_problem(TRUTH @ shift(4.0, -7.0, 2.0)), method(stage(Finder()))
    rotation = ROTATIONS[number]
    plain = found.context(problem)
    turned = found.context(replace(problem, fixed_to_patient=rotation))
    one, initial = plain.stages[0], problem.initial[None]
    for crop, other in zip(plain.crops_at(one, initial), turned.crops_at(one, initial), strict=True):
        torch.testing.assert_close(other, rotated_crop(crop, rotation), rtol=0, atol=1e-5)


@pytest.mark.parametrize("number", [1, 5, 9, 17, 23])
def test_the_answer_is_that_of_the_headers_axes(number: int) -> None:
    problem, found = blob_problem(TRUTH @ shift(4.0, -7.0, 2.0)), method(stage(Finder()))
    plain = found.solve(problem).steps[-1].fixed_to_moving
    turned = found.solve(replace(problem, fixed_to_patient=ROTATIONS[number])).steps[-1].fixed_to_moving
    torch.testing.assert_close(turned.matrix(), plain.matrix(), rtol=0, atol=1e-3)


def test_an_orientation_correction_turns_on_from_the_patients_axes() -> None:
    problem = blob_problem(TRUTH)
    by_problem = method(stage(Finder())).context(replace(problem, fixed_to_patient=quarter_turn(3)))
    by_setting = replace(method(stage(Finder())).context(problem), orientation_deg=270)
    torch.testing.assert_close(by_problem.rotation, by_setting.rotation)


def test_the_grid_of_a_crop_lies_where_its_voxels_were_sampled() -> None:
    slope = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    blob, found = blob_problem(TRUTH @ shift(4.0, -7.0, 2.0)), method(stage(Finder()))
    ramp = Image((blob.fixed.grid.points_mm() @ slope).float(), blob.fixed.grid)
    problem = replace(blob, fixed=ramp, fixed_to_patient=ROTATIONS[11])
    context, solution = found.context(problem), found.solve(problem)
    application = solution.steps[-1].applications[0]
    fixed, _ = context.crops(application)
    points = context.crop_grid(application).points_mm()
    inner = (points - context.problem.center_mm).norm(dim=-1) < 15.0
    pair = torch.stack((fixed[0, 0][inner].double(), (points @ slope)[inner]))
    assert float(torch.corrcoef(pair)[0, 1]) > 0.999
