"""Local means, variances and covariances of a pair of volumes."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from crossalign.similarity.windows import gaussian_weights
from crossalign.types import Volume

MEAN_C = 0.01  # square roots of the constants of structural similarity: what counts as faint, and as flat
SPREAD_C = 0.03**2
C1, C2 = MEAN_C**2, SPREAD_C


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance (b, 1, z, y, x) of the Gaussian window about each voxel, cut at the border."""

    mean: Volume
    variance: Volume


@dataclass(frozen=True, eq=False)
class PairMoments:
    """Moments of both volumes, and their covariance."""

    a: Moments
    b: Moments
    covariance: Volume


def pair_moments(a: Volume, b: Volume) -> PairMoments:
    """Compute the moments of two volumes (b, 1, z, y, x)."""
    mean_a, mean_b, aa, bb, ab = window_means(torch.cat((a, b, a * a, b * b, a * b), dim=1)).chunk(5, dim=1)
    return PairMoments(Moments(mean_a, aa - mean_a**2), Moments(mean_b, bb - mean_b**2), ab - mean_a * mean_b)


def window_means(volume: Volume) -> Volume:
    """Gaussian mean of the window about each voxel, cut at the border: as many voxels as before."""
    z, y, x = (_band(size).to(volume) for size in volume.shape[2:])
    return _product(volume, z, y, x)


def spread_back(volume: Volume) -> Volume:
    """Give every window's value back to the voxels it was made of: the transpose of `window_means`."""
    z, y, x = (_band(size).to(volume).mT for size in volume.shape[2:])
    return _product(volume, z, y, x)


def _product(volume: Volume, z: Tensor, y: Tensor, x: Tensor) -> Volume:
    with torch.autocast(volume.device.type, enabled=False):  # a variance is a small difference of two large numbers
        return _exact_product(volume.float(), z.float(), y.float(), x.float())


def _exact_product(volume: Volume, z: Tensor, y: Tensor, x: Tensor) -> Volume:
    rows = y @ (volume @ x.mT)
    b, c, depth, height, width = rows.shape
    return (z @ rows.reshape(b, c, depth, -1)).reshape(b, c, -1, height, width)


@lru_cache(maxsize=64)
def _band(size: int) -> Tensor:
    """Matrix (size, size) of Gaussian windows, those at the border cut and their weights brought to a sum of 1."""
    weights = gaussian_weights()
    matrix = torch.zeros(size, size, dtype=torch.float64)
    radius = len(weights) // 2
    for offset in range(-radius, radius + 1):
        if abs(offset) < size:
            matrix.diagonal(offset).fill_(float(weights[offset + radius]))
    return matrix / matrix.sum(1, keepdim=True)
