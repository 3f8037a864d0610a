"""Passes, starts, search and expected errors of a cascade, with networks whose errors are known."""

from dataclasses import replace
from math import isnan

import pytest
import torch
from tests.registration.toys import (
    CENTER_MM,
    CPU,
    TRUTH,
    Finder,
    Framed,
    HonestFinder,
    blob_problem,
    shift,
    stage,
)
from torch import Tensor, nn

from crossalign.errors import InputError, TransformError
from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.images import surface_points
from crossalign.models.cascade_settings import HEADER_TURNS, Calibration, CascadeSettings, GridSearch
from crossalign.registration import Cascade, Problem, register, stage_run
from crossalign.registration.search import candidate_motions

START = TRUTH @ shift(9.0, -6.0, 7.0)
FLIP = Rigid(torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)), torch.tensor([70.0, -9, 3]).double())


def cascade(model: nn.Module, **settings: object) -> Cascade:
    return Cascade((stage(model),), CPU, "toy", CascadeSettings(**settings))  # type: ignore[arg-type]


def error_mm(found: Rigid, problem: Problem) -> float:
    assert problem.fixed_mask is not None
    return float(mean_displacement_mm(found, TRUTH, surface_points(problem.fixed_mask)))


def test_a_stage_that_halves_the_error_is_repeated_until_it_stands_still() -> None:
    problem = blob_problem(START)
    solution = cascade(Finder(0.5), max_passes=20).solve(problem)
    errors = [error_mm(step.fixed_to_moving, problem) for step in solution.steps]
    moved = [a - b for a, b in zip([error_mm(START, problem), *errors], errors, strict=False)]
    assert errors[-1] < 0.25
    assert 5 < len(errors) < 12
    assert moved[-1] < 0.1 <= moved[-2]
    assert [step.name for step in solution.steps][:2] == [
        "stage 1 (feature-reg), pass 1",
        "stage 1 (feature-reg), pass 2",
    ]
    assert solution.warnings == ()


def test_a_stage_that_does_not_settle_is_warned_of_with_how_far_it_still_moves() -> None:
    assert cascade(Finder(0.5), max_passes=2).solve(blob_problem(START)).warnings == ()
    solution = cascade(Finder(0.5), max_passes=4).solve(blob_problem(START))
    assert len(solution.steps) == 4
    (warning,) = solution.warnings
    assert warning.startswith("stage 1 (feature-reg) did not settle in 4 passes: the last one still moved 0.")


@pytest.mark.parametrize("quarters", [0, 1])
def test_later_passes_go_a_share_of_the_way_along_the_axes_of_the_patient(quarters: int) -> None:
    start, turn = TRUTH @ shift(9.0, -6.0, 7.0), HEADER_TURNS[quarters]

    def left_mm(passes: int, **settings: float) -> Tensor:
        solution = cascade(Finder(0.5), max_passes=passes, header_turns_deg=(turn,), **settings).solve(
            blob_problem(start)
        )
        to_truth = TRUTH.inverse() @ solution.steps[-1].fixed_to_moving
        return to_truth.apply(CENTER_MM[None])[0] - CENTER_MM

    once, twice = left_mm(1), left_mm(2)
    damped = left_mm(2, later_share=0.5, later_share_z=0.0)
    torch.testing.assert_close(damped[:2], (once + twice)[:2] / 2, atol=0.02, rtol=0)
    torch.testing.assert_close(damped[2], once[2], atol=0.02, rtol=0)
    assert float((once - twice).abs().min()) > 1.0
    torch.testing.assert_close(left_mm(1, later_share=0.5, later_share_z=0.0), once)


def test_shares_of_later_passes_count_for_turns_too() -> None:
    class Turner(nn.Module):
        def forward(self, fixed: Tensor, _moving: Tensor) -> Tensor:
            return torch.tensor([[0.0, 0, 0, 0, 0, 8.0]]).expand(len(fixed), 6)

    solution = cascade(Turner(), max_passes=2, later_share=0.25, later_share_z=0.0).solve(blob_problem(START))
    turned = START.inverse() @ solution.steps[-1].fixed_to_moving
    assert float(turned.angle_deg()) == pytest.approx(10.0, abs=1e-3)


def test_every_stage_of_a_cascade_has_its_passes() -> None:
    both = Cascade((stage(Finder(0.5)), stage(Finder(1.0))), CPU, "toy", CascadeSettings(max_passes=12))
    names = [step.name for step in both.solve(blob_problem(START)).steps]
    assert "stage 1 (feature-reg), pass 3" in names
    assert names[-1].startswith("stage 2")


def test_all_starts_go_through_the_network_as_one_batch_and_agree_where_it_is_right() -> None:
    model, problem = Finder(), blob_problem(START)
    solution = cascade(model, starts=7, spread_mm=5.0).solve(problem)
    assert model.batches == [7]
    alone = cascade(Finder()).solve(problem)
    assert len(solution.steps) == len(alone.steps) == 1
    # Its shift is right from every start; the perturbed turns stay, lie about the middle, and show as dispersion.
    assert error_mm(solution.steps[-1].fixed_to_moving, problem) < 0.5
    assert solution.expectation.dispersion_mm is not None
    assert 0.2 < solution.expectation.dispersion_mm < 5
    assert alone.expectation.dispersion_mm is None


def test_a_large_batch_is_cut_to_what_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_run, "BATCH_VOXELS", 4 * 16**3)
    model, whole = Finder(0.8), Finder(0.8)
    cut = cascade(model, starts=10, spread_mm=2.0).solve(blob_problem(START))
    assert model.batches == [4, 4, 2]
    monkeypatch.undo()
    at_once = cascade(whole, starts=10, spread_mm=2.0).solve(blob_problem(START))
    assert whole.batches == [10]
    torch.testing.assert_close(
        cut.steps[-1].fixed_to_moving.matrix(), at_once.steps[-1].fixed_to_moving.matrix(), atol=1e-5, rtol=0
    )


def test_an_answer_that_is_no_number_is_refused_not_averaged_away() -> None:
    class Broken(Finder):
        def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
            answer = super().forward(fixed, moving)
            answer[-1] = torch.nan
            return answer

    problem = blob_problem(START)
    for settings in ({"starts": 1}, {"starts": 5}, {"starts": 5, "max_passes": 3}):
        with pytest.raises(TransformError, match="NaN"):
            register(problem.fixed, problem.moving, cascade(Broken(), **settings), START, problem.fixed_mask)


def test_averaging_lowers_the_noise_of_a_noisy_network() -> None:
    class Noisy(Finder):
        def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
            answer = super().forward(fixed, moving)
            noise = (1e3 * moving.flatten(1)[:, ::37].sum(1)).sin()  # depends on the crop alone
            return answer + torch.stack([noise * 3, -noise * 2, noise.roll(0) * 3, *[0 * noise] * 3], dim=1)

    problem = blob_problem(START)
    found = [cascade(Noisy(), starts=count, spread_mm=1.0).solve(problem) for count in (1, 25)]
    alone, many = (error_mm(solution.steps[-1].fixed_to_moving, problem) for solution in found)
    assert many < 0.8 * max(alone, 2.0)
    assert found[1].expectation.dispersion_mm is not None
    assert found[1].expectation.dispersion_mm > 1.5


def test_an_ensemble_follows_a_change_of_the_moving_frame() -> None:
    model = Finder(0.7)
    plain = cascade(model, starts=6, spread_mm=6.0, max_passes=2).solve(blob_problem(START))
    moved = cascade(model, starts=6, spread_mm=6.0, max_passes=2).solve(blob_problem(START, FLIP))
    points = surface_points(blob_problem(START).fixed_mask)  # type: ignore[arg-type]
    back = FLIP.inverse() @ moved.steps[-1].fixed_to_moving
    assert float(mean_displacement_mm(back, plain.steps[-1].fixed_to_moving, points)) < 0.05
    assert moved.expectation.dispersion_mm == pytest.approx(plain.expectation.dispersion_mm, abs=0.05)


def test_the_same_problem_gives_the_same_answer_and_another_seed_another() -> None:
    problem = blob_problem(START)
    first, second = (cascade(Finder(0.8), starts=4).solve(problem) for _ in range(2))
    other = cascade(Finder(0.8), starts=4, seed=1).solve(problem)
    matrix = first.steps[-1].fixed_to_moving.matrix()
    assert torch.equal(second.steps[-1].fixed_to_moving.matrix(), matrix)
    assert not torch.equal(other.steps[-1].fixed_to_moving.matrix(), matrix)


def test_what_the_network_expects_is_told_and_without_a_calibration_not_judged() -> None:
    problem = blob_problem(START)
    result = register(problem.fixed, problem.moving, cascade(HonestFinder(0.5)), START, problem.fixed_mask)
    assert result.expected_sre_mm == pytest.approx(0.25 + 0.5 * error_mm(START, problem), abs=0.3)
    assert result.trusted is None
    assert result.warnings == ()
    silent = register(problem.fixed, problem.moving, cascade(Finder()), START, problem.fixed_mask)
    assert (silent.expected_sre_mm, silent.trusted) == (None, None)


def test_a_calibration_turns_doubts_into_an_expected_error_and_flags_the_large_ones() -> None:
    problem = blob_problem(START)
    strict, mild = Calibration(1.0, 0.5, 2.0, 3.0), Calibration(1.0, 0.5, 2.0, 300.0)
    solutions = [cascade(HonestFinder(0.5), starts=5, calibration=c).solve(problem) for c in (strict, mild)]
    told = solutions[0].expectation
    assert told.dispersion_mm is not None
    assert told.network_sre_mm is not None
    assert told.expected_sre_mm == pytest.approx(1 + 0.5 * told.dispersion_mm + 2 * told.network_sre_mm)
    assert [solution.expectation.trusted for solution in solutions] == [False, True]
    (warning,) = solutions[0].warnings
    assert warning.startswith("do not trust this result: its expected SRE is ")
    assert solutions[1].warnings == ()
    assert cascade(Finder(), calibration=strict).settings()["trusted"] == "up to an expected SRE of 3 mm"


def test_a_calibration_that_needs_several_starts_says_so() -> None:
    solution = cascade(HonestFinder(), calibration=Calibration(0.0, 1.0, 1.0, 5.0)).solve(blob_problem(START))
    assert solution.expectation.expected_sre_mm is None
    assert any("--starts 2 or more" in warning for warning in solution.warnings)


def test_an_expectation_that_is_no_number_is_not_trusted() -> None:
    class Lost(Finder):
        def forward_with_error(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
            return self(fixed, moving), torch.full((len(moving),), torch.nan)

    solution = cascade(Lost(), calibration=Calibration(1.0, 0.0, 1.0, 5.0)).solve(blob_problem(START))
    assert solution.expectation.trusted is False
    assert solution.expectation.expected_sre_mm is not None
    assert isnan(solution.expectation.expected_sre_mm)


@pytest.mark.parametrize("way", [(17.0, -14.0, 16.0), (-25.0, 0.0, 0.0), (0.0, 12.0, -22.0)])
def test_a_search_finds_what_a_network_of_12_mm_reach_does_not(way: tuple[float, float, float]) -> None:
    far = TRUTH @ shift(*way)
    problem = blob_problem(far)
    alone = cascade(HonestFinder(reach_mm=12.0), max_passes=3).solve(problem)
    assert error_mm(alone.steps[-1].fixed_to_moving, problem) > 20
    model = HonestFinder(reach_mm=12.0)
    solution = cascade(model, search=GridSearch(15.0, 0.0)).solve(problem)
    assert sum(model.batches) <= 28
    assert solution.steps[0].name.startswith("search (")
    assert len(solution.steps) == 2
    assert error_mm(solution.steps[-1].fixed_to_moving, problem) < 0.5


def test_a_search_needs_a_network_that_expects_its_own_error() -> None:
    with pytest.raises(InputError, match="expects its own error"):
        cascade(Finder(), search=GridSearch())


def test_the_grid_of_the_search() -> None:
    plain, turned = candidate_motions(GridSearch(15.0, 0.0)), candidate_motions(GridSearch(15.0, 20.0))
    assert plain.shape == (27, 6)
    assert turned.shape == (189, 6)
    assert len(turned.unique(dim=0)) == 189
    assert float(turned[0].abs().max()) == 0
    assert set(turned.unique().tolist()) == {-20.0, -15.0, 0.0, 15.0, 20.0}
    assert int((turned[:, 3:] != 0).sum(1).max()) == 1


def test_without_a_mask_distances_are_told_over_the_crop() -> None:
    bare = blob_problem(START, mask=False)
    solution = cascade(Finder(0.5), starts=3, max_passes=20).solve(bare)
    assert solution.expectation.dispersion_mm is not None
    found = solution.steps[-1].fixed_to_moving
    assert float((found.apply(CENTER_MM[None]) - TRUTH.apply(CENTER_MM[None])).norm()) < 0.3


def test_settings_are_told_only_where_they_are_not_the_plain_ones() -> None:
    plain = cascade(Finder())
    assert list(plain.settings()) == ["stage 1"]
    told = replace(plain, run=CascadeSettings(starts=8, max_passes=5)).settings()["run"]
    assert told == "8 starts within 10 mm (seed 0), up to 5 passes, until one moves under 0.1 mm"


@pytest.mark.parametrize("turn", HEADER_TURNS)
def test_crops_may_be_turned_and_the_answer_is_the_same(turn: int) -> None:
    problem = blob_problem(START)
    plain = cascade(Finder()).solve(problem).steps[-1].fixed_to_moving
    turned = cascade(Finder(), header_turns_deg=(turn,)).solve(problem)
    assert turned.warnings == ()
    found = turned.steps[-1].fixed_to_moving
    torch.testing.assert_close(found.matrix(), plain.matrix(), atol=0.02, rtol=1e-3)
    assert error_mm(found, problem) < 0.5


def test_of_several_turns_the_one_with_the_least_doubt_is_taken_and_told() -> None:
    for x, y, best in ((-9.0, 0.0, 90), (0.0, 9.0, 180), (9.0, 0.0, 270), (0.0, -9.0, 0)):
        problem = blob_problem(TRUTH @ shift(x, y, 0.0))  # the way back is the opposite of this shift
        solution = cascade(Framed(), header_turns_deg=HEADER_TURNS).solve(problem)
        assert error_mm(solution.steps[-1].fixed_to_moving, problem) < 0.5
        assert [f"turned by {best} degrees" in warning for warning in solution.warnings] == [True] * (best > 0)


def test_turns_are_chosen_by_doubt_alone() -> None:
    with pytest.raises(InputError, match="how the headers are turned the first stage must expect"):
        cascade(Finder(), header_turns_deg=(0, 90))
    both, settings = (stage(HonestFinder()), stage(Finder())), CascadeSettings(header_turns_deg=(0, 90), together=True)
    with pytest.raises(InputError, match="how the headers are turned the first stage must expect"):
        Cascade(both, CPU, "toy", settings)


def test_stages_together_answer_from_the_same_start_and_are_averaged() -> None:
    problem, start = blob_problem(START), error_mm(START, blob_problem(START))
    half, whole = Finder(0.5), Finder(1.0)
    both = Cascade((stage(half), stage(whole)), CPU, "toy", CascadeSettings(together=True)).solve(problem)
    (step,) = both.steps
    assert step.name == "2 networks together"
    assert half.batches == whole.batches == [1]
    assert abs(error_mm(step.fixed_to_moving, problem) - start / 4) < 0.4  # between a half and nothing of it
    assert both.expectation.dispersion_mm is not None
    assert abs(both.expectation.dispersion_mm - start / 4) < 0.4
    one_by_one = Cascade((stage(half), stage(whole)), CPU, "toy").solve(problem)
    assert len(one_by_one.steps) == 2
    expected = Cascade((stage(HonestFinder(0.5)), stage(HonestFinder())), CPU, "toy", CascadeSettings(together=True))
    told = expected.solve(problem).expectation.network_sre_mm
    assert told is not None
    assert abs(told - (start / 4 + 0.25)) < 0.4
    mixed = Cascade((stage(HonestFinder(0.5)), stage(Finder())), CPU, "toy", CascadeSettings(together=True))
    assert mixed.solve(problem).expectation.network_sre_mm is None
