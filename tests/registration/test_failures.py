"""What is no prostate MR with an ultrasound is not trusted, and an ordinary pair is: the default model, end to end.

As `crossalign register` does, the recognition network is asked beforehand.
"""

from dataclasses import replace

import pytest
import torch
from studies.trust_pairs import KnownCase, phantom_cases, simulated_cases

from crossalign.geometry import Rigid
from crossalign.registration import RegistrationResult, default_method_name, named_method, register
from crossalign.registration.orientation import HEADER, OrientationRequest, find_orientation
from crossalign.registration.recognition import shipped_recognizer


@pytest.fixture(scope="module")
def case() -> KnownCase:
    return simulated_cases(1, 83)[0]  # one of those that are trusted: of ordinary pairs about three quarters are


def registered(case: KnownCase) -> RegistrationResult:
    shift = Rigid.from_translation(torch.tensor([4.0, -3.0, 3.0], dtype=torch.float64))
    initial, method = case.truth @ shift, named_method(default_method_name(fixed_mask=True))
    request = OrientationRequest(case.fixed, case.moving, case.mask, moving_orientation=HEADER, initial=initial)
    orientation = find_orientation(request, shipped_recognizer())
    assert orientation.probability is not None
    return register(case.fixed, case.moving, method, initial, case.mask, orientation=orientation)


def test_an_ordinary_pair_is_trusted_and_has_a_bound(case: KnownCase) -> None:
    result = registered(case)
    assert result.reasons == ()
    assert result.trusted is True
    assert result.expected_sre_mm is not None
    assert result.expectation.bound_mm is not None
    assert result.expected_sre_mm < result.expectation.bound_mm < 15


@pytest.mark.parametrize("kind", ["noise", "one value", "MR against MR", "a ball in a block"])
def test_failures_are_not_trusted(case: KnownCase, kind: str) -> None:
    shape = case.moving.voxels.shape
    images = {
        "noise": torch.rand(shape, generator=torch.Generator().manual_seed(0)),
        "one value": torch.full(shape, 0.5),
        "MR against MR": case.fixed.voxels,
    }
    failure = phantom_cases(3, 12)[2] if kind not in images else case
    if kind in images:
        grid = case.fixed.grid if kind == "MR against MR" else case.moving.grid
        failure = replace(case, moving=replace(case.moving, voxels=images[kind], grid=grid))
    if kind == "MR against MR":
        failure = replace(failure, truth=Rigid.identity())
    result = registered(failure)
    assert result.trusted is False
    assert "--method" in " ".join(result.reasons)
