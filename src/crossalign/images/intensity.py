"""Intensity preparation: each image by itself, to [0, 1]; an empty background stays exactly 0.

Scans carry voxels that show nothing: the outside of an ultrasound's sector, what was added when a scan was rotated or
brought to a larger grid, the air that a brain extraction has set to one value. They hold one exact value, which need
not be the lowest (255, 0 in a z-scored image, 65535). Such a value is found by what it does: it fills the border of
the image, or it is the minimum and fills more than 1 % of the image. It is left out of percentiles and of similarity.
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
# The minimum, the maximum or 0 fills the border where it holds a quarter of the six faces, or nearly all of one face.
BORDER_SHARE = 0.25
FACE_SHARE = 0.9
# Any other value must hold most of it: a tissue of one value, as in a phantom without noise, may touch the border too.
WHOLE_BORDER_SHARE = 0.75
AIR_RANGE = 0.02  # a signed scan whose lowest 2 % of the range hold many voxels shows air there, as a CT does
AIR_SHARE = 0.05
AIR_HU = (-1100.0, -900.0)  # a scan whose minimum lies here is taken for a CT in Hounsfield units


def padding_value(voxels: Scan) -> float | None:
    """Return the one exact value that fills the border of a scan, or None where there is none.

    The minimum, the maximum and 0 must hold a quarter of the six faces or nine tenths of one of them, other values
    three quarters of the six; all of them more than 1 % of the scan.
    """
    faces = [face.flatten() for axis in range(3) for face in (voxels.select(axis, 0), voxels.select(axis, -1))]
    border = torch.cat(faces)
    usual = {float(voxels.min()), float(voxels.max()), 0.0}
    for part, least in ((border, BORDER_SHARE), *((face, FACE_SHARE) for face in faces)):
        value = _commonest(part)
        enough = _share(part, value) >= least and float(value) in usual
        if (enough or _share(border, value) >= WHOLE_BORDER_SHARE) and _share(voxels, value) >= BACKGROUND_SHARE:
            return float(value)
    return None


def foreground(voxels: Scan) -> Mask:
    """Say which voxels are not empty background: not padding, and not a minimum that fills more than 1 %."""
    inside = torch.ones_like(voxels, dtype=torch.bool)
    lowest = voxels.min()
    if _share(voxels, lowest) >= BACKGROUND_SHARE:
        inside &= voxels != lowest
    padding = padding_value(voxels)
    if padding is not None:
        inside &= voxels != padding
    return inside if bool(inside.any()) else torch.ones_like(inside)


def empty_value(voxels: Scan) -> float:
    """Return what a scan means by nothing: what lies outside it when it is brought onto another grid.

    The padding value where there is one; otherwise the minimum of a scan without negative values, and of one that shows
    air (a CT); otherwise 0: a statistical map, a PET with negative noise, a z-scored scan. NaN where the scan holds NaN,
    and 0 where it holds one value alone.
    """
    if bool(voxels.isnan().any()):
        return float("nan")
    if bool(voxels.min() == voxels.max()):
        return 0.0
    padding = padding_value(voxels)
    if padding is not None:
        return padding
    low, high = float(voxels.min()), float(voxels.max())
    if low >= 0 or high <= 0 or AIR_HU[0] <= low <= AIR_HU[1]:
        return low
    air = float((voxels <= low + AIR_RANGE * (high - low)).float().mean())
    return low if air >= AIR_SHARE else 0.0


def _commonest(values: Tensor) -> Tensor:
    """Return the value that stands most often, ()."""
    found, counts = torch.unique(values, return_counts=True)
    return found[counts.argmax()]


def _share(voxels: Tensor, value: Tensor) -> float:
    return int((voxels == value).sum()) / voxels.numel()


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
