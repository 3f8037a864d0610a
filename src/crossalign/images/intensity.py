"""Intensity preparation: each image by itself, to [0, 1]; an empty background stays exactly 0.

Ultrasound volumes carry a background outside the sector that holds one value, the image's minimum. Where that value
fills more than 1 % of the image it is taken as background, and the percentiles are taken over the rest.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.geometry import Grid
from crossalign.images.image import Image
from crossalign.types import Mask, Scan

LOW_PERCENTILE = 0.5
HIGH_PERCENTILE = 99.5
BACKGROUND_SHARE = 0.01


def foreground(voxels: Scan) -> Mask:
    """Say which voxels are not empty background."""
    outside = voxels == voxels.min()
    if float(outside.float().mean()) < BACKGROUND_SHARE:
        return torch.ones_like(outside)
    return ~outside


def scale_intensity(image: Image) -> Image:
    """Clip the foreground to its 0.5th and 99.5th percentile and scale it to [0, 1]; the background becomes 0.

    A foreground of one value, such as a mask's, becomes 1.
    """
    inside = foreground(image.voxels)
    values = image.voxels[inside]
    low, high = _percentile(values, LOW_PERCENTILE), _percentile(values, HIGH_PERCENTILE)
    if bool(high <= low):
        low, high = values.min(), values.max()
    if bool(high <= low):
        return Image(inside.to(image.voxels), image.grid, image.name)
    scaled = ((image.voxels - low) / (high - low)).clamp(0, 1)
    return Image(torch.where(inside, scaled, torch.zeros_like(scaled)), image.grid, image.name)


def _percentile(values: Tensor, percentile: float) -> Tensor:
    """Take the value at or below this percentile, (); a tenth of the time that sorting takes."""
    return values.kthvalue(int((len(values) - 1) * percentile / 100) + 1).values


def to_working_spacing(image: Image, spacing_mm: float, margin_mm: float = 0.0) -> Image:
    """Resample to an isotropic grid with axes along L, P and S that holds the whole image; outside is 0.

    Where the image is finer than the grid it is smoothed first (Gaussian, sd of half the target spacing), so that
    nothing aliases.
    """
    target = image.grid.covering((spacing_mm, spacing_mm, spacing_mm), margin_mm)
    smoothed = _smooth(image.voxels, image.grid, spacing_mm)
    return Image(smoothed, image.grid, image.name).resampled(target, fill=0.0)


def _smooth(voxels: Tensor, grid: Grid, spacing_mm: float) -> Tensor:
    volume = voxels[None, None]
    for axis, step in zip((4, 3, 2), grid.spacing_mm, strict=True):
        if spacing_mm <= step * 1.01:
            continue
        sigma = 0.5 * (spacing_mm**2 - step**2) ** 0.5 / step
        volume = _blur(volume, sigma, axis)
    return volume[0, 0]


def _blur(volume: Tensor, sigma_voxel: float, axis: int) -> Tensor:
    radius = max(1, round(3 * sigma_voxel))
    offsets = torch.arange(-radius, radius + 1, dtype=volume.dtype)
    weights = torch.exp(-0.5 * (offsets / sigma_voxel) ** 2)
    shape = [1] * 5
    shape[axis] = len(weights)
    padding = [0] * 6
    padding[2 * (4 - axis)] = padding[2 * (4 - axis) + 1] = radius
    padded = F.pad(volume, padding, mode="replicate")
    return F.conv3d(padded, (weights / weights.sum()).reshape(shape))
