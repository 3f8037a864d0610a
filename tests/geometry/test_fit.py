"""The closed-form fit, as laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from crossalign.geometry import Rigid
from crossalign.geometry.fit import fit_rigid, nearest_rotation


def cloud(seed: int, count: int = 20) -> torch.Tensor:
    return torch.randn(2, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 20


def motion(seed: int) -> Rigid:
    parameters = torch.randn(2, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 15
    return Rigid.from_parameters(parameters, torch.zeros(3, dtype=torch.float64))


@given(st.integers(0, 10_000))
def test_exact_matches_give_the_motion_back(seed: int) -> None:
    points, truth = cloud(seed), motion(seed)
    fitted = fit_rigid(points, truth.apply(points), torch.ones(2, 20, dtype=torch.float64), prior_mm2=0.0)
    torch.testing.assert_close(fitted.matrix(), truth.matrix(), atol=1e-8, rtol=0)


@given(st.integers(0, 10_000))
def test_it_agrees_with_scipy_on_noisy_weighted_matches(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = cloud(seed)
    points = points - points.mean(1, keepdim=True)
    matches = motion(seed).apply(points) + torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    weight = torch.rand(2, 20, generator=generator, dtype=torch.float64)
    fitted = fit_rigid(points, matches, weight, prior_mm2=0.0)
    share = (weight / weight.sum(-1, keepdim=True))[..., None]
    a = points - (share * points).sum(1, keepdim=True)
    b = matches - (share * matches).sum(1, keepdim=True)
    for k in range(2):
        expected, _ = Rotation.align_vectors(b[k].numpy(), a[k].numpy(), weight[k].numpy())
        torch.testing.assert_close(fitted.rotation[k], torch.tensor(expected.as_matrix()), atol=1e-6, rtol=0)


def test_points_of_no_weight_have_no_say() -> None:
    points, truth = cloud(0), motion(0)
    matches = truth.apply(points)
    matches[:, :5] += 100
    weight = torch.ones(2, 20, dtype=torch.float64)
    weight[:, :5] = 0
    fitted = fit_rigid(points, matches, weight, prior_mm2=0.0)
    torch.testing.assert_close(fitted.matrix(), truth.matrix(), atol=1e-8, rtol=0)


@pytest.mark.parametrize("count", [1, 2])
def test_matches_that_say_nothing_of_a_turn_leave_it_out_and_keep_the_derivative(count: int) -> None:
    points = torch.zeros(1, count, 3, dtype=torch.float64)
    points[..., 0] = torch.arange(count, dtype=torch.float64)
    matches = (points + torch.tensor([3.0, -2.0, 1.0])).requires_grad_()
    fitted = fit_rigid(points, matches, torch.ones(1, count, dtype=torch.float64))
    torch.testing.assert_close(fitted.rotation[0], torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(fitted.translation_mm[0], torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64))
    fitted.matrix().square().sum().backward()
    assert matches.grad is not None
    assert bool(torch.isfinite(matches.grad).all())


def test_the_derivative_is_that_of_the_rotation() -> None:
    matrix = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(nearest_rotation, (matrix,))
    rotation = nearest_rotation(matrix)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    assert bool((torch.linalg.det(rotation) > 0).all())
