"""Batched scores agree with their definitions, with MONAI, and with the scores that evaluation prints."""

import math

import pytest
import torch
from monai.losses.image_dissimilarity import LocalNormalizedCrossCorrelationLoss
from monai.metrics.regression import SSIMMetric

from crossalign.errors import InputError
from crossalign.fusion.metrics.structure import qabf_score, ssim_score
from crossalign.similarity import (
    gradient_transfer_loss,
    gradient_transfer_score,
    lncc_loss,
    lncc_score,
    sobel,
    ssim3d_loss,
    ssim3d_score,
    ssim_pair_score,
)
from crossalign.similarity.gradients import sobel_back
from crossalign.similarity.windows import box_means, gaussian_means

SHAPE = (17, 23, 20)


def volumes(count: int = 3, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 6, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")
    noisy = smooth + 0.1 * torch.rand(count, 1, *shape, generator=generator)
    return tuple(v[None] for v in noisy.clamp(0, 1))


def pair_score(fused: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.stack(ssim_pair_score(fused, a, b)).sum(0)


def lncc_of_first(fused: torch.Tensor, a: torch.Tensor, _b: torch.Tensor) -> torch.Tensor:
    return lncc_score(fused, a)


def test_ssim_is_monais() -> None:
    x, y, _ = volumes()
    metric = SSIMMetric(spatial_dims=3, data_range=1.0, kernel_type="gaussian", win_size=11, kernel_sigma=1.5)
    assert float(ssim3d_score(x, y)) == pytest.approx(float(torch.as_tensor(metric(x, y))), abs=1e-5)


@pytest.mark.parametrize("shape", [SHAPE, (11, 12, 31)])
def test_ssim_is_what_evaluation_prints(shape: tuple[int, int, int]) -> None:
    x, y, z = volumes(shape=shape)
    assert float(ssim3d_score(x, y)) == pytest.approx(float(ssim_score(x[0, 0], y[0, 0])), abs=1e-5)
    both = ssim_pair_score(x, y, z)
    assert [float(v) for v in both] == pytest.approx([float(ssim3d_score(x, y)), float(ssim3d_score(x, z))], abs=1e-6)
    assert float(ssim3d_loss(x, y)) == pytest.approx(1 - float(ssim3d_score(x, y)))


def test_a_volume_is_like_itself_and_the_score_is_symmetric() -> None:
    x, y, _ = volumes()
    assert float(ssim3d_score(x, x)) == pytest.approx(1, abs=1e-5)
    assert float(ssim3d_score(x, y)) == pytest.approx(float(ssim3d_score(y, x)), abs=1e-6)


def test_windows_need_room() -> None:
    with pytest.raises(InputError, match="11 voxels"):
        gaussian_means(torch.rand(1, 1, 10, 20, 20))


def test_box_means_are_average_pooling() -> None:
    x = volumes()[0]
    torch.testing.assert_close(box_means(x, 5), torch.nn.functional.avg_pool3d(x, 5, stride=1))


def naive_lncc(x: torch.Tensor, y: torch.Tensor, width: int) -> float:
    scores = []
    for a, b in zip(
        x[0, 0].unfold(0, width, 1).unfold(1, width, 1).unfold(2, width, 1).reshape(-1, width**3).double(),
        y[0, 0].unfold(0, width, 1).unfold(1, width, 1).unfold(2, width, 1).reshape(-1, width**3).double(),
        strict=True,
    ):
        scores.append(float(torch.corrcoef(torch.stack((a, b)))[0, 1] ** 2))
    return sum(scores) / len(scores)


def test_lncc_is_the_mean_squared_correlation() -> None:
    x, y, _ = volumes(shape=(8, 10, 9))
    assert float(lncc_score(x, y, 5)) == pytest.approx(naive_lncc(x, y, 5), abs=1e-4)
    assert float(lncc_loss(x, y, 5)) == pytest.approx(1 - float(lncc_score(x, y, 5)))


def test_lncc_is_monais_inside() -> None:
    """MONAI pads with zeros; away from the border the windows are the same. Compared on a volume that ends in zeros."""
    x, y, _ = volumes(shape=(12, 12, 12))
    wide = [torch.nn.functional.pad(v, [8] * 6) for v in (x, y)]
    theirs = LocalNormalizedCrossCorrelationLoss(kernel_size=5, smooth_nr=0.0, smooth_dr=1e-5, reduction="none")
    inside = -theirs(*wide)[:, :, 10:18, 10:18, 10:18].mean()
    assert float(lncc_score(x, y, 5)) == pytest.approx(float(inside), abs=2e-3)


def test_lncc_does_not_mind_gain_and_offset_and_leaves_flat_windows_out() -> None:
    x, y, _ = volumes()
    assert float(lncc_score(0.5 * x + 0.2, x)) == pytest.approx(1, abs=1e-3)
    half = torch.where(torch.arange(SHAPE[2]) < 10, torch.full_like(y, 0.3), y)
    assert float(lncc_score(half, half)) == pytest.approx(1, abs=1e-3)
    assert math.isnan(float(lncc_score(x, torch.full_like(x, 0.5))))
    assert float(lncc_score(torch.full_like(x, 0.5), x)) == pytest.approx(0, abs=1e-3)


def test_gradient_transfer_is_what_evaluation_prints() -> None:
    fused, a, b = volumes()
    mine, theirs = gradient_transfer_score(fused, a, b), qabf_score(fused[0, 0], a[0, 0], b[0, 0])
    assert float(mine) == pytest.approx(float(theirs), abs=1e-5)
    assert float(gradient_transfer_loss(fused, a, b)) == pytest.approx(1 - float(mine))


def test_gradient_transfer_prefers_the_input_to_a_blur() -> None:
    a = volumes()[0]
    blurred = torch.nn.functional.avg_pool3d(a, 3, stride=1, padding=1)
    assert gradient_transfer_score(a, a, a) > 0.9
    assert gradient_transfer_score(blurred, a, a) < gradient_transfer_score(a, a, a) - 0.2
    flat = torch.full_like(a, 0.5)
    assert math.isnan(float(gradient_transfer_score(a, flat, flat)))


def test_sobel_of_a_ramp() -> None:
    z, y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), torch.arange(7.0), indexing="ij")
    gradient = sobel((z + 2 * y + 3 * x)[None, None])[0, :, 2, 3, 3]
    assert gradient.tolist() == pytest.approx([32.0, 64.0, 96.0])  # 16 smoothing weights, two voxels apart


@pytest.mark.parametrize("score", [gradient_transfer_score, pair_score, lncc_of_first])
def test_gradients_are_finite_in_flat_places(score) -> None:
    a, b, fused = (torch.where(torch.arange(SHAPE[2]) < 12, torch.zeros_like(v), v) for v in volumes())
    fused.requires_grad_()
    score(fused, a, b).backward()
    assert fused.grad is not None
    assert bool(fused.grad.isfinite().all())


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 4, 3)])
def test_sobel_back_is_the_transpose(shape: tuple[int, int, int]) -> None:
    """<S x, g> = <x, S' g>, borders included."""
    generator = torch.Generator().manual_seed(2)
    x, g = (torch.randn(2, channels, *shape, generator=generator, dtype=torch.float64) for channels in (1, 3))
    assert float((sobel(x) * g).sum()) == pytest.approx(float((x * sobel_back(g)).sum()))
