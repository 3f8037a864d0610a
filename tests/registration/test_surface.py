"""The fit of two surfaces: what it finds, what it must not depend on, and when it is not to be trusted."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossalign.data import load_case, read_manifest
from crossalign.errors import InputError
from crossalign.evaluation import evaluate
from crossalign.geometry import Grid, Rigid, mean_displacement_mm, quarter_turn
from crossalign.images import Image, LabelMap, surface_points
from crossalign.images.signed_distance import SignedDistance, Surface
from crossalign.registration import register
from crossalign.registration.initialisation import masks_initialisation
from crossalign.registration.iterative.surface import SurfaceRegistration
from crossalign.registration.pose_prior import TRANSRECTAL
from crossalign.registration.problem import Identity, Problem

GRID = Grid.centered((0.0, 0.0, 0.0), (44, 44, 44), (2.0, 2.0, 2.0))
MOTION = Rigid.from_parameters(torch.tensor([4.0, -3.0, 5.0, -7.5, 0.0, -1.5], dtype=torch.float64), torch.zeros(3))
FEW = settings(max_examples=3)
METHOD = SurfaceRegistration()


def egg(grid: Grid, to_egg: Rigid, scale: float = 1.0) -> LabelMap:
    """A body without symmetry, mapped by the inverse of `to_egg`."""
    x, y, z = (to_egg.apply(grid.points_mm().reshape(-1, 3)) / scale).reshape(*grid.shape, 3).unbind(-1)
    width = 26 * (1 + 0.012 * z)
    return LabelMap(((x / width) ** 2 + ((y - 0.12 * z) / 16) ** 2 + (z / 22) ** 2 < 1).long(), grid, "structure")


@lru_cache
def problem(cut: int = 0) -> Problem:
    """The body, and the same moved by MOTION, the moving scan's last slices cut off."""
    moving_grid = Grid(GRID.shape[:1] + GRID.shape[1:], GRID.spacing_mm, GRID.origin_mm)
    fixed, moving = egg(GRID, Rigid.identity()), egg(moving_grid, MOTION.inverse())
    if cut:
        kept = moving_grid.part((0, 0, 0), (moving_grid.shape[0] - cut, *moving_grid.shape[1:]))
        moving = LabelMap(moving.labels[: kept.shape[0]], kept, "structure")
    scans = Image(fixed.labels.float(), GRID), Image(moving.labels.float(), moving.grid)
    return Problem(*scans, Rigid.identity(), fixed, moving, TRANSRECTAL)


PLAIN = replace(METHOD.run, outline_shift_mm=(0.0, 0.0, 0.0))
UNSHIFTED = METHOD.with_run(PLAIN)


def error_mm(given: Problem, method: SurfaceRegistration = UNSHIFTED) -> float:
    found = method.solve(given).steps[-1].fixed_to_moving
    return float(mean_displacement_mm(found, MOTION, surface_points(egg(GRID, Rigid.identity()))))


def in_world(mask: LabelMap, world: Rigid) -> LabelMap:
    a, b, c = (world.rotation @ torch.tensor(mask.grid.direction, dtype=torch.float64)).tolist()
    x, y, z = world.apply(torch.tensor([mask.grid.origin_mm], dtype=torch.float64))[0].tolist()
    direction = ((a[0], a[1], a[2]), (b[0], b[1], b[2]), (c[0], c[1], c[2]))
    return LabelMap(mask.labels, Grid(mask.grid.shape, mask.grid.spacing_mm, (x, y, z), direction), mask.name)


def test_a_moved_body_is_found_with_the_prior_and_without():
    assert error_mm(problem()) < 0.3
    assert error_mm(replace(problem(), prior=None)) < 1.0


def test_the_part_that_the_field_of_view_cuts_off_does_not_pull():
    cut, whole = problem(cut=14), problem()
    assert cut.moving_mask is not None
    assert whole.moving_mask is not None
    lost = 1 - cut.moving_mask.foreground_count() / whole.moving_mask.foreground_count()
    assert lost > 0.1
    center = Rigid.from_translation(cut.moving_mask.centroid_mm() - cut.center_mm)
    pulled = float((center.translation_mm - MOTION.translation_mm).norm())
    assert error_mm(cut) < 0.6 < pulled


worlds = st.tuples(*[st.floats(-500, 500) for _ in range(3)], *[st.floats(-20, 20) for _ in range(3)]).map(
    lambda values: Rigid.from_parameters(torch.tensor(values, dtype=torch.float64), torch.zeros(3))
)


@FEW
@given(world=worlds)
def test_a_common_change_of_both_worlds_changes_the_answer_by_that_change_alone(world):
    plain = problem()
    assert plain.fixed_mask is not None
    fixed, moving = (in_world(mask, world) for mask in (plain.fixed_mask, plain.moving_mask) if mask)
    images = Image(plain.fixed.voxels, fixed.grid), Image(plain.moving.voxels, moving.grid)
    other = Problem(*images, world @ plain.initial @ world.inverse(), fixed, moving, TRANSRECTAL)
    answer = METHOD.solve(plain).steps[-1].fixed_to_moving
    back = world.inverse() @ METHOD.solve(other).steps[-1].fixed_to_moving @ world
    assert float(mean_displacement_mm(back, answer, surface_points(plain.fixed_mask))) < 0.05


def test_only_the_initial_rotation_counts_and_a_far_one_is_told():
    plain = problem()
    shifted = replace(plain, initial=Rigid.from_translation(torch.tensor([9.0, -20.0, 5.0], dtype=torch.float64)))
    answers = [METHOD.solve(given).steps[-1].fixed_to_moving.matrix() for given in (plain, shifted)]
    torch.testing.assert_close(answers[0], answers[1], atol=1e-3, rtol=0)
    aslant = Rigid.from_parameters(torch.tensor([0, 0, 0, -50.0, -50.0, 0], dtype=torch.float64), torch.zeros(3))
    solution = METHOD.solve(replace(plain, initial=aslant))
    assert any("far from any that is expected" in warning for warning in solution.warnings)
    assert solution.notes == ()


def test_the_prior_acts_along_the_patients_axes():
    """A sphere says nothing of the rotation: what is left is the prior's mean, turned as the axes are."""
    ball = LabelMap((GRID.points_mm().norm(dim=-1) < 25).long(), GRID, "ball")
    scan = Image(ball.labels.float(), GRID)
    for turn in (None, quarter_turn(3)):
        given = Problem(scan, scan, Rigid.identity(), ball, ball, TRANSRECTAL, turn)
        found = METHOD.solve(given).steps[-1].fixed_to_moving.rotation
        axes = given.patient_rotation
        torch.testing.assert_close(axes @ found @ axes.mT, TRANSRECTAL.rotation(), atol=0.02, rtol=0)


def test_the_covariance_is_wide_where_the_surfaces_leave_the_rotation_open():
    held, free = (METHOD.solve(replace(problem(), prior=prior)).expectation for prior in (TRANSRECTAL, None))
    covariance = torch.tensor(held.covariance)
    assert covariance.shape == (6, 6)
    assert bool((torch.linalg.eigvalsh(covariance) > 0).all())
    assert held.evidence["posterior_sre_mm"] < free.evidence["posterior_sre_mm"]


def test_a_missing_mask_is_named():
    given = problem()
    with pytest.raises(InputError, match="--moving-mask"):
        register(given.fixed, given.moving, METHOD, given.initial, given.fixed_mask)
    with pytest.raises(InputError, match="--fixed-mask"):
        register(given.fixed, given.moving, METHOD, given.initial, None, given.moving_mask)


def test_another_structure_is_not_trusted():
    given = problem()
    small = egg(GRID, MOTION.inverse(), scale=0.55)
    result = METHOD.solve(replace(given, moving_mask=small)).expectation
    assert result.trusted is False
    assert any("same structure" in reason for reason in result.reasons)
    assert METHOD.solve(given).expectation.trusted


def test_the_signed_distance_is_that_of_a_ball():
    ball = LabelMap((GRID.points_mm().norm(dim=-1) < 25).long(), GRID, "ball")
    distance = SignedDistance.of(ball)
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 18
    value, gradient = distance.at(points)
    radius = points.norm(dim=-1)
    outer = radius > 8
    assert float((value - (radius - 25))[outer].abs().max()) < 1.0
    assert float((gradient - points / radius[:, None])[outer].norm(dim=-1).mean()) < 0.15
    surface = Surface.of(ball, distance, 800)
    assert float((surface.points_mm.norm(dim=-1) - 25).abs().mean()) < 0.4
    assert float((surface.area[:, None] * surface.points_mm).sum(0).norm()) < 0.5


def test_a_cut_structure_goes_on_beyond_the_border():
    column = LabelMap(torch.zeros(20, 20, 20, dtype=torch.int64), Grid((20, 20, 20), (2.0,) * 3, (0.0,) * 3), "column")
    column.labels[:12, 6:14, 6:14] = 1
    beyond = torch.tensor([[19.0, 19.0, -10.0]], dtype=torch.float64)
    value, gradient = SignedDistance.of(column).at(beyond)
    assert float(value[0]) < -5
    assert abs(float(gradient[0, 2])) < 0.05


def test_real_glands_without_a_tracker(shared_data, tmp_path):
    folder = shared_data / "mrus" / "obs057"
    text = "case,patient,split,fixed,moving,fixed_mask,moving_mask,reference\n"
    files = [
        folder / name for name in ("mr.nii.gz", "us.nii.gz", "mr_gland.nii.gz", "us_gland.nii.gz", "reference.tfm")
    ]
    (tmp_path / "m.csv").write_text(text + ",".join(["a", "p", "val", *map(str, files)]) + "\n")
    case = load_case(read_manifest(tmp_path / "m.csv")[0])
    rows = evaluate([case], {"start": Identity(), "surface": METHOD}, "masks", fixed_to_patient=quarter_turn(3)).rows
    assert [row.method for row in rows] == ["start", "surface"]
    assert not any(row.error for row in rows)
    assert rows[1].after.sre_mm < 6
    assert case.moving_mask is not None
    start = masks_initialisation(case.fixed_mask, case.moving_mask, fixed_to_patient=quarter_turn(3))
    assert rows[0].after.sre_mm == pytest.approx(
        float(mean_displacement_mm(start, case.fixed_to_moving, case.surface_mm))
    )
    (row,) = evaluate([replace(case, moving_mask=None)], {"surface": METHOD}, "center").rows
    assert "--moving-mask" in row.error
