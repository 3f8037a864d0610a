"""Score gradients against automatic differentiation, and the steps that they make."""

from collections.abc import Callable

import pytest
import torch
from tests.fusion.test_compact import pair

from crossalign.fusion.networks.score_gradients import (
    PairStatistics,
    ScoreGradient,
    joint_step,
    pair_statistics,
    qabf_gradient,
    ssim_gradient,
)
from crossalign.similarity import qabf_score, sobel
from crossalign.similarity.local_scores import SSIM_C1, SSIM_C2
from crossalign.similarity.windows import clipped_means

Score = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Gradient = Callable[[torch.Tensor, PairStatistics], ScoreGradient]


def summed_ssim(fused: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Summed structural similarity to both inputs, windows clipped at the border."""
    total = torch.zeros((), dtype=fused.dtype)
    for other in (a, b):
        parts = clipped_means(torch.cat((fused, other, fused * fused, other * other, fused * other), 1))[0]
        mean_f, mean_o, ff, oo, fo = parts
        luminance = (2 * mean_f * mean_o + SSIM_C1) / (mean_f**2 + mean_o**2 + SSIM_C1)
        contrast = (2 * (fo - mean_f * mean_o) + SSIM_C2) / (ff - mean_f**2 + oo - mean_o**2 + SSIM_C2)
        total = total + (luminance * contrast).sum()
    return total


def summed_qabf(fused: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Qabf's numerator."""
    strength = sum(sobel(v).square().sum(1).sqrt().sum() for v in (a, b))
    return qabf_score(fused, a, b) * strength


SCORES = [(summed_ssim, ssim_gradient), (summed_qabf, qabf_gradient)]


@pytest.mark.parametrize(("score", "gradient"), SCORES, ids=["ssim", "qabf"])
def test_a_score_gradient_is_that_of_automatic_differentiation(score: Score, gradient: Gradient) -> None:
    generator = torch.Generator().manual_seed(0)  # at a tie of two gradients Qabf has no derivative
    a, b = (0.1 * volume + 0.9 * torch.rand(volume.shape, generator=generator) for volume in pair(14, 12, 13))
    fused = (0.6 * a + 0.4 * b + 0.02).requires_grad_()
    score(fused, a, b).backward()
    found = gradient(fused.detach(), pair_statistics(a, b))
    assert fused.grad is not None
    torch.testing.assert_close(found.gradient, fused.grad, atol=2e-3 * float(fused.grad.abs().max()), rtol=0.02)
    assert float(found.curvature.min()) > 0


@pytest.mark.parametrize("weight", [1e-6, 0.3])
def test_a_step_raises_the_weighted_score(weight: float) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (0.9 * volume + 0.1 * torch.rand(volume.shape, generator=generator) for volume in pair(20, 18, 22))
    fused, statistics = (a + b) / 2, pair_statistics(a, b)
    step = joint_step(
        ssim_gradient(fused, statistics), qabf_gradient(fused, statistics), torch.full((1, 1, 1, 1, 1), weight)
    )

    def total(volume: torch.Tensor) -> torch.Tensor:
        return summed_ssim(volume, a, b) + weight * summed_qabf(volume, a, b)

    assert total(fused + 0.5 * step) > total(fused)


def test_flat_volumes_have_no_step() -> None:
    flat = torch.full((1, 1, 12, 12, 12), 0.5)
    statistics = pair_statistics(flat, flat)
    step = joint_step(
        ssim_gradient(flat, statistics), qabf_gradient(flat, statistics), torch.full((1, 1, 1, 1, 1), 0.3)
    )
    assert float(step.abs().max()) < 1e-3


def test_moments_are_those_of_the_window() -> None:
    a, b = pair(23, 23, 23)
    statistics = pair_statistics(a, b)
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-0.5 * (offsets / 1.5) ** 2)
    weights = line[:, None, None] * line[:, None] * line
    weights = weights / weights.sum()
    cut_a, cut_b = (v[0, 0, 6:17, 5:16, 7:18].double() for v in (a, b))
    mean_a, mean_b = (cut_a * weights).sum(), (cut_b * weights).sum()
    assert float(statistics.of_a.mean[0, 0, 11, 10, 12]) == pytest.approx(float(mean_a), abs=1e-6)
    variance = ((cut_b - mean_b) ** 2 * weights).sum()
    assert float(statistics.of_b.variance[0, 0, 11, 10, 12]) == pytest.approx(float(variance), abs=1e-6)
    covariance = ((cut_a - mean_a) * (cut_b - mean_b) * weights).sum()
    assert float(statistics.covariance[0, 0, 11, 10, 12]) == pytest.approx(float(covariance), abs=1e-6)
