"""Gradients of a fused volume's scores: local means and covariances of the pair, SSIM to both inputs, and Qabf.

Written out by hand: no graph is built, so it runs in inference and costs a fraction of automatic differentiation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from crossalign.similarity.gradients import GAIN_A, GAIN_G, MIDDLE_A, MIDDLE_G, SLOPE_A, SLOPE_G, sobel, sobel_back
from crossalign.similarity.windows import GAUSSIAN_RADIUS_VOXEL, gaussian_weights
from crossalign.types import Map, Volume

MEAN_C = 0.01  # square roots of the constants of structural similarity: what counts as faint, and as flat
SPREAD_C = 0.03**2
C1, C2 = MEAN_C**2, SPREAD_C
REACH = GAUSSIAN_RADIUS_VOXEL
BLOCK = 32  # rows of a banded matrix in one product


@dataclass(frozen=True)
class Slab:
    """Axial planes `first` to before `last` of a volume of `depth` planes."""

    first: int
    last: int
    depth: int

    @property
    def planes(self) -> slice:
        """Its planes, to index the volume's first axis."""
        return slice(self.first, self.last)

    def widened(self, planes: int) -> Slab:
        """Take in that many planes more on either side, where there are any."""
        return Slab(max(0, self.first - planes), min(self.depth, self.last + planes), self.depth)

    def inside(self, near: Slab) -> slice:
        """Where its planes are among those of `near`, which holds them."""
        return slice(self.first - near.first, self.last - near.first)


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
    return moments_of(window_means(torch.cat((a, b, a * a, b * b, a * b), dim=1)))


def moments_of(means: Map) -> PairMoments:
    """Take them from the windows' means (b, 5, z, y, x) of a, b, their squares and their product."""
    mean_a, mean_b, aa, bb, ab = means.chunk(5, dim=1)
    return PairMoments(Moments(mean_a, aa - mean_a**2), Moments(mean_b, bb - mean_b**2), ab - mean_a * mean_b)


def window_means(volume: Volume) -> Volume:
    """Gaussian mean of the window about each voxel, cut at the border: as many voxels as before."""
    z, y, x = (_band(size).to(volume) for size in volume.shape[2:])
    return _product(volume, z, y, x)


def spread_back(volume: Volume) -> Volume:
    """Give every window's value back to the voxels it was made of: the transpose of `window_means`."""
    z, y, x = (_band(size).to(volume).mT for size in volume.shape[2:])
    return _product(volume, z, y, x)


def slab_means(near: Volume, slab: Slab) -> Map:
    """`window_means` of a slab's planes, from the planes of `slab.widened(REACH)`."""
    y, x = (_band(size).to(near) for size in near.shape[3:])
    return _along_x(_along_y(slab_sum(near, slab, _band(slab.depth)), y), x)


def spread_in_planes(volume: Volume) -> Volume:
    """Do the part of `spread_back` that stays in the axial planes; `slab_spread` does the rest."""
    y, x = (_band(size).to(volume).mT for size in volume.shape[3:])
    return _along_x(_along_y(volume, y), x)


def slab_spread(near: Volume, slab: Slab) -> Map:
    """`spread_back` of a slab's planes, from what `spread_in_planes` made of the planes of `slab.widened(REACH)`."""
    return slab_sum(near, slab, _band(slab.depth).mT)


def slab_sum(near: Volume, slab: Slab, matrix: Tensor) -> Map:
    """Rows of a banded matrix (depth, depth), those of the slab, times the planes of `slab.widened(REACH)`."""
    rows = matrix[slab.planes, slab.widened(REACH).planes].to(near)
    return _along_z(near, rows)


def _product(volume: Volume, z: Tensor, y: Tensor, x: Tensor) -> Volume:
    with torch.autocast(volume.device.type, enabled=False):  # a variance is a small difference of two large numbers
        return _along_z(_along_y(_along_x(volume.float(), x.float()), y.float()), z.float())


def _along_x(volume: Volume, band: Tensor) -> Volume:
    return torch.cat([volume[..., near] @ band[own, near].mT for own, near in _blocks(len(band))], dim=4)


def _along_y(volume: Volume, band: Tensor) -> Volume:
    shape, planes = volume.shape, volume.flatten(0, 2)
    blocks = [
        torch.bmm(band[own, near].expand(len(planes), -1, -1), planes[:, near]) for own, near in _blocks(len(band))
    ]
    return torch.cat(blocks, dim=1).reshape(shape)


def _along_z(volume: Volume, matrix: Tensor) -> Map:
    b, c, depth, height, width = volume.shape
    return (matrix @ volume.reshape(b, c, depth, -1)).reshape(b, c, -1, height, width)


def _blocks(size: int) -> list[tuple[slice, slice]]:
    """Cut the rows of a banded matrix into blocks, each with the columns that are not 0: half the time from 64 on."""
    step = BLOCK if size >= 2 * BLOCK else size
    return [
        (slice(first, min(size, first + step)), slice(max(0, first - REACH), min(size, first + step + REACH)))
        for first in range(0, size, step)
    ]


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


FLAT = 1e-10  # added to a squared gradient: a flat voxel has a direction then, and no weight
BEND_G, BEND_A = 0.1, 0.04  # about the largest second derivatives of the two sigmoids, by their slopes squared
SOBEL_SQUARES = 216.0  # the squares of a 3-D Sobel filter's weights, over its three directions
ROUND = 1e-4  # where two gradients are parallel their angle has a kink, which would turn rounding errors into steps
CAUTION = 0.3  # share of the bound of Qabf's curvature that steps are divided by: measured, see docs


Slopes = tuple[tuple[Map, Volume], tuple[Map, Volume]]  # of a and b: gradients (b, 3, z, y, x) and their strengths


@dataclass(frozen=True, eq=False)
class Ascent:
    """The gradient (b, 1, z, y, x) of a score summed over voxels, and a bound, over 0, of its curvature."""

    gradient: Volume
    curvature: Volume


@dataclass(frozen=True, eq=False)
class PairFacts:
    """What is computed once for a pair: its moments, and the gradients of both with their strengths."""

    a: Volume
    b: Volume
    moments: PairMoments
    slopes: Slopes


def pair_facts(a: Volume, b: Volume) -> PairFacts:
    """Compute them for two volumes (b, 1, z, y, x), in float32."""
    return PairFacts(a, b, pair_moments(a, b), (slope_of(a), slope_of(b)))


def slope_of(volume: Volume) -> tuple[Map, Volume]:
    """Return a volume's gradients and their strengths."""
    slope = sobel(volume)
    return slope, (slope.square().sum(1, keepdim=True) + FLAT).sqrt()


def similarity_ascent(fused: Volume, pair: PairFacts) -> Ascent:
    """Of the structural similarity to a plus that to b, over windows that are cut at the border."""
    sums = window_means(products(fused, pair.a, pair.b))
    return collected(spread_back(similarity_parts(sums, pair.moments)), fused, pair.a, pair.b)


def products(fused: Volume, a: Volume, b: Volume) -> Map:
    """Return what the windows' means are taken of: the fused volume, its square, its products with both."""
    return torch.cat((fused, fused * fused, fused * a, fused * b), dim=1)


def similarity_parts(sums: Map, moments: PairMoments) -> Map:
    """Turn the windows' means (b, 4, z, y, x) into how the score rises with each of them, and a curvature's bound."""
    mean, square, with_a, with_b = sums.chunk(4, dim=1)
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
    return torch.cat((to_mean, to_square, *to_product, curvature), dim=1)


def collected(parts: Map, fused: Volume, a: Volume, b: Volume) -> Ascent:
    """Put together the parts (b, 5, z, y, x) that every window gave back to its voxels."""
    mean, square, with_a, with_b, curvature = parts.chunk(5, dim=1)
    return Ascent(mean + 2 * square * fused + with_a * a + with_b * b, curvature + 1)


def transfer_ascent(fused: Volume, pair: PairFacts) -> Ascent:
    """Of Qabf's numerator: the gradients of a and b that are kept, each weighed by its strength."""
    return transferred(transfer_parts(sobel(fused), pair.slopes))


def transfer_parts(slope: Map, slopes: Slopes) -> Map:
    """Say how Qabf's numerator rises with the fused volume's slope (b, 3, z, y, x), and bound its curvature: 4 maps."""
    square = slope.square().sum(1, keepdim=True) + FLAT
    strength = square.sqrt()
    way = slope / strength
    to_slope, curvature = torch.zeros_like(slope), torch.zeros_like(strength)
    for theirs, their_strength in slopes:
        pull, bend = _transfer(way, strength, square, theirs / their_strength, their_strength)
        to_slope += pull
        curvature += bend
    return torch.cat((to_slope, curvature), dim=1)


def transferred(parts: Map) -> Ascent:
    """Bring the parts from the slopes back to the voxels that they were made of."""
    return Ascent(sobel_back(parts[:, :3]), SOBEL_SQUARES * _mean_around(parts[:, 3:]))


def joint_step(similarity: Ascent, transfer: Ascent, weight: Map) -> Volume:
    """Return the step of the order of Newton's for the summed similarity plus `weight` (over 0) times the transfer."""
    gradient = similarity.gradient + weight * transfer.gradient
    return gradient / (similarity.curvature + CAUTION * weight * transfer.curvature)


def _transfer(way: Map, strength: Volume, square: Volume, their_way: Map, theirs: Volume) -> tuple[Map, Volume]:
    """Gradient by the fused volume's slope (b, 3, ...), and curvature, of what it keeps of one input."""
    ratio = torch.minimum(strength, theirs) / torch.maximum(strength, theirs)
    cosine = (way * their_way).sum(1, keepdim=True)
    along = cosine.abs().clamp(max=1)
    across = (1 - along * along + ROUND).sqrt()
    alignment = 1 - torch.atan2(across, along) / (torch.pi / 2)
    share_g = torch.sigmoid(-SLOPE_G * (ratio - MIDDLE_G))
    share_a = torch.sigmoid(-SLOPE_A * (alignment - MIDDLE_A))
    kept_g, kept_a = GAIN_G * share_g, GAIN_A * share_a
    by_ratio, by_alignment = -SLOPE_G * kept_g * (1 - share_g), -SLOPE_A * kept_a * (1 - share_a)
    to_strength = by_ratio * kept_a * ratio / strength * torch.sign(theirs - strength)
    turned = cosine.sign() * (their_way - cosine * way) / across
    to_way = kept_g * by_alignment * (2 / torch.pi) * turned / strength
    bend_g = kept_a * SLOPE_G**2 * BEND_G / torch.maximum(strength, theirs) ** 2
    bend_a = kept_g * SLOPE_A**2 * BEND_A / (square + 1e-4)
    return theirs * (to_strength * way + to_way), theirs * (bend_g + bend_a)


def _mean_around(volume: Volume) -> Tensor:
    """Mean of 3 voxels along each axis, fewer at the border."""
    for axis, size in enumerate(volume.shape[2:], start=2):
        if size > 1:
            total = volume.clone()
            total.narrow(axis, 1, size - 1).add_(volume.narrow(axis, 0, size - 1))
            total.narrow(axis, 0, size - 1).add_(volume.narrow(axis, 1, size - 1))
            for end in (0, size - 1):
                total.narrow(axis, end, 1).mul_(1.5)
            volume = total / 3
    return volume
