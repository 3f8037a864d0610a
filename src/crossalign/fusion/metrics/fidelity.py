"""Fidelity of a fused volume (or plane) to an input, and its own contrast: PSNR, VIF and spatial frequency."""

import math

import torch

from crossalign.similarity.local_scores import check_scored
from crossalign.similarity.windows import Field, Fields, gaussian_weights, window_means

VIF_SCALES = 4
VIF_NOISE_VARIANCE = 2.0  # for values in [0, 255], as published
VIF_TINY = 1e-10


def peak_signal_noise_ratio_db(fused: Field, reference: Field) -> float:
    """10 log10(1 / mean squared difference), dB; infinite for a copy. Raises InputError for values outside [0, 1]."""
    check_scored(fused, reference)
    squared = float(((fused.double() - reference.double()) ** 2).mean())
    return -10 * math.log10(squared) if squared > 0 else math.inf


def spatial_frequency_score(field: Field) -> float:
    """Root of the sum over the axes of the mean squared step between neighbours (Eskicioglu and Fisher 1995).

    Raises InputError for values outside [0, 1].
    """
    check_scored(field)
    steps = [float((field.double().diff(dim=axis) ** 2).mean()) for axis in range(field.ndim)]
    return math.sqrt(sum(steps))


def visual_information_fidelity_score(fused: Field, reference: Field) -> float:
    """Visual information fidelity in the pixel domain (Sheikh and Bovik 2006): 0 nothing, 1 all of the reference.

    Four scales with Gaussian windows of 17, 9, 5 and 3 voxels along each axis; in the plane it is torchmetrics' number,
    in 3-D the windows and the halving take in the third axis. NaN where an axis is shorter than 41 voxels (too few for
    the coarsest scale) or where the reference is flat. Raises InputError for values outside [0, 1].
    """
    check_scored(fused, reference)
    if min(fused.shape) < 41:
        return math.nan
    transmitted = total = 0.0
    x, y = (field.double()[None, None] * 255 for field in (fused, reference))
    for scale in range(VIF_SCALES):
        radius = 2 ** (VIF_SCALES - scale - 1)
        weights = tuple(gaussian_weights((2 * radius + 1) / 5, radius).tolist())
        if scale > 0:
            every_second = (slice(None), slice(None), *(slice(None, None, 2),) * fused.ndim)
            x, y = window_means(x, weights)[every_second], window_means(y, weights)[every_second]
        at_scale = _vif_scale(x, y, weights)
        transmitted, total = transmitted + at_scale[0], total + at_scale[1]
    return transmitted / total if total > 0 else math.nan


def _vif_scale(x: Fields, y: Fields, weights: tuple[float, ...]) -> tuple[float, float]:
    """Information of the reference y that the distorted x transmits, and all that y has."""
    mean_x, mean_y = window_means(x, weights), window_means(y, weights)
    variance_x = (window_means(x * x, weights) - mean_x**2).clamp(min=0)
    variance_y = (window_means(y * y, weights) - mean_y**2).clamp(min=0)
    covariance = window_means(x * y, weights) - mean_x * mean_y
    gain = covariance / (variance_y + VIF_TINY)
    unexplained = variance_x - gain * covariance
    flat_x, flat_y = variance_x < VIF_TINY, variance_y < VIF_TINY
    gain = torch.where(flat_x | flat_y, torch.zeros_like(gain), gain)
    unexplained = torch.where(flat_y | (gain < 0), variance_x, unexplained)
    unexplained = torch.where(flat_x, torch.zeros_like(gain), unexplained).clamp(min=VIF_TINY)
    variance_y = torch.where(flat_y, torch.zeros_like(variance_y), variance_y)
    gain = gain.clamp(min=0)
    transmitted = torch.log10(1 + gain**2 * variance_y / (unexplained + VIF_NOISE_VARIANCE)).sum()
    return float(transmitted), float(torch.log10(1 + variance_y / VIF_NOISE_VARIANCE).sum())
