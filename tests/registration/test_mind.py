"""SSD of MIND finds what SimpleITK moved, whatever the contrast; its solver keeps its laws."""

from dataclasses import replace

import pytest
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from crossalign.errors import InputError
from crossalign.geometry import Grid, Rigid, mean_displacement_mm, sample
from crossalign.images import Image, LabelMap
from crossalign.images.files.images import to_sitk
from crossalign.registration import Problem, named_method, register
from crossalign.registration.iterative.gauss_newton import (
    PyramidLevel,
    _linearised,
    _moved,
    minimise,
    sample_with_gradient,
)
from crossalign.registration.iterative.method_settings import MindSettings
from crossalign.registration.iterative.mind import MindSSD

GRID = Grid((36, 40, 38), (1.5, 1.5, 1.5), (40.0, -10.0, -30.0))
LEVEL_GRID = Grid((12, 14, 13), (2.0, 2.0, 2.0), (5.0, -3.0, 1.0))
TRUTH = (4.0, -3.0, 2.5, 6.0, -4.0, 5.0)
SETTINGS = MindSettings(spacing_mm=(4.0, 2.0, 1.5), initialisations=4, motion_penalty=0.0, points=800)
QUICK = MindSSD(SETTINGS)


def blobs(seed: int = 4) -> Image:
    noise = torch.rand(1, 1, 10, 10, 10, generator=torch.Generator().manual_seed(seed))
    return Image(F.interpolate(noise, size=GRID.shape, mode="trilinear")[0, 0], GRID, "fixed")


def ball() -> LabelMap:
    inside = (GRID.points_mm() - GRID.center_mm()).norm(dim=-1) < 15
    return LabelMap(inside.long(), GRID, "ball")


def moved_by_sitk(fixed: Image) -> tuple[Image, Rigid]:
    """Let SimpleITK move an image; the truth is read off its transform."""
    transform = sitk.Euler3DTransform()
    transform.SetCenter(GRID.center_mm().tolist())
    transform.SetTranslation(TRUTH[:3])
    transform.SetRotation(*torch.tensor(TRUTH[3:]).deg2rad().tolist())
    still = to_sitk(fixed.voxels.numpy(), GRID)
    seen = sitk.Resample(still, still, transform.GetInverse(), sitk.sitkLinear, 0.0)
    origin = torch.tensor(transform.TransformPoint((0.0, 0.0, 0.0)), dtype=torch.float64)
    columns = [
        torch.tensor(transform.TransformPoint(axis), dtype=torch.float64) - origin for axis in torch.eye(3).tolist()
    ]
    return Image(torch.from_numpy(sitk.GetArrayFromImage(seen)), GRID, "moving"), Rigid(
        torch.stack(columns, -1), origin
    )


@pytest.mark.parametrize("inverted", [False, True], ids=["same contrast", "inverted contrast"])
@pytest.mark.parametrize("mask", [None, ball()], ids=["no mask", "mask"])
def test_a_known_motion_is_recovered(mask: LabelMap | None, inverted: bool) -> None:
    fixed = blobs()
    moving, truth = moved_by_sitk(fixed)
    if inverted:
        moving = replace(moving, voxels=torch.where(moving.voxels > 0, 1.3 - 0.7 * moving.voxels, 0.0))
    result = register(fixed, moving, QUICK, Rigid.identity(), mask)
    points = ball().points_mm()
    assert float(mean_displacement_mm(Rigid.identity(), truth, points)) > 5
    # Without a mask the points reach the edges of the fields of view, which pull.
    assert float(mean_displacement_mm(result.fixed_to_moving, truth, points)) < (0.5 if mask is None else 0.3)
    assert [step.name.split(" (")[0] for step in result.steps] == ["level 1", "level 2", "level 3"]
    assert mask is None or result.warnings == ()


def test_a_turned_and_shifted_frame_changes_nothing() -> None:
    fixed = blobs()
    moving, truth = moved_by_sitk(fixed)
    frame = Rigid.from_parameters(torch.tensor([300.0, -50.0, 20.0, 0.0, 0.0, 40.0]).double(), GRID.center_mm())
    # The moving image's axes cannot turn in its grid alone: it is resampled into the turned frame.
    target = moving.grid.covering((1.5, 1.5, 1.5))
    center = tuple(frame.apply(GRID.center_mm()[None])[0].tolist())
    grid = Grid.centered(center, (56, 56, 56), target.spacing_mm)
    turned = moving.resampled(grid, frame.inverse(), fill=0.0)
    result = register(fixed, turned, QUICK, frame, ball())
    assert float(mean_displacement_mm(result.fixed_to_moving, frame @ truth, ball().points_mm())) < 0.3


def test_the_same_problem_gives_the_same_answer() -> None:
    fixed = blobs()
    moving, _ = moved_by_sitk(fixed)
    problem = Problem(fixed, moving, Rigid.identity(), ball())
    first, second = (QUICK.solve(problem).steps[-1].fixed_to_moving.matrix() for _ in range(2))
    assert torch.equal(first, second)


def test_a_strong_motion_penalty_keeps_the_initial_transform() -> None:
    fixed = blobs()
    moving, _ = moved_by_sitk(fixed)
    solution = MindSSD(replace(SETTINGS, motion_penalty=1e3)).solve(Problem(fixed, moving, Rigid.identity(), ball()))
    distance = mean_displacement_mm(solution.steps[-1].fixed_to_moving, Rigid.identity(), ball().points_mm())
    assert float(distance) < 0.1


def test_where_nothing_is_known_the_initial_transform_is_the_answer_and_not_to_be_trusted() -> None:
    fixed = blobs()
    nowhere = Rigid.from_translation(torch.full((3,), 1000.0, dtype=torch.float64))
    solution = QUICK.solve(Problem(fixed, fixed, nowhere, ball()))
    assert torch.equal(solution.steps[-1].fixed_to_moving.matrix(), nowhere.matrix())
    (reason,) = solution.expectation.reasons
    assert "is returned" in reason
    assert "--initial" in reason
    assert solution.expectation.trusted is False


def test_empty_background_is_no_match() -> None:
    """A moving image that is background but for its far half: the points there are counted out, not matched.

    What is left is the new edge, which reaches into the patches beside it.
    """
    fixed = blobs()
    voxels = fixed.voxels.clone()
    voxels[:, :, : GRID.shape[2] // 2] = 0
    solution = QUICK.solve(Problem(fixed, Image(voxels, GRID, "half"), Rigid.identity(), ball()))
    found = solution.steps[-1].fixed_to_moving
    assert float(mean_displacement_mm(found, Rigid.identity(), ball().points_mm())) < 1


def level(seed: int = 0, motion_penalty: float = 0.01) -> PyramidLevel:
    generator = torch.Generator().manual_seed(seed)
    grid = LEVEL_GRID
    features = F.interpolate(
        torch.rand(1, 4, 4, 4, 4, generator=generator, dtype=torch.float64), size=grid.shape, mode="trilinear"
    )[0].movedim(0, -1)
    points = grid.center_mm() + 5 * torch.randn(60, 3, generator=generator, dtype=torch.float64)
    known = torch.ones(grid.shape, dtype=torch.bool)
    known[:, :2] = False
    values = torch.rand(60, 4, generator=generator, dtype=torch.float64)
    unmoved = motions(1).apply(points)[0]
    return PyramidLevel(
        points, unmoved, values, features.contiguous(), known, grid, grid.center_mm(), motion_penalty, 0.3
    )


def motions(count: int, seed: int = 1) -> Rigid:
    generator = torch.Generator().manual_seed(seed)
    parameters = 3 * torch.randn(count, 6, generator=generator, dtype=torch.float64)
    return Rigid.from_parameters(parameters, LEVEL_GRID.center_mm().expand(count, 3))


def test_a_batch_of_runs_equals_the_same_runs_one_by_one() -> None:
    initial = motions(5)
    batch = minimise(level(), initial, 12)
    for index in range(5):
        alone = minimise(level(), initial[index : index + 1], 12)
        torch.testing.assert_close(alone.motion.matrix()[0], batch.motion.matrix()[index], rtol=1e-9, atol=1e-9)
        assert int(alone.iterations) == int(batch.iterations[index])


def test_no_run_ends_with_a_higher_cost() -> None:
    before = _linearised(level(), motions(6)).cost
    assert bool((minimise(level(), motions(6), 12).cost <= before).all())


def test_sampling_agrees_with_the_one_of_geometry_and_its_gradient_with_differences() -> None:
    here = level()
    points = motions(2).apply(here.points_mm)
    values, slopes, known = sample_with_gradient(here.moving, here.known, here.grid, points)
    voxels = here.grid.to_voxel(points).reshape(1, 1, 1, -1, 3)
    expected = sample(here.moving.movedim(-1, 0)[None], voxels)[0, :, 0, 0].T.reshape(values.shape)
    torch.testing.assert_close(values[known], expected[known])
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-6
        ahead, _, still = sample_with_gradient(here.moving, here.known, here.grid, points + step)
        torch.testing.assert_close(
            ((ahead - values) / 1e-6)[known & still], slopes[:, :, axis][known & still], atol=1e-5, rtol=1e-5
        )


def test_the_gradient_of_the_cost_agrees_with_differences() -> None:
    here, motion = level(motion_penalty=0.1), motions(1)
    system = _linearised(here, motion)
    for index in range(6):
        step = torch.zeros(1, 6, dtype=torch.float64)
        step[0, index] = 1e-6
        ahead = _linearised(here, _moved(motion, step, here.center_mm, system.radius_mm)).cost
        # The gradient is of half the cost, as in every least squares problem.
        assert float(ahead - system.cost) / 2e-6 == pytest.approx(float(system.gradient[0, index]), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"spacing_mm": ()},
        {"spacing_mm": (4.0, 0.0)},
        {"initialisations": 0},
        {"points": 0},
        {"motion_penalty": -1.0},
        {"perturbation_mm": -1.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        MindSettings(**wrong)


def test_it_goes_by_name_and_tells_its_settings() -> None:
    method = named_method("mind", torch.device("cpu"))
    assert method.name == "mind"
    assert method.settings()["initialisations"] == str(MindSettings().initialisations)
    best = named_method("mind-best", torch.device("cpu"))
    assert (best.name, best.settings()["spacing_mm"]) == ("mind-best", "(4.0,)")
