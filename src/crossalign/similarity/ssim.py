"""Structural similarity in 3-D (Wang et al. 2004), for values in [0, 1]."""

import torch
from torch import Tensor

from crossalign.similarity.ranges import check_unit_range
from crossalign.similarity.windows import gaussian_means
from crossalign.types import Map, Volume

C1, C2 = 0.01**2, 0.03**2  # K1, K2 of the paper at a data range of 1


def ssim3d_score(x: Volume, y: Volume) -> Tensor:
    """Mean structural similarity over all windows, a scalar.

    Gaussian windows of sd 1.5, 11 voxels wide, that lie inside; population covariance: MONAI's SSIMMetric. `x` may
    leave [0, 1], as what a network makes does while it learns; raises InputError where `y` does.
    """
    check_unit_range(y)
    return _similarity(x, y, _Moments(x), _Moments(y)).mean()


def ssim3d_loss(x: Volume, y: Volume) -> Tensor:
    """1 - `ssim3d_score`."""
    return 1 - ssim3d_score(x, y)


def ssim_pair_score(fused: Volume, a: Volume, b: Volume) -> tuple[Tensor, Tensor]:
    """`ssim3d_score` of one volume with two others, its own moments computed once."""
    check_unit_range(a, b)
    of_fused = _Moments(fused)
    return tuple(_similarity(fused, y, of_fused, _Moments(y)).mean() for y in (a, b))  # type: ignore[return-value]


class _Moments:
    """Mean and variance of each window."""

    def __init__(self, volume: Volume) -> None:
        self.mean, square = gaussian_means(torch.cat((volume, volume * volume), dim=1)).chunk(2, dim=1)
        self.variance = square - self.mean**2


def _similarity(x: Volume, y: Volume, of_x: _Moments, of_y: _Moments) -> Map:
    covariance = gaussian_means(x * y) - of_x.mean * of_y.mean
    luminance = (2 * of_x.mean * of_y.mean + C1) / (of_x.mean**2 + of_y.mean**2 + C1)
    return luminance * (2 * covariance + C2) / (of_x.variance + of_y.variance + C2)
