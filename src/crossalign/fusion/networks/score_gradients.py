"""Gradients of a fused volume's SSIM to both inputs and of its Qabf, with bounds of their curvature.

Written out by hand: no graph is built, so they run in inference and cost a fraction of automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.similarity.gradients import GAIN_A, GAIN_G, MIDDLE_A, MIDDLE_G, SLOPE_A, SLOPE_G, sobel, sobel_adjoint
from crossalign.similarity.local_scores import SSIM_C1, SSIM_C2, Moments
from crossalign.similarity.windows import clipped_means, clipped_means_adjoint
from crossalign.types import Map, Volume

FLAT = 1e-10  # least square of a gradient: a flat voxel has a direction then, and no weight
CURVATURE_G, CURVATURE_A = 0.1, 0.04  # largest second derivatives of both sigmoids over their slopes squared
SOBEL_SQUARES = 216.0  # the squares of a 3-D Sobel filter's weights, over its three directions
ROUNDING = 1e-4  # where two gradients are parallel their angle has a kink, which would turn rounding errors into steps
QABF_CURVATURE = 0.3  # fraction of the bound of Qabf's curvature that steps are divided by: measured, see docs

Gradient = tuple[Map, Volume]  # vectors (b, 3, z, y, x) and their length


@dataclass(frozen=True, eq=False)
class PairStatistics:
    """Two volumes (b, 1, z, y, x), the moments of their windows (clipped at the border), and their gradients."""

    a: Volume
    b: Volume
    of_a: Moments
    of_b: Moments
    covariance: Volume
    gradients: tuple[Gradient, Gradient]

    def tensors(self) -> tuple[Map, ...]:
        """Return the statistics, without the volumes, always in the same order."""
        moments = (self.of_a.mean, self.of_a.variance, self.of_b.mean, self.of_b.variance)
        return (*moments, self.covariance, *self.gradients[0], *self.gradients[1])

    def of_planes(self, planes: slice) -> PairStatistics:
        """Take these planes alone."""
        a, b, *statistics = (tensor[:, :, planes] for tensor in (self.a, self.b, *self.tensors()))
        return PairStatistics.of_tensors(a, b, statistics)

    @staticmethod
    def of_tensors(a: Volume, b: Volume, tensors: Sequence[Map]) -> PairStatistics:
        """Make them of what `tensors` returns."""
        mean_a, variance_a, mean_b, variance_b, covariance, *gradients = tensors
        of_a, of_b = Moments(mean_a, variance_a), Moments(mean_b, variance_b)
        vectors_a, length_a, vectors_b, length_b = gradients
        return PairStatistics(a, b, of_a, of_b, covariance, ((vectors_a, length_a), (vectors_b, length_b)))


@dataclass(frozen=True, eq=False)
class ScoreGradient:
    """The gradient (b, 1, z, y, x) of a score summed over voxels, and a bound, over 0, of its curvature."""

    gradient: Volume
    curvature: Volume

    def of_planes(self, planes: slice) -> ScoreGradient:
        """Take these planes alone."""
        return ScoreGradient(self.gradient[:, :, planes], self.curvature[:, :, planes])


def pair_statistics(a: Volume, b: Volume) -> PairStatistics:
    """Compute the statistics of two volumes, in float32."""
    return PairStatistics(a, b, *pair_moments(clipped_means(pair_products(a, b))), (gradient_of(a), gradient_of(b)))


def pair_products(a: Volume, b: Volume) -> Map:
    """Return what the windows' means are taken of: both volumes, their squares and their product."""
    return torch.cat((a, b, a * a, b * b, a * b), dim=1)


def pair_moments(means: Map) -> tuple[Moments, Moments, Volume]:
    """Turn the windows' means of `pair_products` into the moments of both volumes and their covariance."""
    mean_a, mean_b, aa, bb, ab = means.chunk(5, dim=1)
    return Moments(mean_a, aa - mean_a**2), Moments(mean_b, bb - mean_b**2), ab - mean_a * mean_b


def gradient_of(volume: Volume) -> Gradient:
    """Return a volume's gradient."""
    vectors = sobel(volume)
    return vectors, vectors.square().sum(1, keepdim=True).clamp(min=FLAT).sqrt()


def ssim_gradient(fused: Volume, pair: PairStatistics) -> ScoreGradient:
    """Of the structural similarity to a plus that to b, over windows that are clipped at the border."""
    means = clipped_means(fused_products(fused, pair.a, pair.b))
    return ssim_gradient_from(clipped_means_adjoint(ssim_derivatives(means, pair)), fused, pair.a, pair.b)


def fused_products(fused: Volume, a: Volume, b: Volume) -> Map:
    """Return what the windows' means are taken of: the fused volume, its square, its products with both."""
    return torch.cat((fused, fused * fused, fused * a, fused * b), dim=1)


def ssim_derivatives(means: Map, pair: PairStatistics) -> Map:
    """Differentiate each window's score by its means of `fused_products`, and bound its curvature.

    Five channels; of the pair only the moments are used.
    """
    mean, square, with_a, with_b = means.chunk(4, dim=1)
    variance, parts = square - mean**2, []
    for of_input, product in ((pair.of_a, with_a), (pair.of_b, with_b)):
        other = of_input.mean
        variances = variance + of_input.variance + SSIM_C2
        contrast = (2 * (product - mean * other) + SSIM_C2) / variances
        levels = mean**2 + other**2 + SSIM_C1
        luminance = (2 * mean * other + SSIM_C1) / levels
        by_product, by_square = 2 * luminance / variances, -luminance * contrast / variances
        by_mean = contrast * 2 * (other - mean * luminance) / levels - by_product * other - 2 * by_square * mean
        curvature = 2 * (-by_square).clamp(min=0) + 2 * contrast.clamp(min=0) / levels
        parts.append((by_mean, by_square, by_product, curvature))
    of_a, of_b = parts
    return torch.cat((of_a[0] + of_b[0], of_a[1] + of_b[1], of_a[2], of_b[2], of_a[3] + of_b[3]), dim=1)


def ssim_gradient_from(derivatives: Map, fused: Volume, a: Volume, b: Volume) -> ScoreGradient:
    """Put together the derivatives (b, 5, z, y, x), after every window's were distributed to its voxels."""
    by_mean, by_square, by_a, by_b, curvature = derivatives.chunk(5, dim=1)
    return ScoreGradient(by_mean + 2 * by_square * fused + by_a * a + by_b * b, curvature + 1)


def qabf_gradient(fused: Volume, pair: PairStatistics) -> ScoreGradient:
    """Of Qabf's numerator: the gradients of a and b that are preserved, each weighted by its strength."""
    return qabf_gradient_from(qabf_derivatives(sobel(fused), pair))


def qabf_derivatives(vectors: Map, pair: PairStatistics) -> Map:
    """Differentiate Qabf's numerator by the fused volume's gradient (b, 3, z, y, x); its curvature is a 4th channel."""
    square = vectors.square().sum(1, keepdim=True).clamp(min=FLAT)
    strength = square.sqrt()
    direction = vectors / strength
    of_a, of_b = (
        _preservation_derivatives(direction, square, source / source_strength, source_strength)
        for source, source_strength in pair.gradients
    )
    return torch.cat((of_a[0] + of_b[0], of_a[1] + of_b[1]), dim=1)


def qabf_gradient_from(derivatives: Map) -> ScoreGradient:
    """Distribute the derivatives from the gradients to the voxels that they are made of."""
    return ScoreGradient(sobel_adjoint(derivatives[:, :3]), SOBEL_SQUARES * _neighbour_means(derivatives[:, 3:]))


def joint_step(ssim: ScoreGradient, qabf: ScoreGradient, qabf_weight: Map | float) -> Volume:
    """Return the step of the order of Newton's for the summed SSIM plus `qabf_weight` (over 0) times Qabf."""
    gradient = ssim.gradient + qabf_weight * qabf.gradient
    return gradient / (ssim.curvature + QABF_CURVATURE * qabf_weight * qabf.curvature)


def _preservation_derivatives(
    direction: Map, square: Volume, source_direction: Map, source_strength: Volume
) -> tuple[Map, Volume]:
    """Differentiate what the fused volume's gradient (b, 3, ...) preserves of one input, and bound the curvature."""
    strength = square.sqrt()
    larger = torch.maximum(strength, source_strength)
    ratio = torch.minimum(strength, source_strength) / larger
    cosine = (direction * source_direction).sum(1, keepdim=True)
    along = cosine.abs().clamp(max=1)
    across = (1 - along * along + ROUNDING).sqrt()
    alignment = 1 - torch.atan2(across, along) / (torch.pi / 2)
    sigmoid_g = torch.sigmoid(-SLOPE_G * (ratio - MIDDLE_G))
    sigmoid_a = torch.sigmoid(-SLOPE_A * (alignment - MIDDLE_A))
    quality_g, quality_a = GAIN_G * sigmoid_g, GAIN_A * sigmoid_a
    by_ratio, by_alignment = -SLOPE_G * quality_g * (1 - sigmoid_g), -SLOPE_A * quality_a * (1 - sigmoid_a)
    by_strength = by_ratio * quality_a * ratio / strength * torch.sign(source_strength - strength)
    towards_source = cosine.sign() * (source_direction - cosine * direction) / across
    by_direction = quality_g * by_alignment * (2 / torch.pi) * towards_source / strength
    curvature_g = quality_a * SLOPE_G**2 * CURVATURE_G / larger**2
    curvature_a = quality_g * SLOPE_A**2 * CURVATURE_A / (square + 1e-4)
    return source_strength * (by_strength * direction + by_direction), source_strength * (curvature_g + curvature_a)


def _neighbour_means(volume: Volume) -> Tensor:
    """Mean of 3 voxels along each axis, fewer at the border."""
    for axis, size in enumerate(volume.shape[2:], start=2):
        if size > 1:
            zeros = torch.zeros_like(volume.narrow(axis, 0, 1))
            padded = torch.cat((zeros, volume, zeros), dim=axis)
            total = padded.narrow(axis, 0, size) + volume + padded.narrow(axis, 2, size)
            first, inner, last = torch.split(total, [1, size - 2, 1], dim=axis)
            volume = torch.cat((first / 2, inner / 3, last / 2), dim=axis)
    return volume
