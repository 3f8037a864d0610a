"""A problem computes what follows from its scans once, and keeps it where the worlds' coordinates change."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.registration.toys import blob_problem

from crossalign.geometry import Grid, Rigid, quarter_turn
from crossalign.images import foreground
from crossalign.registration import MutualInformation, Problem, problem, register
from crossalign.registration.iterative import mutual_information, verdict
from crossalign.registration.iterative.method_settings import MutualInformationSettings
from crossalign.registration.iterative.sampling_region import sampled_region
from crossalign.registration.overlap import Overlap


def counted(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Count the scans whose foreground is looked for."""
    seen: list[torch.Tensor] = []

    def recorded(voxels: torch.Tensor) -> torch.Tensor:
        seen.append(voxels)
        return foreground(voxels)

    monkeypatch.setattr(problem, "foreground", recorded)
    return seen


def in_other_worlds(given: Problem) -> Problem:
    fixed, moving = (Grid(g.shape, g.spacing_mm, (7.0, 8.0, 9.0)) for g in (given.fixed.grid, given.moving.grid))
    return given.on_grids(fixed, moving, Rigid.identity())


@pytest.mark.parametrize("mask", [True, False])
def test_what_follows_from_the_scans_is_computed_once(mask: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, given = counted(monkeypatch), blob_problem(Rigid.identity(), mask=mask)
    for name in ("center_mm", "structure_mm", "extent_mm", "fixed_foreground", "moving_foreground"):
        assert getattr(given, name) is getattr(given, name)
    assert len(seen) == 2
    other = in_other_worlds(given)
    assert other.fixed_foreground is given.fixed_foreground
    assert other.moving_foreground is given.moving_foreground
    assert not torch.equal(other.center_mm, given.center_mm)
    assert other.extent_mm == pytest.approx(given.extent_mm)


@pytest.mark.parametrize("mask", [True, False])
def test_one_run_looks_for_each_foreground_once_and_chooses_its_voxels_once(
    mask: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, regions = counted(monkeypatch), 0

    def recorded(*given: Any) -> Any:
        nonlocal regions
        regions += 1
        return sampled_region(*given)

    for module in (mutual_information, verdict):
        monkeypatch.setattr(module, "sampled_region", recorded)
    given = blob_problem(Rigid.identity(), mask=mask)
    initial = Rigid.from_translation(given.moving.grid.center_mm() - given.center_mm)
    method = MutualInformation(MutualInformationSettings(samples=500, iterations=2, checks=1))
    register(given.fixed, given.moving, method, initial, given.fixed_mask)
    assert {id(voxels) for voxels in seen} == {id(given.fixed.voxels), id(given.moving.voxels)}
    assert len(seen) == 2
    assert regions == 1


def test_overlap_is_judged_from_both_sides() -> None:
    given = blob_problem(Rigid.identity())
    centered = Rigid.from_translation(given.moving.grid.center_mm() - given.center_mm)
    overlap = Overlap.of(given)
    assert overlap.fraction(centered) == 1
    assert overlap.fraction(Rigid.from_translation(torch.full((3,), 1e4, dtype=torch.float64))) == 0


def test_the_patients_axes_are_the_fixed_images_unless_it_is_said_otherwise() -> None:
    given = blob_problem(Rigid.identity())
    assert torch.equal(given.patient_rotation, torch.eye(3, dtype=torch.float64))
    turned = replace(given, fixed_to_patient=quarter_turn(3))
    assert torch.equal(in_other_worlds(turned).patient_rotation, quarter_turn(3))
