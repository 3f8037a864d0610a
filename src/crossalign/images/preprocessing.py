"""Preprocessing: scans resampled to isotropic voxels, smoothed against aliasing, and bounded in size."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.errors import ImageError, InputError
from crossalign.geometry import Grid
from crossalign.images.image import Image, LabelMap, slabs
from crossalign.images.intensity import scale_intensity
from crossalign.types import Points, Scan

WHOLE_VOXELS = 2**24  # 64 MiB: larger preprocessed images are made only around the points that are sampled
LARGEST_VOXELS = 2**28  # 1 GiB
SLAB_VOXELS = 2**16  # at which smoothing is fastest: slabs of 2^20 take ten times as long
FINEST_FRACTION = 1 / 300  # of the working spacing: smaller voxels show nothing that this spacing resolves


def preprocess(scan: Image, spacing_mm: float, near_mm: Points | None = None) -> Image:
    """Scale a scan to [0, 1] and bring it to the working spacing, as every network sees it, in training and in use."""
    return to_working_spacing(scale_intensity(scan), spacing_mm, near_mm=near_mm, overwrite=True)


def preprocess_mask(mask: LabelMap, spacing_mm: float, near_mm: Points | None = None) -> Image:
    """Resample a mask to the working spacing likewise, as an image of 0 to 1."""
    return to_working_spacing(mask.foreground(), spacing_mm, near_mm=near_mm, overwrite=True)


def to_working_spacing(
    image: Image,
    spacing_mm: float,
    margin_mm: float = 0.0,
    near_mm: Points | None = None,
    overwrite: bool = False,
) -> Image:
    """Resample to an isotropic grid with axes along L, P and S that holds the whole image; outside is 0.

    Where the image is finer than the grid it is smoothed first (Gaussian, sd of half the target spacing), so that
    nothing aliases. Of a grid of more than 2^24 voxels only the box about the points `near_mm` (n, 3) is made, where
    they are given. `overwrite` lets the image's own voxels be smoothed in place, which saves a copy.
    Raises ImageError where the working image would have more than 2^28 voxels, and where the image's own voxels are so
    small that the grid does not resolve what it shows.
    """
    target = _target(image, spacing_mm, margin_mm, near_mm)
    smoothed = _smooth(image, spacing_mm, overwrite)
    return Image(smoothed, image.grid, image.name).resampled(target, fill=0.0)


def whole_working_grid(image: Image, spacing_mm: float, margin_mm: float = 0.0) -> Grid:
    """Return the grid of a whole working image; raises ImageError where it has more voxels than can be counted."""
    try:
        return image.grid.covering((spacing_mm, spacing_mm, spacing_mm), margin_mm)
    except InputError as error:
        raise ImageError(f"{image.name}: {error}") from error


def _target(image: Image, spacing_mm: float, margin_mm: float, near_mm: Points | None) -> Grid:
    target = whole_working_grid(image, spacing_mm, margin_mm)
    if near_mm is not None and math.prod(target.shape) > WHOLE_VOXELS:
        target = _part_about(target, near_mm)
    if math.prod(target.shape) > LARGEST_VOXELS:
        extent = " x ".join(f"{length:.4g}" for length in image.grid.extent_mm())
        raise ImageError(
            f"{image.name}: {extent} mm at a working spacing of {spacing_mm:g} mm are "
            f"{math.prod(target.shape):.2g} voxels, expected {LARGEST_VOXELS:.2g} at most: check the spacing in the "
            "header and its unit (mm), or crop the image to the structure"
        )
    return target


def _part_about(grid: Grid, points_mm: Points) -> Grid:
    """Return the part of a grid that points (n, 3) are interpolated from; beyond the grid, its nearest voxels."""
    index = grid.to_voxel(points_mm.double())
    last = torch.tensor(grid.shape[::-1], dtype=torch.float64) - 1
    low = torch.minimum((index.amin(0).floor() - 1).clamp(min=0), last)
    high = torch.minimum((index.amax(0).ceil() + 1).clamp(min=0), last)
    x, y, z = (int(value) for value in low)
    width, height, depth = (int(value) for value in high - low + 1)
    return grid.part((z, y, x), (depth, height, width))


def _smooth(image: Image, spacing_mm: float, overwrite: bool) -> Scan:
    sigmas = {
        axis: 0.5 * (spacing_mm**2 - step**2) ** 0.5 / step
        for axis, step in zip((2, 1, 0), image.grid.spacing_mm, strict=True)
        if spacing_mm > step * 1.01
    }
    if not sigmas:
        return image.voxels
    if min(image.grid.spacing_mm) < spacing_mm * FINEST_FRACTION:
        steps = " x ".join(f"{step:.4g}" for step in image.grid.spacing_mm)
        raise ImageError(
            f"{image.name}: voxels of {steps} mm are too small to be seen at a working spacing of {spacing_mm:g} mm: "
            "check the spacing in the header and its unit (mm), or resample the image to larger voxels"
        )
    voxels = image.voxels if overwrite else image.voxels.clone()
    for axis, sigma in sigmas.items():
        _blur(voxels, sigma, axis)
    return voxels


def _blur(voxels: Tensor, sigma_voxel: float, axis: int) -> None:
    """Smooth a scan (z, y, x) along one axis, in place; voxels beyond the border repeat it."""
    radius = max(1, round(3 * sigma_voxel))
    offsets = torch.arange(-radius, radius + 1, dtype=voxels.dtype, device=voxels.device)
    weights = torch.exp(-0.5 * (offsets / sigma_voxel) ** 2)
    shape = [1] * 5
    shape[2 + axis] = len(weights)
    kernel = (weights / weights.sum()).reshape(shape)
    padding = [0] * 6
    padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
    length = voxels.shape[axis]
    for part in slabs(voxels, 1 if axis == 0 else 0, SLAB_VOXELS * length // (length + 2 * radius)):
        padded = F.pad(part[None, None], padding, mode="replicate")
        part.copy_(F.conv3d(padded, kernel)[0, 0])
