"""Intensities of a volume: padding, foreground, scaling to [0, 1], and whether the values look like labels.

Scans contain voxels without signal: the outside of an ultrasound's sector, what was added when a scan was rotated or
resampled to a larger grid, the air that a brain extraction has set to one value. They hold one exact value, which need
not be the lowest (255, 0 in a z-scored image, 65535). It is recognised because it fills the border of the image, or
because it is the minimum and fills more than 1 % of the image. Percentiles and similarities leave it out.
"""

import torch
from torch import Tensor

from crossalign.errors import ImageError
from crossalign.geometry import Grid
from crossalign.images.image import Image, count_where, slabs
from crossalign.types import Mask, Scan

LOW_PERCENTILE = 0.5
HIGH_PERCENTILE = 99.5
BACKGROUND_FRACTION = 0.01
# The minimum, the maximum or 0 fills the border where it holds a quarter of the six faces, or nearly all of one face.
BORDER_FRACTION = 0.25
FACE_FRACTION = 0.9
# Any other value must hold most of it: a tissue of one value, as in a phantom without noise, may touch the border too.
OTHER_BORDER_FRACTION = 0.75
AIR_RANGE = 0.02  # a signed scan whose lowest 2 % of the range hold many voxels shows air there, as a CT does
AIR_FRACTION = 0.05
AIR_HU = (-1100.0, -900.0)  # a scan whose minimum lies here is taken for a CT in Hounsfield units


def check_scan(image: Image) -> None:
    """Raise ImageError where a scan cannot be registered: one slice, NaN or infinite values, or a single value."""
    check_thickness(image.grid, image.name)
    unusable = count_where(image.voxels, lambda part: ~part.isfinite())
    if unusable:
        raise ImageError(
            f"{image.name}: {unusable:,} of {image.voxels.numel():,} voxels are NaN or infinite (or beyond float32, "
            "3.4e38): replace them by the value of the background"
        )
    low, high = (float(value) for value in image.voxels.aminmax())
    if low == high:
        raise ImageError(f"{image.name}: every voxel is {low:g}: a constant image shows nothing: give the scan itself")


def check_thickness(grid: Grid, name: str) -> None:
    """Raise ImageError where a grid is one voxel thick along an axis."""
    if min(grid.shape) < 2:
        raise ImageError(
            f"{name}: the size is {grid.shape[::-1]} voxels, expected 2 or more on each axis: give the whole volume"
        )


def padding_value(voxels: Scan) -> float | None:
    """Return the one exact value that fills the border of a scan, or None where there is none.

    The minimum, the maximum and 0 must hold a quarter of the six faces or nine tenths of one of them, other values
    three quarters of the six; all of them more than 1 % of the scan.
    """
    faces = [face.flatten() for axis in range(3) for face in (voxels.select(axis, 0), voxels.select(axis, -1))]
    border = torch.cat(faces)
    usual = {float(voxels.min()), float(voxels.max()), 0.0}
    for part, least in ((border, BORDER_FRACTION), *((face, FACE_FRACTION) for face in faces)):
        value = _commonest(part)
        fills_border = _fraction(part, value) >= least and float(value) in usual
        fills_border = fills_border or _fraction(border, value) >= OTHER_BORDER_FRACTION
        if fills_border and _fraction(voxels, value) >= BACKGROUND_FRACTION:
            return float(value)
    return None


def foreground(voxels: Scan) -> Mask:
    """Mark the voxels that are not background: not padding, and not a minimum that fills more than 1 %."""
    lowest, padding = voxels.min(), padding_value(voxels)
    empty = [] if padding is None else [padding]
    if _fraction(voxels, lowest) >= BACKGROUND_FRACTION:
        empty.append(float(lowest))
    inside = torch.ones_like(voxels, dtype=torch.bool)
    for part, mask in zip(slabs(voxels), slabs(inside), strict=True):
        for value in empty:
            mask.logical_and_(part != value)
    return inside if bool(inside.any()) else torch.ones_like(inside)


def empty_value(voxels: Scan) -> float:
    """Return the value for voxels outside a scan when it is resampled onto another grid.

    The padding value where there is one; otherwise the minimum of a scan without negative values, and of one that shows
    air (a CT); otherwise 0: a statistical map, a PET with negative noise, a z-scored scan. NaN where the scan holds
    NaN, and 0 where it holds one value alone.
    """
    if any(bool(part.isnan().any()) for part in slabs(voxels)):
        return float("nan")
    if bool(voxels.min() == voxels.max()):
        return 0.0
    padding = padding_value(voxels)
    if padding is not None:
        return padding
    low, high = float(voxels.min()), float(voxels.max())
    if low >= 0 or high <= 0 or AIR_HU[0] <= low <= AIR_HU[1]:
        return low
    air = count_where(voxels, lambda part: part <= low + AIR_RANGE * (high - low))
    return low if air >= AIR_FRACTION * voxels.numel() else 0.0


def _commonest(values: Tensor) -> Tensor:
    """Return the most frequent value, ()."""
    found, counts = torch.unique(values, return_counts=True)
    return found[counts.argmax()]


def _fraction(voxels: Tensor, value: Tensor) -> float:
    return count_where(voxels, lambda part: part == value) / voxels.numel()


def scale_intensity(image: Image) -> Image:
    """Clip the foreground to its 0.5th and 99.5th percentile and scale it to [0, 1]; the background becomes 0.

    A foreground of one value, such as a mask's, becomes 1.
    """
    inside = foreground(image.voxels)
    low, high = _range(image.voxels, inside)
    if bool(high <= low):
        return Image(inside.to(image.voxels), image.grid, image.name)
    scaled = torch.empty_like(image.voxels)
    for part, mask, made in zip(slabs(image.voxels), slabs(inside), slabs(scaled), strict=True):
        torch.sub(part, low, out=made).div_(high - low).clamp_(0, 1).masked_fill_(~mask, 0)
    return Image(scaled, image.grid, image.name)


def _range(voxels: Scan, inside: Mask) -> tuple[Tensor, Tensor]:
    """Return the two percentiles of the foreground, or its minimum and maximum where they are one value."""
    if voxels.device.type == "cpu":  # numpy copies the values and nothing else, and divides them in place
        values = torch.from_numpy(voxels.detach().numpy()[inside.numpy()])
    else:
        values = voxels[inside]
    ranks = [int((len(values) - 1) * percentile / 100) for percentile in (LOW_PERCENTILE, HIGH_PERCENTILE)]
    low, high = _at_ranks(values, ranks)
    return (values.min(), values.max()) if bool(high <= low) else (low, high)


def _at_ranks(values: Tensor, ranks: list[int]) -> tuple[Tensor, Tensor]:
    """Return the values of two ranks among (n), the least has rank 0; `values` may be reordered."""
    if values.device.type == "cpu":
        values.numpy().partition(ranks)
        return values[ranks[0]].clone(), values[ranks[1]].clone()
    low, high = (values.kthvalue(rank + 1).values for rank in ranks)
    return low, high


FEW_VALUES = 3
SOME_VALUES = 24
PLATEAU_FRACTION = 0.6  # of neighbours, both of them not background, that are equal
JUMP_FRACTION = 0.5  # of those that differ, the fraction that differ by more than 1: a smooth scan goes up by ones
SAMPLED_VOXELS = 200_000


def looks_like_labels(voxels: Scan) -> bool:
    """Say whether a scan holds whole numbers in plateaus, as a segmentation does, and not those of a noisy scan.

    Two or three values are taken for labels; up to 24 where most neighbours within the structures are equal; more where
    besides those that differ mostly do so by more than 1, as labels of no order do. Air and padding, the commonest one
    or two values, are left out. Constant images are not labels.
    """
    if bool(voxels.isnan().any()):
        voxels = voxels.nan_to_num(nan=0.0)
    if not all(bool((part == part.round()).all()) for part in voxels):  # slice by slice: most scans end at the first
        return False
    sample = voxels.flatten()[:: max(1, voxels.numel() // SAMPLED_VOXELS)]
    values, counts = torch.unique(sample, return_counts=True)
    count = _distinct_values(voxels, SOME_VALUES)
    if count <= FEW_VALUES:
        return count > 1
    common = values[counts.argsort(descending=True)][: 1 if count <= SOME_VALUES else 2]
    equal, jumps, pairs = _neighbours(voxels, common)
    if equal < PLATEAU_FRACTION * pairs:
        return False
    return count <= SOME_VALUES or jumps >= JUMP_FRACTION * (pairs - equal)


def _distinct_values(voxels: Scan, limit: int) -> int:
    """Count the values, one slice after another, and stop once there are more than `limit`."""
    found: set[float] = set()
    for part in voxels:
        found.update(torch.unique(part).tolist())
        if len(found) > limit:
            break
    return len(found)


def _neighbours(voxels: Scan, background: Tensor) -> tuple[int, int, int]:
    """Count neighbours in each slice, neither of them background: equal ones, ones more than 1 apart, and all."""
    equal = jumps = pairs = 0
    for part in voxels:
        tissue = ~torch.isin(part, background)
        for left, right, both in (
            (part[:, :-1], part[:, 1:], tissue[:, :-1] & tissue[:, 1:]),
            (part[:-1], part[1:], tissue[:-1] & tissue[1:]),
        ):
            apart = (left - right).abs()[both]
            equal += int((apart == 0).sum())
            jumps += int((apart > 1).sum())
            pairs += len(apart)
    return equal, jumps, pairs
