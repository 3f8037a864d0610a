"""Sobel gradients, their transpose, and Qabf."""

import math

import pytest
import torch
from tests.similarity.volumes import SHAPE, volumes

from crossalign.similarity import gradients, lncc_score, nabf_score, qabf_score, sobel, ssim_pair_score
from crossalign.similarity.gradients import sobel_adjoint
from crossalign.similarity.windows import slabs_of


def test_sobel_of_a_ramp() -> None:
    z, y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), torch.arange(7.0), indexing="ij")
    gradient = sobel((z + 2 * y + 3 * x)[None, None])[0, :, 2, 3, 3]
    assert gradient.tolist() == pytest.approx([32.0, 64.0, 96.0])  # 16 smoothing weights, two voxels apart


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 4, 3)])
def test_the_adjoint_is_the_transpose(shape: tuple[int, int, int]) -> None:
    """<S x, g> = <x, S' g>, borders included."""
    generator = torch.Generator().manual_seed(2)
    x, g = (torch.randn(2, channels, *shape, generator=generator, dtype=torch.float64) for channels in (1, 3))
    assert float((sobel(x) * g).sum()) == pytest.approx(float((x * sobel_adjoint(g)).sum()))


def test_qabf_prefers_the_input_to_a_blur() -> None:
    a = volumes()[0]
    blurred = torch.nn.functional.avg_pool3d(a, 3, stride=1, padding=1)
    assert qabf_score(a, a, a) > 0.9
    assert qabf_score(blurred, a, a) < qabf_score(a, a, a) - 0.2
    flat = torch.full_like(a, 0.5)
    assert math.isnan(float(qabf_score(a, flat, flat)))


def test_qabf_is_the_weighted_mean_of_both_inputs() -> None:
    fused, a, b = volumes()
    strengths = [float(sobel(v).square().sum(1).sqrt().sum()) for v in (a, b)]
    parts = [float(qabf_score(fused, v)) for v in (a, b)]
    expected = sum(part * strength for part, strength in zip(parts, strengths, strict=True)) / sum(strengths)
    assert float(qabf_score(fused, a, b)) == pytest.approx(expected, abs=1e-6)
    assert float(qabf_score(fused, a, a)) == pytest.approx(parts[0], abs=1e-6)


def test_qabf_by_slabs_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, a, b = volumes()
    whole = float(qabf_score(fused, a, b))
    monkeypatch.setattr(gradients, "slabs_of", lambda shape: slabs_of(shape, 500))
    assert float(qabf_score(fused, a, b)) == pytest.approx(whole, abs=1e-6)


def test_nabf_counts_what_is_added_and_not_what_is_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, a, b = volumes()
    assert float(nabf_score((a + b) / 2, a, b)) == 0  # a mean has no stronger gradient than both
    assert float(nabf_score(a, a, b)) == 0
    pattern = torch.zeros_like(a)
    pattern[..., ::4] = 2.0
    assert float(nabf_score(a + pattern, a, b)) > float(nabf_score(a + 0.05 * pattern, a, b)) > 0
    whole = float(nabf_score(fused, a, b))
    assert 0 < whole < 1 - float(qabf_score(fused, a, b))
    monkeypatch.setattr(gradients, "slabs_of", lambda shape: slabs_of(shape, 500))
    assert float(nabf_score(fused, a, b)) == pytest.approx(whole, abs=1e-6)


def ssim_of_pair(fused: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.stack(ssim_pair_score(fused, a, b)).sum(0)


def lncc_of_first(fused: torch.Tensor, a: torch.Tensor, _b: torch.Tensor) -> torch.Tensor:
    return lncc_score(fused, a)


@pytest.mark.parametrize("score", [qabf_score, ssim_of_pair, lncc_of_first])
def test_derivatives_are_finite_in_flat_regions(score) -> None:
    a, b, fused = (torch.where(torch.arange(SHAPE[2]) < 12, torch.zeros_like(v), v) for v in volumes())
    fused.requires_grad_()
    score(fused, a, b).backward()
    assert fused.grad is not None
    assert bool(fused.grad.isfinite().all())
