"""Mutual information finds what it should, fails softly, and repeats itself."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from crossalign.errors import ImageError, InputError
from crossalign.geometry import Grid, Rigid, mean_displacement_mm
from crossalign.images import Image, LabelMap, memory
from crossalign.registration import MutualInformation, Problem, named_method, register
from crossalign.registration.iterative.method_settings import MI_BEST, MutualInformationSettings

FLIPPED = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
GRID = Grid((40, 40, 40), (1.5, 1.5, 1.5), (70.0, -10.0, -30.0), FLIPPED)
SETTINGS = MutualInformationSettings(samples=8000, iterations=60)
QUICK = MutualInformation(SETTINGS)


def blobs() -> Image:
    noise = torch.randn(1, 1, 10, 10, 10, generator=torch.Generator().manual_seed(4))
    return Image(F.interpolate(noise, size=(40, 40, 40), mode="trilinear")[0, 0], GRID, "fixed")


def ball() -> LabelMap:
    inside = (GRID.points_mm() - GRID.center_mm()).norm(dim=-1) < 18
    return LabelMap(inside.long(), GRID, "ball")


def moved_pair() -> tuple[Image, Image, Rigid]:
    """Make a pair with known answer whose second image also has its contrast bent."""
    fixed = blobs()
    parameters = torch.tensor([200.0, -100.0, 50.0, 10.0, -5.0, 20.0], dtype=torch.float64)
    truth = Rigid.from_parameters(parameters, GRID.center_mm())
    center = tuple((GRID.center_mm() + parameters[:3]).tolist())
    grid = Grid.centered(center, (44, 44, 44), (1.5, 1.5, 1.5))
    seen = fixed.resampled(grid, truth.inverse())
    return fixed, Image(-torch.tanh(seen.voxels), grid, "moving"), truth


@pytest.mark.parametrize("mask", [None, ball()], ids=["no mask", "mask"])
def test_a_known_motion_is_recovered(mask: LabelMap | None) -> None:
    fixed, moving, truth = moved_pair()
    parameters = torch.tensor([4.0, -3.0, 2.0, 5.0, -4.0, 3.0], dtype=torch.float64)
    start = truth @ Rigid.from_parameters(parameters, GRID.center_mm())
    result = register(fixed, moving, QUICK, start, mask)
    points = ball().points_mm()
    assert float(mean_displacement_mm(start, truth, points)) > 5
    assert float(mean_displacement_mm(result.fixed_to_moving, truth, points)) < 0.5
    again = register(fixed, moving, QUICK, start, mask)
    assert torch.equal(again.fixed_to_moving.matrix(), result.fixed_to_moving.matrix())


def test_several_initialisations_end_at_least_as_high_as_the_given_one() -> None:
    fixed, moving, truth = moved_pair()
    parameters = torch.tensor([5.0, -4.0, 3.0, 8.0, -6.0, 5.0], dtype=torch.float64)
    start = truth @ Rigid.from_parameters(parameters, GRID.center_mm())
    many = MutualInformation(replace(SETTINGS, initialisations=3, perturbation_mm=8.0))
    first, again = (register(fixed, moving, many, start, ball()).fixed_to_moving for _ in range(2))
    assert float(mean_displacement_mm(first, truth, ball().points_mm())) < 0.5
    assert torch.equal(first.matrix(), again.matrix())


def test_a_strong_motion_penalty_chooses_the_run_that_moved_least() -> None:
    fixed, moving, truth = moved_pair()
    start = truth @ Rigid.from_parameters(torch.tensor([8.0, 0, 0, 0, 0, 0], dtype=torch.float64), GRID.center_mm())
    held = replace(
        SETTINGS, initialisations=3, motion_penalty=1e3, iterations=1, shrink_factors=(2,), smoothing_mm=(2.0,)
    )
    result = register(fixed, moving, MutualInformation(held), start, ball())
    assert result.shift_mm() < 2


def test_where_nothing_can_be_scored_the_initial_transform_is_the_answer_and_not_to_be_trusted() -> None:
    fixed, moving, truth = moved_pair()
    nowhere = Rigid(truth.rotation, truth.translation_mm + 1000)
    solution = QUICK.solve(Problem(fixed, moving, nowhere, ball()))
    assert torch.equal(solution.steps[-1].fixed_to_moving.matrix(), nowhere.matrix())
    (reason,) = solution.expectation.reasons
    assert "is returned" in reason
    assert "\n" not in reason
    assert solution.expectation.trusted is False


def test_what_itk_would_take_is_compared_with_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, moving, truth = moved_pair()
    monkeypatch.setattr(memory, "memory_limit", lambda: 1_000_000)
    with pytest.raises(ImageError, match=r"fixed and moving: beside the scans the method needs .* of memory"):
        QUICK.solve(Problem(fixed, moving, truth, ball()))


def test_a_right_answer_is_trusted_and_scans_that_share_nothing_are_not() -> None:
    fixed, moving, truth = moved_pair()
    start = truth @ Rigid.from_parameters(torch.tensor([2.0, -1, 1, 2, -1, 2], dtype=torch.float64), GRID.center_mm())
    right = register(fixed, moving, QUICK, start, ball())
    assert right.trusted is True
    assert right.reasons == ()
    noise = torch.rand(moving.grid.shape, generator=torch.Generator().manual_seed(9))
    wrong = register(fixed, Image(noise, moving.grid, "noise"), QUICK, start, ball())
    assert wrong.trusted is False
    assert wrong.expected_sre_mm is not None
    assert wrong.expected_sre_mm > 4
    assert "its expected SRE is" in wrong.reasons[0]
    assert "--initial" in wrong.reasons[0]


def test_a_rotation_by_half_a_turn_is_solved_or_not_trusted() -> None:
    fixed, moving, truth = moved_pair()
    turned = Rigid.from_parameters(torch.tensor([0.0, 0, 0, 0, 0, 180], dtype=torch.float64), GRID.center_mm())
    result = register(fixed, moving, QUICK, truth @ turned, ball())
    error = float(mean_displacement_mm(result.fixed_to_moving, truth, ball().points_mm()))
    assert error < 1 or result.trusted is False


@pytest.mark.parametrize(
    "wrong",
    [
        {"shrink_factors": (2, 1)},
        {"shrink_factors": (), "smoothing_mm": ()},
        {"bins": 4},
        {"samples": 0},
        {"seed": 0},
        {"margin_mm": -1.0},
        {"initialisations": 0},
        {"motion_penalty": -1.0},
        {"last_step_mm": 2.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        MutualInformationSettings(**wrong)


def test_settings_are_given_as_text() -> None:
    assert MutualInformation().settings()["shrink_factors"] == "(4, 2, 1)"


def test_the_setting_chosen_on_real_pairs_goes_by_its_own_name() -> None:
    method = named_method("mi-best", torch.device("cpu"))
    assert method.name == "mi-best"
    assert method.settings() == MutualInformation(MI_BEST).settings() != MutualInformation().settings()
