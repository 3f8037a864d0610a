"""Passes, initialisations, search and expected errors, with networks whose errors are known."""

from dataclasses import replace
from math import isnan
from typing import Any

import pytest
import torch
from tests.registration.toys import (
    CENTER_MM,
    TRUTH,
    Finder,
    Framed,
    HonestFinder,
    blob_problem,
    method,
    shift,
    stage,
)
from torch import Tensor, nn

from crossalign.errors import InputError, TransformError
from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.images import surface_points
from crossalign.models import Calibration, Cascade, Ensemble, RunSettings
from crossalign.models.arrangement import Arrangement
from crossalign.models.run_settings import ORIENTATIONS_DEG
from crossalign.registration import NetworkRegistration, Problem, context, register
from crossalign.registration.search import candidate_motions

INITIAL = TRUTH @ shift(9.0, -6.0, 7.0)
FLIP = Rigid(torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)), torch.tensor([70.0, -9, 3]).double())


def registration(network: nn.Module, calibration: Calibration | None = None, **settings: Any) -> NetworkRegistration:
    plain = method(Cascade((stage(network),)), **settings)
    return replace(plain, model=replace(plain.model, calibration=calibration))


def error_mm(found: Rigid, problem: Problem) -> float:
    assert problem.fixed_mask is not None
    return float(mean_displacement_mm(found, TRUTH, surface_points(problem.fixed_mask)))


def test_a_stage_that_halves_the_error_is_repeated_until_it_no_longer_moves() -> None:
    problem = blob_problem(INITIAL)
    solution = registration(Finder(0.5), max_passes=20).solve(problem)
    errors = [error_mm(step.fixed_to_moving, problem) for step in solution.steps]
    moved = [a - b for a, b in zip([error_mm(INITIAL, problem), *errors], errors, strict=False)]
    assert errors[-1] < 0.25
    assert 5 < len(errors) < 12
    assert moved[-1] < 0.1 <= moved[-2]
    assert [step.name for step in solution.steps][:2] == [
        "stage 1 (feature-reg), pass 1",
        "stage 1 (feature-reg), pass 2",
    ]
    assert solution.warnings == ()


def test_a_stage_that_does_not_converge_is_warned_of_with_how_far_it_still_moves() -> None:
    assert registration(Finder(0.5), max_passes=2).solve(blob_problem(INITIAL)).warnings == ()
    solution = registration(Finder(0.5), max_passes=4).solve(blob_problem(INITIAL))
    assert len(solution.steps) == 4
    (warning,) = solution.warnings
    assert warning.startswith("stage 1 (feature-reg) did not converge in 4 passes: the last one still moved 0.")


@pytest.mark.parametrize("quarters", [0, 1])
def test_later_passes_apply_a_fraction_of_their_correction_along_the_axes_of_the_patient(quarters: int) -> None:
    initial, orientation = TRUTH @ shift(9.0, -6.0, 7.0), ORIENTATIONS_DEG[quarters]

    def left_mm(passes: int, **settings: Any) -> Tensor:
        solution = registration(Finder(0.5), max_passes=passes, orientation_correction=orientation, **settings).solve(
            blob_problem(initial)
        )
        to_truth = TRUTH.inverse() @ solution.steps[-1].fixed_to_moving
        return to_truth.apply(CENTER_MM[None])[0] - CENTER_MM

    once, twice = left_mm(1), left_mm(2)
    damped = left_mm(2, refinement_step=0.5, refinement_step_z=0.0)
    torch.testing.assert_close(damped[:2], (once + twice)[:2] / 2, atol=0.02, rtol=0)
    torch.testing.assert_close(damped[2], once[2], atol=0.02, rtol=0)
    assert float((once - twice).abs().min()) > 1.0
    torch.testing.assert_close(left_mm(1, refinement_step=0.5, refinement_step_z=0.0), once)


def test_the_step_size_of_later_passes_counts_for_rotations_too() -> None:
    class Turner(nn.Module):
        def forward(self, fixed: Tensor, _moving: Tensor) -> Tensor:
            return torch.tensor([[0.0, 0, 0, 0, 0, 8.0]]).expand(len(fixed), 6)

    solution = registration(Turner(), max_passes=2, refinement_step=0.25, refinement_step_z=0.0).solve(
        blob_problem(INITIAL)
    )
    rotation = INITIAL.inverse() @ solution.steps[-1].fixed_to_moving
    assert float(rotation.angle_deg()) == pytest.approx(10.0, abs=1e-3)


def test_every_stage_of_a_cascade_has_its_passes() -> None:
    both = method(Cascade((stage(Finder(0.5)), stage(Finder(1.0)))), max_passes=12)
    names = [step.name for step in both.solve(blob_problem(INITIAL)).steps]
    assert "stage 1 (feature-reg), pass 3" in names
    assert names[-1].startswith("stage 2")


def test_all_initialisations_are_one_batch_and_agree_where_the_network_is_right() -> None:
    model, problem = Finder(), blob_problem(INITIAL)
    solution = registration(model, initialisations=7, perturbation_mm=5.0).solve(problem)
    assert model.batches == [7]
    alone = registration(Finder()).solve(problem)
    assert len(solution.steps) == len(alone.steps) == 1
    # Its shift is right from every initialisation; the perturbed rotations stay, and show as dispersion.
    assert error_mm(solution.steps[-1].fixed_to_moving, problem) < 0.5
    assert solution.expectation.dispersion_mm is not None
    assert 0.2 < solution.expectation.dispersion_mm < 5
    assert alone.expectation.dispersion_mm is None


def test_a_large_batch_is_cut_to_what_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "CROP_BATCH_VOXELS", 4 * 16**3)
    model, whole = Finder(0.8), Finder(0.8)
    cut = registration(model, initialisations=10, perturbation_mm=2.0).solve(blob_problem(INITIAL))
    assert model.batches == [4, 4, 2]
    monkeypatch.undo()
    at_once = registration(whole, initialisations=10, perturbation_mm=2.0).solve(blob_problem(INITIAL))
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

    problem = blob_problem(INITIAL)
    several: tuple[dict[str, Any], ...] = (
        {"initialisations": 1},
        {"initialisations": 5},
        {"initialisations": 5, "max_passes": 3},
    )
    for settings in several:
        with pytest.raises(TransformError, match="NaN"):
            register(problem.fixed, problem.moving, registration(Broken(), **settings), INITIAL, problem.fixed_mask)


def test_averaging_lowers_the_noise_of_a_noisy_network() -> None:
    class Noisy(Finder):
        def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
            answer = super().forward(fixed, moving)
            noise = (1e3 * moving.flatten(1)[:, ::37].sum(1)).sin()  # depends on the crop alone
            return answer + torch.stack([noise * 3, -noise * 2, noise.roll(0) * 3, *[0 * noise] * 3], dim=1)

    problem = blob_problem(INITIAL)
    found = [registration(Noisy(), initialisations=count, perturbation_mm=1.0).solve(problem) for count in (1, 25)]
    alone, many = (error_mm(solution.steps[-1].fixed_to_moving, problem) for solution in found)
    assert many < 0.8 * max(alone, 2.0)
    assert found[1].expectation.dispersion_mm is not None
    assert found[1].expectation.dispersion_mm > 1.5


def test_an_ensemble_follows_a_change_of_the_moving_frame() -> None:
    model = Finder(0.7)
    plain = registration(model, initialisations=6, perturbation_mm=6.0, max_passes=2).solve(blob_problem(INITIAL))
    moved = registration(model, initialisations=6, perturbation_mm=6.0, max_passes=2).solve(blob_problem(INITIAL, FLIP))
    points = surface_points(blob_problem(INITIAL).fixed_mask)  # type: ignore[arg-type]
    back = FLIP.inverse() @ moved.steps[-1].fixed_to_moving
    assert float(mean_displacement_mm(back, plain.steps[-1].fixed_to_moving, points)) < 0.05
    assert moved.expectation.dispersion_mm == pytest.approx(plain.expectation.dispersion_mm, abs=0.05)


def test_the_same_problem_gives_the_same_answer_and_another_seed_another() -> None:
    problem = blob_problem(INITIAL)
    first, second = (registration(Finder(0.8), initialisations=4).solve(problem) for _ in range(2))
    other = registration(Finder(0.8), initialisations=4, seed=1).solve(problem)
    matrix = first.steps[-1].fixed_to_moving.matrix()
    assert torch.equal(second.steps[-1].fixed_to_moving.matrix(), matrix)
    assert not torch.equal(other.steps[-1].fixed_to_moving.matrix(), matrix)


def test_what_the_network_expects_is_reported_and_without_a_calibration_not_judged() -> None:
    problem = blob_problem(INITIAL)
    result = register(problem.fixed, problem.moving, registration(HonestFinder(0.5)), INITIAL, problem.fixed_mask)
    assert result.expected_sre_mm == pytest.approx(0.25 + 0.5 * error_mm(INITIAL, problem), abs=0.3)
    assert result.trusted is None
    assert result.warnings == ()
    silent = register(problem.fixed, problem.moving, registration(Finder()), INITIAL, problem.fixed_mask)
    assert (silent.expected_sre_mm, silent.trusted) == (None, None)


def test_a_calibration_makes_an_expected_error_and_flags_the_large_ones() -> None:
    problem = blob_problem(INITIAL)
    strict, mild = Calibration(1.0, 0.5, 2.0, 3.0), Calibration(1.0, 0.5, 2.0, 300.0)
    solutions = [
        registration(HonestFinder(0.5), initialisations=5, calibration=c).solve(problem) for c in (strict, mild)
    ]
    expectation = solutions[0].expectation
    assert expectation.dispersion_mm is not None
    assert expectation.network_sre_mm is not None
    assert expectation.expected_sre_mm == pytest.approx(
        1 + 0.5 * expectation.dispersion_mm + 2 * expectation.network_sre_mm
    )
    assert [solution.expectation.trusted for solution in solutions] == [False, True]
    (reason,) = solutions[0].expectation.reasons
    assert reason.startswith("its expected SRE is ")
    assert solutions[1].expectation.reasons == ()
    assert registration(Finder(), calibration=strict).settings()["trusted"] == "up to an expected SRE of 3 mm"


def test_a_calibration_that_needs_several_initialisations_says_so() -> None:
    solution = registration(HonestFinder(), calibration=Calibration(0.0, 1.0, 1.0, 5.0)).solve(blob_problem(INITIAL))
    assert solution.expectation.expected_sre_mm is None
    assert any("--initialisations 2" in warning for warning in solution.warnings)


def test_an_expectation_that_is_no_number_is_not_trusted() -> None:
    class Lost(Finder):
        def forward_with_error(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
            return self(fixed, moving), torch.full((len(moving),), torch.nan)

    solution = registration(Lost(), calibration=Calibration(1.0, 0.0, 1.0, 5.0)).solve(blob_problem(INITIAL))
    assert solution.expectation.trusted is False
    assert solution.expectation.expected_sre_mm is not None
    assert isnan(solution.expectation.expected_sre_mm)


@pytest.mark.parametrize("way", [(17.0, -14.0, 16.0), (-25.0, 0.0, 0.0), (0.0, 12.0, -22.0)])
def test_a_search_finds_what_a_network_of_12_mm_reach_does_not(way: tuple[float, float, float]) -> None:
    far = TRUTH @ shift(*way)
    problem = blob_problem(far)
    alone = registration(HonestFinder(reach_mm=12.0), max_passes=3).solve(problem)
    assert error_mm(alone.steps[-1].fixed_to_moving, problem) > 20
    model = HonestFinder(reach_mm=12.0)
    solution = registration(model, search=True, search_rotation_deg=0.0).solve(problem)
    assert sum(model.batches) <= 28
    assert solution.steps[0].name.startswith("search (")
    assert len(solution.steps) == 2
    assert error_mm(solution.steps[-1].fixed_to_moving, problem) < 0.5


def test_a_search_needs_a_network_that_predicts_its_own_error() -> None:
    with pytest.raises(InputError, match="predicts its own error"):
        registration(Finder(), search=True)


def test_the_grid_of_the_search() -> None:
    plain, rotated = candidate_motions(15.0, 0.0), candidate_motions(15.0, 20.0)
    assert plain.shape == (27, 6)
    assert rotated.shape == (189, 6)
    assert len(rotated.unique(dim=0)) == 189
    assert float(rotated[0].abs().max()) == 0
    assert set(rotated.unique().tolist()) == {-20.0, -15.0, 0.0, 15.0, 20.0}
    assert int((rotated[:, 3:] != 0).sum(1).max()) == 1


def test_without_a_mask_distances_are_measured_over_the_crop() -> None:
    bare = blob_problem(INITIAL, mask=False)
    solution = registration(Finder(0.5), initialisations=3, max_passes=20).solve(bare)
    assert solution.expectation.dispersion_mm is not None
    found = solution.steps[-1].fixed_to_moving
    assert float((found.apply(CENTER_MM[None]) - TRUTH.apply(CENTER_MM[None])).norm()) < 0.3


def test_settings_are_listed_only_where_they_are_not_the_defaults() -> None:
    plain = registration(Finder())
    assert list(plain.settings()) == ["stage 1"]
    expectation = plain.with_run(RunSettings(initialisations=8, max_passes=5)).settings()["run"]
    assert expectation == "8 initialisations, perturbed by 10 mm (seed 0), up to 5 passes, until one moves under 0.1 mm"


@pytest.mark.parametrize("orientation", ORIENTATIONS_DEG)
def test_crops_may_be_rotated_and_the_answer_is_the_same(orientation: int) -> None:
    problem = blob_problem(INITIAL)
    plain = registration(Finder()).solve(problem).steps[-1].fixed_to_moving
    rotated = registration(Finder(), orientation_correction=orientation).solve(problem)
    assert rotated.warnings == ()
    found = rotated.steps[-1].fixed_to_moving
    torch.testing.assert_close(found.matrix(), plain.matrix(), atol=0.02, rtol=1e-3)
    assert error_mm(found, problem) < 0.5


def test_of_several_orientations_the_one_with_the_smallest_expected_error_is_used() -> None:
    for x, y, best in ((-9.0, 0.0, 90), (0.0, 9.0, 180), (9.0, 0.0, 270), (0.0, -9.0, 0)):
        problem = blob_problem(TRUTH @ shift(x, y, 0.0))  # the way back is the opposite of this shift
        solution = registration(Framed(), orientation_correction="auto").solve(problem)
        assert error_mm(solution.steps[-1].fixed_to_moving, problem) < 0.5
        assert [f"rotated by {best} degrees" in warning for warning in solution.warnings] == [True] * (best > 0)


def test_orientations_are_chosen_by_expected_errors_alone() -> None:
    with pytest.raises(InputError, match="to find the orientation the first stage must predict its own error"):
        registration(Finder(), orientation_correction="auto")
    with pytest.raises(InputError, match="to find the orientation the first stage must predict its own error"):
        method(Ensemble((stage(HonestFinder()), stage(Finder()))), orientation_correction="auto")


def test_an_ensembles_members_answer_from_the_same_initialisation_and_are_averaged() -> None:
    problem, before = blob_problem(INITIAL), error_mm(INITIAL, blob_problem(INITIAL))
    half, whole = Finder(0.5), Finder(1.0)
    both = method(Ensemble((stage(half), stage(whole)))).solve(problem)
    (step,) = both.steps
    assert step.name == "ensemble of 2"
    assert half.batches == whole.batches == [1]
    assert abs(error_mm(step.fixed_to_moving, problem) - before / 4) < 0.4  # between a half and nothing of it
    assert both.expectation.dispersion_mm is not None
    assert abs(both.expectation.dispersion_mm - before / 4) < 0.4
    assert [(one.stage_number, one.weight) for one in step.applications] == [(1, 0.5), (2, 0.5)]
    one_by_one = method(Cascade((stage(half), stage(whole)))).solve(problem)
    assert len(one_by_one.steps) == 2
    expected = method(Ensemble((stage(HonestFinder(0.5)), stage(HonestFinder())))).solve(problem).expectation
    assert expected.network_sre_mm is not None
    assert abs(expected.network_sre_mm - (before / 4 + 0.25)) < 0.4
    mixed = method(Ensemble((stage(HonestFinder(0.5)), stage(Finder()))))
    assert mixed.solve(problem).expectation.network_sre_mm is None


def test_cascades_and_ensembles_nest() -> None:
    problem, before = blob_problem(INITIAL), error_mm(INITIAL, blob_problem(INITIAL))

    def left_mm(arrangement: Arrangement) -> float:
        return error_mm(method(arrangement).solve(problem).steps[-1].fixed_to_moving, problem)

    half, most, none = stage(Finder(0.5)), stage(Finder(0.75)), stage(Finder(0.0))
    in_turn = Cascade((Ensemble((half, none)), Ensemble((most, none))))  # leave 3/4 of it, then 5/8 of that
    assert left_mm(in_turn) == pytest.approx(before * 15 / 32, abs=0.5)
    averaged = Ensemble((Cascade((half, half)), none))  # the mean of 1/4 and all of it
    assert left_mm(averaged) == pytest.approx(before * 5 / 8, abs=0.5)
    deep = Ensemble((Cascade((Ensemble((half, none)), half)), none))  # of 3/8 and all of it
    assert left_mm(deep) == pytest.approx(before * 11 / 16, abs=0.5)
    solution = method(deep).solve(problem)
    assert [step.name for step in solution.steps] == ["ensemble of 2"]
    weights = [(one.stage_number, one.weight) for one in solution.steps[0].applications]
    assert weights == [(1, 0.25), (2, 0.25), (1, 0.5), (2, 0.5)]  # each link of the cascade sums to its weight
    assert [step.name for step in method(in_turn).solve(problem).steps] == [
        "stage 1 (ensemble of 2)",
        "stage 2 (ensemble of 2)",
    ]


def test_the_answers_of_a_step_and_their_weights_make_its_transform() -> None:
    networks = method(Ensemble((stage(Finder(0.5)), stage(Finder()))), initialisations=5, max_passes=2)
    solution = networks.solve(blob_problem(INITIAL))
    assert len(solution.steps) == 2
    before = INITIAL
    for number, step in enumerate(solution.steps, start=1):
        used = step.applications
        assert [(one.pass_number, one.initialisation) for one in used] == [(number, k) for k in range(5)] * 2
        assert sum(one.weight for one in used) == pytest.approx(1)
        torch.testing.assert_close(used[0].initial.matrix(), before.matrix())
        mean = sum(one.weight * one.answer.apply(CENTER_MM[None])[0] for one in used)
        found = step.fixed_to_moving.apply(CENTER_MM[None])[0]
        assert float((found - mean).norm()) < 0.3  # robust weights are of the points' centre, which is near
        before = step.fixed_to_moving
