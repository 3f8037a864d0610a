"""Which way a fused volume's scores would rise: structural similarity to both inputs, and gradients kept (Qabf).

Written out by hand: no graph is built, so it runs in inference and costs a fraction of automatic differentiation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.models.fusion_moments import C1, C2, PairMoments, pair_moments, spread_back, window_means
from crossalign.similarity.gradients import GAIN_A, GAIN_G, MIDDLE_A, MIDDLE_G, SLOPE_A, SLOPE_G, sobel, sobel_back
from crossalign.types import Map, Volume

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
