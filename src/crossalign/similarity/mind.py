"""MIND (Heinrich et al. 2012, Medical Image Analysis 16) and its self-similarity form MIND-SSC (2013), differentiable.

Both describe a voxel by the differences of small patches about it, so that two modalities that show the same structures
in different grey values get similar descriptors. They count in voxels: give volumes of isotropic voxels. The channels
follow the volume's axes, so two volumes must have theirs along the same directions.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.errors import InputError
from crossalign.similarity.windows import gaussian_weights
from crossalign.types import Map, Volume

Offset = tuple[int, int, int]  # z, y, x

SIX_NEIGHBOURS: tuple[Offset, ...] = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
# The edges of the octahedron: pairs of the six neighbours that are sqrt(2) apart.
SSC_PAIRS: tuple[tuple[Offset, Offset], ...] = tuple(
    (a, b)
    for index, a in enumerate(SIX_NEIGHBOURS)
    for b in SIX_NEIGHBOURS[index + 1 :]
    if sum((i - j) ** 2 for i, j in zip(a, b, strict=True)) == 2
)
NOISE_FLOOR = 1e-3  # of a volume's mean variance: what a flat region's own variance is raised to


def mind(volume: Volume, sigma_voxel: float = 0.5, distance_voxel: int = 1) -> Map:
    """Six-neighbourhood MIND of volumes of one channel: (b, 1, z, y, x) to (b, 6, z, y, x), in (0, 1].

    exp(-D / V), D the Gaussian-weighted (sd `sigma_voxel`, cut at 3 sd) squared difference of the patches about the
    voxel and about its neighbour at `distance_voxel`, V the mean of the six D; then scaled so that a voxel's largest
    channel is 1. V is at least 0.001 of the volume's mean V. Voxels beyond the border repeat it. A constant volume
    gives 1. Raises InputError for several channels or a width that is not positive.
    """
    center: Offset = (0, 0, 0)
    return _descriptor(volume, [(center, neighbour) for neighbour in SIX_NEIGHBOURS], sigma_voxel, distance_voxel)


def mind_ssc(volume: Volume, sigma_voxel: float = 0.5, distance_voxel: int = 1) -> Map:
    """MIND-SSC: as `mind`, but (b, 12, z, y, x), and D between two patches about neighbours that are sqrt(2) apart.

    The voxel's own patch, whose noise would enter every channel, takes no part.
    """
    return _descriptor(volume, SSC_PAIRS, sigma_voxel, distance_voxel)


def _descriptor(volume: Volume, pairs: Sequence[tuple[Offset, Offset]], sigma_voxel: float, distance: int) -> Map:
    if volume.shape[1] != 1:
        raise InputError(f"MIND describes volumes of one channel, got {volume.shape[1]}: describe each by itself")
    if not sigma_voxel > 0 or distance < 1:
        raise InputError(f"MIND needs sigma_voxel > 0 and distance_voxel >= 1, got {sigma_voxel} and {distance}")
    if 0 in volume.shape:
        raise InputError(f"MIND describes volumes of 1 voxel or more on each axis, got {tuple(volume.shape)}")
    weights = gaussian_weights(sigma_voxel, max(1, math.ceil(3 * sigma_voxel))).to(volume)
    radius = len(weights) // 2
    padded = F.pad(volume, [distance + radius] * 6, mode="replicate")
    size = [n + 2 * radius for n in volume.shape[2:]]
    differences = [
        _shifted(padded, a, distance, size).sub(_shifted(padded, b, distance, size)).square() for a, b in pairs
    ]
    distances = torch.cat([_patch_sum(difference, weights) for difference in differences], dim=1)
    variance = distances.mean(dim=1, keepdim=True)
    floor = NOISE_FLOOR * variance.mean(dim=(1, 2, 3, 4), keepdim=True)
    variance = torch.maximum(variance, floor)
    flat = variance <= torch.finfo(volume.dtype).tiny
    nearest = distances.amin(dim=1, keepdim=True)  # subtracted before exp: the largest channel is then 1
    return torch.exp(-(distances - nearest) / torch.where(flat, torch.ones_like(variance), variance))


def _shifted(padded: Tensor, offset: Offset, distance: int, size: Sequence[int]) -> Tensor:
    for axis, (step, length) in enumerate(zip(offset, size, strict=True), start=2):
        padded = padded.narrow(axis, distance * (1 + step), length)
    return padded


def _patch_sum(difference: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over the patch about each voxel, axis by axis, as sums of shifted views."""
    for axis in (2, 3, 4):
        length = difference.shape[axis] - len(weights) + 1
        parts = (difference.narrow(axis, i, length) * weight for i, weight in enumerate(weights))
        difference = sum(parts, torch.zeros(()).to(difference))
    return difference
