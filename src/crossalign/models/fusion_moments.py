"""Local means, variances and covariances of a pair, and the way in which structural similarity to both would rise."""

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
    mean_a, mean_b, aa, bb, ab = _means(torch.cat((a, b, a * a, b * b, a * b), dim=1)).chunk(5, dim=1)
    return PairMoments(Moments(mean_a, aa - mean_a**2), Moments(mean_b, bb - mean_b**2), ab - mean_a * mean_b)


def ssim_step(fused: Volume, a: Volume, b: Volume, moments: PairMoments) -> Volume:
    """Return the gradient of the summed structural similarity to a and b, over its curvature: about Newton's step.

    Written out by hand: no graph is built, and each volume's moments are computed once. One such step from the plain
    average reaches about half of what optimising the voxels themselves does.
    """
    mean, square, with_a, with_b = _means(torch.cat((fused, fused * fused, fused * a, fused * b), dim=1)).chunk(
        4, dim=1
    )
    variance = square - mean**2
    to_mean, to_square, curvature = torch.zeros_like(mean), torch.zeros_like(mean), torch.zeros_like(mean)
    to_product = []
    for of_other, product in ((moments.a, with_a), (moments.b, with_b)):
        other = of_other.mean
        spread = variance + of_other.variance + C2
        contrast = (2 * (product - mean * other) + C2) / spread
        levels = mean**2 + other**2 + C1
        luminance = (2 * mean * other + C1) / levels
        by_product, by_square = 2 * luminance / spread, -luminance * contrast / spread
        to_mean += contrast * 2 * (other - mean * luminance) / levels - by_product * other - 2 * by_square * mean
        to_square += by_square
        to_product.append(by_product)
        curvature += 2 * (-by_square).clamp(min=0) + 2 * contrast.clamp(min=0) / levels
    parts = _spread_back(torch.cat((to_mean, to_square, *to_product, curvature), dim=1))
    back_mean, back_square, back_a, back_b, back_curvature = parts.chunk(5, dim=1)
    return (back_mean + 2 * back_square * fused + back_a * a + back_b * b) / (back_curvature + 1)


def _means(volume: Volume) -> Volume:
    z, y, x = (_band(size).to(volume) for size in volume.shape[2:])
    return _product(volume, z, y, x)


def _spread_back(volume: Volume) -> Volume:
    """Give every window's value back to the voxels it was made of: the transpose of `_means`."""
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
