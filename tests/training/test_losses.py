"""Losses: the SRE itself, computed the long way, and the papers' six numbers."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crossalign.geometry import Rigid
from crossalign.training.sampling import Batch
from crossalign.training.tasks.registration import correction_error_mm, parameters_loss, sre_loss

ZERO = torch.zeros(3, dtype=torch.float64)


def batch_of(truth: Tensor, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(len(truth), 20, 3, generator=generator, dtype=torch.float64) * 20
    volume = torch.zeros(len(truth), 1, 4, 4, 4)
    return Batch(volume, volume, Rigid.from_parameters(truth, ZERO), points)


def numbers(count: int, seed: int, size: float = 8.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 6, generator=generator, dtype=torch.float64) * 2 - 1) * size


@given(seed=st.integers(0, 10**6), count=st.integers(1, 4))
def test_error_is_the_sre_of_the_result(seed: int, count: int) -> None:
    """From the definition: |T_pred p - T_true p| with T_true any rigid motion and T_pred = T_true E D."""
    truth, predicted = numbers(count, seed), numbers(count, seed + 1)
    batch = batch_of(truth, seed)
    reference = Rigid.from_parameters(numbers(1, seed + 2, 90.0)[0], ZERO)
    expected = []
    for n in range(count):
        start = reference @ batch.correction[n].inverse()
        result = start @ Rigid.from_parameters(predicted[n], ZERO)
        expected.append((result.apply(batch.surface_mm[n]) - reference.apply(batch.surface_mm[n])).norm(dim=-1).mean())
    torch.testing.assert_close(correction_error_mm(predicted, batch), torch.stack(expected))
    torch.testing.assert_close(sre_loss(predicted, batch), torch.stack(expected).mean())


def test_losses_are_zero_at_the_truth_and_only_there() -> None:
    truth = numbers(3, 5)
    batch = batch_of(truth)
    assert float(parameters_loss(truth, batch)) < 1e-20
    assert float(sre_loss(truth, batch)) < 1e-12
    assert float(parameters_loss(truth + 2.0, batch)) > 3.99  # mean of squares of 2
    assert float(parameters_loss(truth + 2.0, batch)) < 4.01
    assert float(sre_loss(truth + 2.0, batch)) > 1


def test_gradients() -> None:
    batch = batch_of(numbers(2, 1))
    start = numbers(2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: sre_loss(p, batch), start)
    assert torch.autograd.gradcheck(lambda p: parameters_loss(p, batch), start)


def test_gradient_is_finite_at_the_truth() -> None:
    truth = numbers(2, 3)
    for loss in (sre_loss, parameters_loss):
        at = truth.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(at, batch_of(truth)), at)
        assert bool(gradient.isfinite().all())
    zeros = torch.zeros(2, 6, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(sre_loss(zeros, batch_of(torch.zeros(2, 6, dtype=torch.float64))), zeros)
    assert bool(gradient.isfinite().all())
