"""The evidence of networks: worse where the answer is wrong, and where the crops show no such pair."""

from dataclasses import replace

import pytest
import torch

from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap
from crossalign.registration import NetworkRegistration, Problem, named_method
from crossalign.registration.evidence import EVIDENCE, crop_evidence, gather_evidence
from crossalign.registration.pose_prior import TRANSRECTAL
from crossalign.simulation import simulate_pairs

SHAPE = (1, 1, 32, 32, 32)


@pytest.fixture(scope="module")
def problem() -> Problem:
    pairs = simulate_pairs(1, torch.Generator().manual_seed(3))
    mask = LabelMap((pairs.fixed_mask[0, 0] > 0.5).long(), pairs.fixed_grid)
    fixed, moving = Image(pairs.fixed[0, 0], pairs.fixed_grid), Image(pairs.moving[0, 0], pairs.moving_grid)
    return Problem(fixed, moving, pairs.fixed_to_moving[0].to("cpu", torch.float64), mask, prior=TRANSRECTAL)


@pytest.fixture(scope="module")
def method() -> NetworkRegistration:
    found = named_method("correspondence-image")
    assert isinstance(found, NetworkRegistration)
    return found


def evidence(method: NetworkRegistration, problem: Problem, found: Rigid) -> dict[str, float]:
    context = method.context(problem)
    working = context.frame.moving_to_frame @ found @ context.frame.fixed_to_frame.inverse()
    return gather_evidence(context, method.model.stages[:2], working)


def test_it_is_better_at_the_answer_than_beside_it(method: NetworkRegistration, problem: Problem) -> None:
    truth = problem.initial
    beside = truth @ Rigid.from_parameters(torch.tensor([14.0, 10.0, 0.0, 0.0, 0.0, 25.0]).double(), problem.center_mm)
    right, wrong = (evidence(method, problem, found) for found in (truth, beside))
    assert set(right) <= set(EVIDENCE)
    assert {"fixed_dice", "prior_deg", "check_sre_mm"} <= set(right)
    assert "unlikely" not in right
    asked = evidence(method, replace(problem, orientation_probability=0.01), truth)
    assert asked["unlikely"] == pytest.approx(2.0)
    assert right["start_mm"] == pytest.approx(0, abs=1e-6)
    assert wrong["start_mm"] > 14
    for name in ("moving_dice", "center_gap_mm", "return_mm", "prior_deg"):
        worse = right[name] - wrong[name] if EVIDENCE[name] else wrong[name] - right[name]
        assert worse > 0, name
    assert right["fixed_dice"] > 0.8
    assert right["moving_dice"] > 0.75


def test_what_is_not_known_is_left_out(method: NetworkRegistration, problem: Problem) -> None:
    less = evidence(method, replace(problem, fixed_mask=None, prior=None), problem.initial)
    assert not {"fixed_dice", "prior_deg"} & set(less)
    assert 0 <= less["moving_dice"] <= 1
    broken = Rigid(torch.full((3, 3), torch.nan, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    assert gather_evidence(method.context(problem), method.model.stages, broken) == {}


def test_the_same_answer_gives_the_same_evidence(method: NetworkRegistration, problem: Problem) -> None:
    assert evidence(method, problem, problem.initial) == evidence(method, problem, problem.initial)


def test_crops_of_noise_of_one_value_and_of_one_modality() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(SHAPE, generator=generator)
    smooth = torch.nn.functional.avg_pool3d(torch.rand(SHAPE, generator=generator), 7, 1, 3)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min()) + 0.01
    assert crop_evidence(smooth, noise)["moving_rough"] == pytest.approx(1, abs=0.05)
    assert crop_evidence(smooth, smooth)["moving_rough"] < 0.2
    flat = crop_evidence(smooth, torch.full(SHAPE, 0.4))
    assert flat["moving_sd"] == pytest.approx(0, abs=1e-6)
    assert (flat["moving_rough"], flat["information"]) == (0, 0)
    assert crop_evidence(smooth, 1.02 - smooth)["information"] > 0.9
    assert crop_evidence(smooth, noise)["information"] < 0.02
    assert crop_evidence(smooth, torch.zeros(SHAPE))["centre_empty"] == 1
