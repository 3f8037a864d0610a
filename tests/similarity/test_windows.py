"""Means over windows, clipped ones and their transpose, slabs, and volumes smaller than a window."""

import pytest
import torch
from tests.similarity.volumes import volumes

from crossalign.errors import InputError
from crossalign.similarity import lncc_score, mind, mind_ssc, qabf_score, sobel, ssim_pair_score, ssim_score
from crossalign.similarity.windows import (
    SSIM_RADIUS_VOXEL,
    SSIM_WEIGHTS,
    Slab,
    clipped_means,
    clipped_means_adjoint,
    slabs_of,
    window_means,
)

SIZES = ((1, 1, 1), (1, 20, 20), (2, 2, 2), (10, 11, 11), (12, 12, 12))


def test_equal_weights_are_average_pooling() -> None:
    x = volumes()[0]
    torch.testing.assert_close(window_means(x, (0.2,) * 5), torch.nn.functional.avg_pool3d(x, 5, stride=1))
    plane = x[:, :, 4]
    torch.testing.assert_close(window_means(plane, (0.2,) * 5), torch.nn.functional.avg_pool2d(plane, 5, stride=1))


def test_clipped_windows_are_windows_inside_and_sum_to_1_at_the_border() -> None:
    """From 64 voxels on an axis is cut into blocks."""
    volume = torch.rand(2, 3, 12, 70, 97, generator=torch.Generator().manual_seed(0))
    inner = (slice(SSIM_RADIUS_VOXEL, -SSIM_RADIUS_VOXEL),) * 3
    means = clipped_means(volume)
    torch.testing.assert_close(means[:, :, *inner], window_means(volume, SSIM_WEIGHTS), atol=1e-6, rtol=0)
    torch.testing.assert_close(clipped_means(torch.ones(1, 1, 3, 12, 70)), torch.ones(1, 1, 3, 12, 70))


def test_the_adjoint_of_clipped_means_is_the_transpose() -> None:
    volume, other = (torch.rand(2, 3, 12, 70, 30, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    forward, back = (clipped_means(volume) * other).sum(), (volume * clipped_means_adjoint(other)).sum()
    assert float(forward) == pytest.approx(float(back), rel=1e-5)


def test_a_slab_and_its_planes() -> None:
    slab = Slab(3, 6, 10)
    wider = slab.widened(4)
    assert (wider.first, wider.last) == (0, 10)
    assert list(range(10))[wider.planes][slab.inside(wider)] == [3, 4, 5]


@pytest.mark.parametrize("voxels", [1, 40, 10_000])
def test_slabs_cover_a_volume_once(voxels: int) -> None:
    slabs = slabs_of((10, 4, 5), voxels)
    assert [plane for slab in slabs for plane in range(10)[slab.planes]] == list(range(10))


@pytest.mark.parametrize("size", SIZES)
def test_windows_need_their_width(size: tuple[int, int, int]) -> None:
    a, b = torch.rand(2, 1, 1, *size)
    scores = ((11, ssim_score), (11, lambda x, y: ssim_pair_score(x, x, y)), (9, lncc_score))
    for width, score in scores:
        if min(size) < width:
            with pytest.raises(InputError, match=f"windows of {width} voxels need as many on each axis"):
                score(a, b)
        else:
            score(a, b)


@pytest.mark.parametrize("size", SIZES)
def test_patches_and_gradients_repeat_the_border(size: tuple[int, int, int]) -> None:
    a = torch.rand(1, 1, *size)
    for values in (mind(a), mind(a, 2.0, 3), mind_ssc(a), sobel(a)):
        assert bool(values.isfinite().all())
    if max(size) > 1:
        assert float(qabf_score(a, a, a)) > 0.9


def test_empty_volumes_and_windows_are_an_error() -> None:
    full = torch.rand(1, 1, 12, 12, 12)
    for function in (mind, mind_ssc, sobel, lambda v: window_means(v, SSIM_WEIGHTS)):
        for empty in (torch.rand(1, 1, 0, 12, 12), torch.rand(0, 1, 12, 12, 12)):
            with pytest.raises(InputError, match="1 voxel or more"):
                function(empty)
    with pytest.raises(InputError, match="1 voxel or more"):
        lncc_score(full, full, 0)
