"""Registration by networks: what stages are given, and what becomes of their answers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.geometry.strategies import rigids, rotations
from torch import Tensor, nn

from crossalign.errors import InputError, WeightsError
from crossalign.geometry import Grid, Rigid, mean_displacement_mm
from crossalign.images import Image, LabelMap, surface_points
from crossalign.models import Cascade, Model, Stage, StageSettings, load_model, save_stage
from crossalign.networks import build_network
from crossalign.registration import NetworkRegistration, Problem, register

CENTER_MM = torch.tensor([20.0, -35.0, 60.0], dtype=torch.float64)
TRUTH = Rigid.from_parameters(torch.tensor([30.0, 12, -25, 8, -6, 11], dtype=torch.float64), CENTER_MM)
CROP = StageSettings("feature-reg", (12, 10, 8), 3.0, 1.5)
LABEL = StageSettings("feature-reg", (12, 10, 8), 3.0, 1.5, "label")


class Stub(nn.Module):
    """Answers with fixed numbers, and records for the test what it was given."""

    def __init__(self, parameters: Tensor) -> None:
        super().__init__()
        self.parameters_found = parameters
        self.given: list[tuple[Tensor, Tensor]] = []

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        self.given.append((fixed, moving))
        return self.parameters_found.float()[None]


def stage(parameters: Tensor, crop: StageSettings = CROP) -> Stage:
    return Stage(Stub(parameters), crop, {})


def method(*stages: Stage) -> NetworkRegistration:
    return NetworkRegistration(Model(Cascade(stages)))


def given_crops(made: Stage) -> tuple[Tensor, Tensor]:
    assert isinstance(made.network, Stub)
    return made.network.given[-1]


def blobs(points_mm: Tensor) -> Tensor:
    """Smooth anatomy as a function of fixed points: the same content on any grid."""
    offsets = points_mm - CENTER_MM
    value = torch.exp(-(offsets / torch.tensor([14.0, 10.0, 17.0])).square().sum(-1))
    for x, y, z, size in ((9.0, -4.0, 3.0, 5.0), (-6.0, 5.0, -9.0, 4.0), (2.0, 8.0, 8.0, 6.0)):
        value += 0.7 * torch.exp(-((offsets - torch.tensor([x, y, z])) / size).square().sum(-1))
    return value


def on_grid(grid: Grid, content: Callable[[Tensor], Tensor] = blobs) -> Tensor:
    return content(grid.points_mm()).float()


def oblique(shape: tuple[int, int, int], spacing: tuple[float, float, float], center: Tensor, rotation: Tensor) -> Grid:
    rows = rotation.double().tolist()
    direction = (tuple(rows[0]), tuple(rows[1]), tuple(rows[2]))
    plain = Grid(shape, spacing, (0.0, 0.0, 0.0), direction)
    return Grid(shape, spacing, tuple((center - plain.center_mm()).tolist()), direction)


def problem(fixed_rotation: Tensor | None = None, moving_rotation: Tensor | None = None, mask: bool = True) -> Problem:
    eye = torch.eye(3)
    fixed_grid = oblique((34, 60, 56), (1.4, 1.2, 2.0), CENTER_MM, eye if fixed_rotation is None else fixed_rotation)
    middle = TRUTH.apply(CENTER_MM[None])[0]
    moving_grid = oblique((56, 58, 60), (1.3, 1.4, 1.5), middle, eye if moving_rotation is None else moving_rotation)
    inverse = TRUTH.inverse()
    moving = on_grid(moving_grid, lambda p: blobs(inverse.apply(p.flatten(0, 2)).reshape(p.shape)))
    inside = (fixed_grid.points_mm() - CENTER_MM).norm(dim=-1) < 15
    structure = LabelMap(inside.long(), fixed_grid) if mask else None
    return Problem(Image(on_grid(fixed_grid), fixed_grid), Image(moving, moving_grid), TRUTH, structure)


PLAIN = problem()


def at(initial: Rigid, given_problem: Problem = PLAIN) -> Problem:
    return Problem(given_problem.fixed, given_problem.moving, initial, given_problem.fixed_mask)


@settings(max_examples=15)
@given(initial=rigids(), numbers=st.tuples(*[st.floats(-20, 20, width=32)] * 6))
def test_the_answer_is_the_initial_transform_after_the_correction(initial: Rigid, numbers: tuple[float, ...]) -> None:
    parameters = torch.tensor(numbers, dtype=torch.float64)
    solution = method(stage(parameters)).solve(at(initial))
    assert PLAIN.fixed_mask is not None
    expected = initial @ Rigid.from_parameters(parameters, PLAIN.fixed_mask.centroid_mm())
    torch.testing.assert_close(solution.steps[-1].fixed_to_moving.matrix(), expected.matrix(), atol=1e-9, rtol=0)
    assert solution.steps[-1].fixed_to_moving.rotation.dtype == torch.float64
    assert solution.warnings == ()


def test_oracle_stages_compose_to_the_truth() -> None:
    assert PLAIN.fixed_mask is not None
    center = PLAIN.fixed_mask.centroid_mm()
    error = Rigid.from_parameters(torch.tensor([4.0, -3, 5, 7, -9, 6], dtype=torch.float64), center)
    initial = TRUTH @ error
    half = torch.tensor([-2.0, 1, -2, -3, 4, -3], dtype=torch.float64)
    rest = ((initial @ Rigid.from_parameters(half, center)).inverse() @ TRUTH).to_parameters(center)
    cascade = replace(method(stage(half), stage(rest)), label="oracle")
    result = register(PLAIN.fixed, PLAIN.moving, cascade, initial, PLAIN.fixed_mask)
    points = surface_points(PLAIN.fixed_mask)
    assert float(mean_displacement_mm(result.fixed_to_moving, TRUTH, points)) < 1e-4
    assert [step.name for step in result.steps] == ["stage 1 (feature-reg)", "stage 2 (feature-reg)"]
    assert result.method == "oracle"
    assert list(result.settings) == ["stage 1", "stage 2", "arrangement"]
    assert result.settings["stage 1"] == "feature-reg, crop 12x10x8 at 3 mm, fixed image"


def test_at_the_truth_both_crops_show_the_same() -> None:
    made = stage(torch.zeros(6))
    method(made).solve(PLAIN)
    fixed, moving = given_crops(made)
    assert fixed.shape == moving.shape == (1, 1, 12, 10, 8)
    assert float((fixed - moving).abs().max()) < 0.1  # each image is scaled by its own percentiles
    assert float(torch.corrcoef(torch.stack((fixed.flatten(), moving.flatten())))[0, 1]) > 0.995
    assert float(fixed.std()) > 0.15


def test_second_stage_sees_what_the_first_one_mended() -> None:
    assert PLAIN.fixed_mask is not None
    center = PLAIN.fixed_mask.centroid_mm()
    error = torch.tensor([6.0, -5, 7, 0, 0, 0], dtype=torch.float64)
    first, second = stage(-error), stage(torch.zeros(6))
    method(first, second).solve(at(TRUTH @ Rigid.from_parameters(error, center)))
    before, after = ((pair[0] - pair[1]).abs().mean() for pair in (given_crops(first), given_crops(second)))
    assert float(after) < 0.2 * float(before)


FLIPS = [torch.diag(torch.tensor(signs)) for signs in ([-1.0, -1, 1], [1.0, -1, -1], [-1.0, 1, 1], [-1.0, -1, -1])]


@pytest.mark.parametrize("which", ["fixed", "moving"])
@pytest.mark.parametrize("rotation", FLIPS, ids=lambda r: str(r.diagonal().int().tolist()))
def test_flipped_storage_gives_the_same_crops(which: str, rotation: Tensor) -> None:
    reference, other = stage(torch.zeros(6)), stage(torch.zeros(6))
    method(reference).solve(PLAIN)
    method(other).solve(problem(rotation, None) if which == "fixed" else problem(None, rotation))
    for a, b in zip(given_crops(reference), given_crops(other), strict=True):
        assert float((a - b).abs().max()) < 0.01


@settings(max_examples=8)
@given(moving_rotation=rotations())
def test_oblique_storage_of_the_moving_scan_gives_nearly_the_same_crops(moving_rotation: Tensor) -> None:
    """Crops run along the axes of the fixed scan (test_laws); how the moving one is stored does not matter."""
    reference, other = stage(torch.zeros(6)), stage(torch.zeros(6))
    method(reference).solve(PLAIN)
    method(other).solve(problem(None, moving_rotation))
    for a, b in zip(given_crops(reference), given_crops(other), strict=True):
        both = (a > 0) & (b > 0)  # corners of the crop may lie outside a rotated grid
        assert float(both.float().mean()) > 0.6
        assert float((a - b)[both].abs().mean()) < 0.03


def test_label_mode_shows_the_mask_and_needs_it() -> None:
    made = stage(torch.zeros(6), LABEL)
    method(made).solve(PLAIN)
    fixed, _ = given_crops(made)
    assert float(fixed[0, 0, 5, 5, 4]) == pytest.approx(1.0)
    assert float(fixed[0, 0, 0, 0, 0]) == 0.0
    with pytest.raises(InputError, match=r"--fixed-mask"):
        method(stage(torch.zeros(6)), made).solve(problem(mask=False))


def test_without_a_mask_the_grids_middle_serves_and_the_user_is_told() -> None:
    parameters = torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=torch.float64)
    bare = problem(mask=False)
    result = register(bare.fixed, bare.moving, method(stage(parameters)), TRUTH)
    assert any("no fixed mask" in warning for warning in result.warnings)
    expected = TRUTH @ Rigid.from_parameters(parameters, bare.fixed.grid.center_mm())
    torch.testing.assert_close(result.fixed_to_moving.matrix(), expected.matrix())
    torch.testing.assert_close(result.motion(), parameters)


def test_a_problem_twice_gives_the_same_answer_and_the_images_stay_as_they_were() -> None:
    torch.manual_seed(0)
    network = Stage(build_network("attention-reg", (12, 8, 8)).eval(), StageSettings("attention-reg", (12, 8, 8)), {})
    cascade = method(network, network)
    voxels = PLAIN.fixed.voxels.clone()
    first, second = (cascade.solve(PLAIN).steps[-1].fixed_to_moving for _ in range(2))
    assert torch.equal(first.matrix(), second.matrix())
    assert torch.equal(PLAIN.fixed.voxels, voxels)
    assert not first.rotation.is_inference(), "an answer that autograd refuses to go on from"


def test_loading(tmp_path: Path) -> None:
    torch.manual_seed(0)
    paths = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for path, spacing in zip(paths, (3.0, 2.0), strict=True):
        crop = StageSettings("feature-reg", (8, 8, 8), spacing)
        save_stage(Stage(build_network("feature-reg", (8, 8, 8)).eval(), crop, {}), path)
    cascade = NetworkRegistration(load_model(paths))
    assert cascade.name == "cascade of 2"
    assert [s.settings.crop_spacing_mm for s in cascade.model.stages] == [3.0, 2.0]
    assert len(cascade.solve(PLAIN).steps) == 2
    with pytest.raises(WeightsError, match="no such weight file"):
        load_model([paths[0], tmp_path / "three.safetensors"])
    with pytest.raises(InputError, match="one trained stage or more"):
        load_model([])


@settings(max_examples=6)
@given(fixed_rotation=rotations(), initial=rigids())
def test_the_crops_of_a_result_are_cut_again_from_its_applications(fixed_rotation: Tensor, initial: Rigid) -> None:
    first, second = stage(torch.tensor([4.0, -3, 5, 7, -9, 6])), stage(torch.tensor([1.0, 2, 3, -4, 5, 6]))
    oblique_problem, networks = at(initial, problem(fixed_rotation)), method(first, second)
    solution = networks.solve(oblique_problem)
    used = [one for step in solution.steps for one in step.applications]
    context = networks.context(oblique_problem)
    assert [(one.stage_number, one.pass_number, one.weight) for one in used] == [(1, 1, 1.0), (2, 1, 1.0)]
    torch.testing.assert_close(used[0].initial.matrix(), initial.matrix(), atol=1e-6, rtol=0)
    for one, made in zip(used, (first, second), strict=True):
        for again, crop in zip(context.crops(one), given_crops(made), strict=True):
            torch.testing.assert_close(again, crop, atol=1e-5, rtol=0)
        grid = context.crop_grid(one)
        torch.testing.assert_close(grid.center_mm(), oblique_problem.center_mm, atol=1e-6, rtol=0)
        resampled = oblique_problem.fixed.resampled(grid, fill=0.0).voxels
        inside = (resampled > 0) & (given_crops(made)[0][0, 0] > 0)
        both = torch.stack((resampled[inside], given_crops(made)[0][0, 0][inside]))
        assert float(torch.corrcoef(both)[0, 1]) > 0.98  # the crop is of the image preprocessed, its grid the same
    torch.testing.assert_close(used[1].answer.matrix(), solution.steps[-1].fixed_to_moving.matrix())
