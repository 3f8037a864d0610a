"""Volumes smaller than a window, a filter or a patch: a number, or an error that says what was needed."""

import pytest
import torch

from crossalign.errors import InputError
from crossalign.similarity import (
    gradient_transfer_score,
    lncc_score,
    mind,
    mind_loss,
    mind_ssc,
    sobel,
    ssim3d_score,
    ssim_pair_score,
)
from crossalign.similarity.windows import gaussian_means

SIZES = ((1, 1, 1), (1, 20, 20), (2, 2, 2), (10, 11, 11), (12, 12, 12))


@pytest.mark.parametrize("size", SIZES)
def test_windows_need_their_width(size: tuple[int, int, int]) -> None:
    a, b = torch.rand(2, 1, 1, *size)
    scores = ((11, ssim3d_score), (11, lambda x, y: ssim_pair_score(x, x, y)), (9, lncc_score))
    for width, score in scores:
        if min(size) < width:
            with pytest.raises(InputError, match=f"windows of {width} voxels need as many on each axis"):
                score(a, b)
        else:
            score(a, b)


@pytest.mark.parametrize("size", SIZES)
def test_patches_and_gradients_repeat_the_border(size: tuple[int, int, int]) -> None:
    a, b = torch.rand(2, 1, 1, *size)
    for made in (mind(a), mind(a, 2.0, 3), mind_ssc(a), mind_loss(a, b), sobel(a)):
        assert bool(made.isfinite().all())
    assert float(mind_loss(a, a)) == 0
    if max(size) > 1:
        assert float(gradient_transfer_score(a, a, a)) > 0.9


def test_empty_volumes_and_windows_are_refused() -> None:
    full = torch.rand(1, 1, 12, 12, 12)
    for function in (mind, mind_ssc, sobel, gaussian_means):
        for empty in (torch.rand(1, 1, 0, 12, 12), torch.rand(0, 1, 12, 12, 12)):
            with pytest.raises(InputError, match="1 voxel or more"):
                function(empty)
    with pytest.raises(InputError, match="1 voxel or more"):
        lncc_score(full, full, 0)
