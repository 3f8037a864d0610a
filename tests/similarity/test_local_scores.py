"""SSIM and LNCC agree with MONAI, scikit-image and their definitions, whole and slab by slab."""

import math

import pytest
import torch
from monai.losses.image_dissimilarity import LocalNormalizedCrossCorrelationLoss
from monai.metrics.regression import SSIMMetric
from skimage.metrics import structural_similarity
from tests.similarity.volumes import SHAPE, volumes

from crossalign.errors import InputError
from crossalign.similarity import lncc_score, local_scores, ssim_pair_score, ssim_score
from crossalign.similarity.windows import slabs_of


@pytest.mark.parametrize("shape", [SHAPE, (11, 12, 31)])
def test_ssim_is_monais(shape: tuple[int, int, int]) -> None:
    x, y, _ = volumes(shape=shape)
    metric = SSIMMetric(spatial_dims=3, data_range=1.0, kernel_type="gaussian", win_size=11, kernel_sigma=1.5)
    assert float(ssim_score(x, y)) == pytest.approx(float(torch.as_tensor(metric(x, y))), abs=1e-5)


def test_ssim_of_planes_is_scikit_images() -> None:
    x, y, _ = (volume[:, :, 8] for volume in volumes())
    expected = structural_similarity(
        *(v[0, 0].double().numpy() for v in (x, y)), data_range=1, gaussian_weights=True, use_sample_covariance=False
    )
    assert float(ssim_score(x, y)) == pytest.approx(expected, abs=1e-5)


def test_ssim_of_a_batch_is_the_mean_of_its_parts() -> None:
    x, y, z = volumes()
    both = float(ssim_score(torch.cat((x, z)), torch.cat((y, y))))
    assert both == pytest.approx((float(ssim_score(x, y)) + float(ssim_score(z, y))) / 2, abs=1e-6)


def test_ssim_with_a_pair_is_that_with_each() -> None:
    x, y, z = volumes()
    expected = [float(ssim_score(x, y)), float(ssim_score(x, z))]
    assert [float(v) for v in ssim_pair_score(x, y, z)] == pytest.approx(expected, abs=1e-6)


def test_ssim_by_slabs_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = volumes()
    whole = float(ssim_score(x, y))
    monkeypatch.setattr(local_scores, "slabs_of", lambda shape: slabs_of(shape, 500))
    assert float(ssim_score(x, y)) == pytest.approx(whole, abs=1e-6)
    x.requires_grad_()
    ssim_score(x, y).backward()
    assert x.grad is not None


def test_a_volume_is_similar_to_itself_and_the_score_is_symmetric() -> None:
    x, y, _ = volumes()
    assert float(ssim_score(x, x)) == pytest.approx(1, abs=1e-5)
    assert float(ssim_score(x, y)) == pytest.approx(float(ssim_score(y, x)), abs=1e-6)


def test_a_reference_outside_the_range_is_an_error() -> None:
    x, y, _ = volumes()
    assert bool(ssim_score(2 * x, y).isfinite())
    for score in (ssim_score, lncc_score):
        with pytest.raises(InputError, match=r"for values in \[0, 1\]"):
            score(x, 2 * y + 1)


def naive_lncc(x: torch.Tensor, y: torch.Tensor, width: int) -> float:
    windows = [
        v[0, 0].unfold(0, width, 1).unfold(1, width, 1).unfold(2, width, 1).reshape(-1, width**3).double()
        for v in (x, y)
    ]
    squares = [float(torch.corrcoef(torch.stack(pair))[0, 1] ** 2) for pair in zip(*windows, strict=True)]
    return sum(squares) / len(squares)


def test_lncc_is_the_mean_squared_correlation() -> None:
    x, y, _ = volumes(shape=(8, 10, 9))
    assert float(lncc_score(x, y, 5)) == pytest.approx(naive_lncc(x, y, 5), abs=1e-4)


def test_lncc_is_monais_inside() -> None:
    """MONAI pads with zeros: compared away from the border of volumes that end in zeros."""
    x, y, _ = volumes(shape=(12, 12, 12))
    wide = [torch.nn.functional.pad(v, [8] * 6) for v in (x, y)]
    theirs = LocalNormalizedCrossCorrelationLoss(kernel_size=5, smooth_nr=0.0, smooth_dr=1e-5, reduction="none")
    inside = -theirs(*wide)[:, :, 10:18, 10:18, 10:18].mean()
    assert float(lncc_score(x, y, 5)) == pytest.approx(float(inside), abs=2e-3)


def test_lncc_ignores_gain_and_offset_and_flat_windows() -> None:
    x, y, _ = volumes()
    assert float(lncc_score(0.5 * x + 0.2, x)) == pytest.approx(1, abs=1e-3)
    half = torch.where(torch.arange(SHAPE[2]) < 10, torch.full_like(y, 0.3), y)
    assert float(lncc_score(half, half)) == pytest.approx(1, abs=1e-3)
    assert math.isnan(float(lncc_score(x, torch.full_like(x, 0.5))))
    assert float(lncc_score(torch.full_like(x, 0.5), x)) == pytest.approx(0, abs=1e-3)
