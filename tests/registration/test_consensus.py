"""The robust mean of rigid transforms, and perturbed initialisations: laws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from tests.geometry.strategies import rigids
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.registration import average_rigid
from crossalign.registration.consensus import perturbed_initialisations

CENTER_MM = torch.tensor([10.0, -20.0, 35.0], dtype=torch.float64)
DRAWN = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
POINTS_MM = CENTER_MM + 12 * (DRAWN - DRAWN.mean(0))  # rotations are about CENTER_MM: it is the points' own centre


def motions(seed: int, count: int, size: float = 3.0) -> Rigid:
    drawn = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * size
    return Rigid.from_parameters(drawn, CENTER_MM)


def apart(a: Rigid, b: Rigid, points: Tensor = POINTS_MM) -> float:
    return float(mean_displacement_mm(a, b, points))


@settings(max_examples=10)
@given(one=rigids(), count=st.integers(1, 6))
def test_the_mean_of_identical_answers_is_that_answer(one: Rigid, count: int) -> None:
    found = average_rigid(Rigid.stack([one] * count), POINTS_MM)
    assert torch.equal(found.transform.matrix(), one.matrix())
    assert found.dispersion_mm == 0


@settings(max_examples=10)
@given(left=rigids(), right=rigids(), seed=st.integers(0, 99))
def test_the_mean_does_not_depend_on_either_frame(left: Rigid, right: Rigid, seed: int) -> None:
    given_motions = motions(seed, 5)
    plain = average_rigid(given_motions, POINTS_MM)
    moved = average_rigid(left @ given_motions @ right.inverse(), right.apply(POINTS_MM))
    assert apart(left.inverse() @ moved.transform @ right, plain.transform) < 1e-6
    torch.testing.assert_close(moved.distance_mm, plain.distance_mm, atol=1e-6, rtol=0)


@settings(max_examples=10)
@given(seed=st.integers(0, 99), pairs=st.integers(1, 4))
def test_the_mean_of_motions_and_their_inverses_is_the_middle(seed: int, pairs: int) -> None:
    drawn = torch.randn(pairs, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4
    drawn[:, 3:] *= torch.tensor([1.0, 0.0, 0.0])  # about one axis, the inverse about the centre is the exact opposite
    drawn[:, 1:3] = 0
    there = Rigid.from_parameters(drawn, CENTER_MM)
    back = there.inverse()
    middle = motions(1000 + seed, 1, 10.0)[0]
    every = [middle @ there[k] for k in range(pairs)] + [middle @ back[k] for k in range(pairs)]
    assert apart(average_rigid(Rigid.stack([middle, *every]), POINTS_MM).transform, middle) < 1e-6


def test_without_outliers_it_is_near_the_chordal_mean_of_scipy() -> None:
    given_motions = motions(3, 400, 1.0)
    found = average_rigid(given_motions, POINTS_MM).transform
    expected = torch.from_numpy(Rotation.from_matrix(given_motions.rotation.numpy()).mean().as_matrix())
    assert float(Rigid(found.rotation @ expected.T, torch.zeros(3).double()).angle_deg()) < 0.15
    absolute = given_motions.apply(POINTS_MM.mean(0)[None])[:, 0]
    assert float((found.apply(POINTS_MM.mean(0)[None])[0] - absolute.mean(0)).norm()) < 0.15


def test_two_outliers_of_seven_hardly_matter_and_show_in_the_dispersion() -> None:
    good = motions(5, 5, 0.5)
    stray = [Rigid.from_parameters(torch.tensor([40.0, -30, 20, 60, 0, 30]).double(), CENTER_MM)] * 2
    alone = average_rigid(good, POINTS_MM)
    found = average_rigid(Rigid.stack([*(good[k] for k in range(5)), *stray]), POINTS_MM)
    plain = average_rigid(Rigid.stack([alone.transform]), POINTS_MM)
    assert apart(found.transform, alone.transform) < 1.5
    assert found.dispersion_mm > 10 > alone.dispersion_mm > plain.dispersion_mm == 0


def test_rotations_stay_rotations() -> None:
    rotation = average_rigid(motions(8, 9, 30.0), POINTS_MM).transform.rotation
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3).double(), atol=1e-9, rtol=0)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1)


def test_no_answers_have_no_mean() -> None:
    with pytest.raises(InputError, match="batch of transforms"):
        average_rigid(Rigid.identity(), POINTS_MM)
    with pytest.raises(InputError, match="batch of transforms"):
        average_rigid(motions(0, 0), POINTS_MM)


@settings(max_examples=10)
@given(initial=rigids(), count=st.integers(1, 9), perturbation_mm=st.floats(0.5, 20), seed=st.integers(0, 999))
def test_perturbed_initialisations_lie_at_their_distance_with_the_given_one_first(
    initial: Rigid, count: int, perturbation_mm: float, seed: int
) -> None:
    drawn = perturbed_initialisations(initial, POINTS_MM, CENTER_MM, count, perturbation_mm, seed)
    assert drawn.rotation.shape == (count, 3, 3)
    torch.testing.assert_close(drawn[0].matrix(), initial.matrix())
    distances = mean_displacement_mm(drawn, initial, POINTS_MM)[1:]
    expected = torch.full_like(distances[::2], perturbation_mm)
    torch.testing.assert_close(distances[::2], expected, atol=2e-3, rtol=0)
    for k in range(1, count - 1, 2):
        both = initial.inverse() @ drawn[k] @ initial.inverse() @ drawn[k + 1]
        assert apart(both, Rigid.identity()) < 1e-6
    again = perturbed_initialisations(initial, POINTS_MM, CENTER_MM, count, perturbation_mm, seed)
    assert torch.equal(again.matrix(), drawn.matrix())
