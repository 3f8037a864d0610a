"""How an image's own units become [0, 1], and how they come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from crossalign.errors import ImageError, InputError
from crossalign.images import Image, padding_value
from crossalign.types import Mask, Scan

LOW_PERCENTILE, HIGH_PERCENTILE = 0.1, 99.5
HEADROOM = 2.0
FILLED_FRACTION = 0.01
# Fractions of the range from the 0.1th percentile to the 99.5th.
NEAR_ZERO = 0.05  # padding so little below the rest is the same background
WITHIN_REACH = 0.5  # padding farther below the rest (-1024) is not part of the scale
AIR_RANGE, AIR_FRACTION = 0.10, 0.30  # an image with so many voxels so near its lowest shows air
NOISE_FRACTION = 0.10  # of voxels below the commonest value
ADDED = 0.5  # of the 99.5th percentile: a background above it is a constant that was added to a PET
MODE_BINS = 200
# The mean and the standard deviation of a z-scored image are 0 and 1.
MEAN_SD, LEAST_SD, MOST_SD = 0.1, 0.8, 1.25


@dataclass(frozen=True)
class Scaling:
    """The values of an image that become 0 and 1, in the image's own unit, and the fraction of voxels beyond them.

    `padding` is the value of voxels that show nothing, where the image has one: they become 0.
    """

    OLD_NAMES: ClassVar[Mapping[str, str]] = {"clipped_share": "clipped_fraction"}

    low: float
    high: float
    unit: str = ""
    clipped_fraction: float = 0.0
    padding: float | None = None

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise InputError(f"'high' is {self.high:g}, expected more than 'low', {self.low:g}")

    def apply(self, voxels: Scan) -> Scan:
        """Map an image's own values to [0, 1]; values beyond are clipped, padding is 0."""
        scaled = (voxels - self.low).div_(self.high - self.low).clamp_(0, 1)
        if self.padding is not None and self.padding > self.low:
            scaled[padding_mask(voxels, self.padding)] = 0
        return scaled

    def invert(self, scaled: Scan) -> Scan:
        """Map values in [0, 1] back to the image's own unit."""
        return scaled * (self.high - self.low) + self.low

    def without_padding(self, image: Image) -> Image:
        """Return the image with its padding at the value that becomes 0, for interpolation."""
        if self.padding is None or self.padding == self.low:
            return image
        voxels = image.voxels.clone()
        voxels[padding_mask(voxels, self.padding)] = self.low
        return Image(voxels, image.grid, image.name)


def find_scaling(image: Image, unit: str = "") -> Scaling:
    """Choose the scaling of a structural image.

    0 is the background: the padding where it lies just below the rest, else the 0.1th percentile. 1 is the brightest
    voxel, but no more than twice the 99.5th percentile (from 0): one bright vessel or voxel must not darken the rest,
    and a hot lesion, which no percentile of a whole head includes, must not be clipped. Padding does not count in
    percentiles. A brighter or shifted copy of an image is scaled alike. Raises ImageError where nothing varies.
    """
    statistics = _intensity_statistics(image)
    return statistics.scaling(image.name, statistics.background(), unit)


def find_uptake_scaling(image: Image, unit: str = "") -> Scaling:
    """Choose the scaling of a functional image, in which 0 means no uptake and becomes 0.

    Negative noise is clipped. Another value than 0 becomes 0 only where the background clearly has it: a constant that
    was added, or a z-scored image. 1 is chosen as for structural images. Raises ImageError where nothing varies.
    """
    statistics = _intensity_statistics(image)
    return statistics.scaling(image.name, statistics.no_uptake(), unit)


def padding_mask(voxels: Scan, value: float) -> Mask:
    """Say which voxels are padding of this value.

    All that hold 0; of another value, which a structure may hold too (a saturated 255), those connected to the border.
    """
    same = voxels == value
    if value == 0:
        return same
    parts, count = ndimage.label(same.numpy())
    outer = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for face in (0, -1):
            outer[np.unique(parts.take(face, axis=axis))] = True
    outer[0] = False
    return torch.from_numpy(outer[parts])


@dataclass(frozen=True, eq=False)
class _IntensityStatistics:
    """Of an image's voxels without its padding: the values, a low and a high percentile; and the padding's value."""

    values: NDArray[np.float32]
    low: float
    bright: float
    padding: float | None
    voxels: int

    @property
    def span(self) -> float:
        return self.bright - self.low

    def background(self) -> float:
        """Return the value below everything that an image shows."""
        if self.padding is None or self.padding >= self.low:
            return self.low
        gap = self.low - self.padding
        if self.span <= 0 or gap <= NEAR_ZERO * self.span:
            return self.padding
        if self.padding < 0 <= self.low:  # -1024 below a scan that has no negative values
            return self.low
        reach = self.span if self.padding == 0 else WITHIN_REACH * self.span  # 0: cut out along a mask
        return self.padding if gap <= reach and not self.shows_air() else self.low

    def no_uptake(self) -> float:
        """Return the value that means no uptake."""
        if self.low >= 0:
            if self.padding is not None and 0 < self.padding < self.low:
                return self.background()
            added = self.padding != 0 and self.low > ADDED * self.bright and self.shows_air()
            return self.low if added else 0.0
        if self.padding is not None and self.padding < self.low and not self.shows_air():
            return self.background()
        if self.padding == 0 and self.is_z_scored():
            return self.low
        common = self.commonest()
        if 2 * common - self.low >= 0:  # 0 is as near to the commonest value as the lowest one, as in noise about 0
            return 0.0
        noisy = float(np.mean(self.values < common)) >= NOISE_FRACTION
        return common if noisy and self.shows_air() else self.low

    def shows_air(self) -> bool:
        """Say whether the commonest value is near the lowest, and that of many voxels too."""
        near = self.low + AIR_RANGE * self.span
        return self.commonest() <= near and float(np.mean(self.values <= near)) >= AIR_FRACTION

    def commonest(self) -> float:
        """Return the value that most voxels have, to half a hundredth of the range."""
        if self.span <= 0:
            return self.low
        counts, edges = np.histogram(self.values, bins=MODE_BINS, range=(self.low, self.bright))
        return float(edges[counts.argmax()] + edges[counts.argmax() + 1]) / 2

    def is_z_scored(self) -> bool:
        """Say whether mean and standard deviation are about 0 and 1."""
        mean, sd = float(self.values.mean(dtype=np.float64)), float(self.values.std(dtype=np.float64))
        return abs(mean) <= MEAN_SD * sd and LEAST_SD <= sd <= MOST_SD

    def scaling(self, name: str, low: float, unit: str) -> Scaling:
        """Return the scaling from this value; raises ImageError where nothing is brighter."""
        brightest = float(self.values.max())
        high = min(brightest, low + HEADROOM * (self.bright - low)) if self.bright > low else brightest
        if not high > low:
            raise ImageError(f"{name}: every voxel but a few is {low:g}: an image without contrast cannot be fused")
        beyond = np.count_nonzero(self.values < low) + np.count_nonzero(self.values > high)
        return Scaling(low, high, unit, float(beyond) / self.voxels, self.padding)


def _intensity_statistics(image: Image) -> _IntensityStatistics:
    """Take the percentiles of an image: the low one of all but padding, the high one without a constant background."""
    voxels = image.voxels.cpu()
    padding = padding_value(voxels)
    values = voxels.flatten().numpy()
    if padding is not None:
        lowest = padding == float(voxels.min())
        inside = values != np.float32(padding) if lowest else ~padding_mask(voxels, padding).numpy().ravel()
        if not inside.any():
            padding = None
        else:
            values = values[inside]
    low = _percentile(values, LOW_PERCENTILE)
    lowest_value = values.min()
    foreground = values
    if np.count_nonzero(values == lowest_value) >= FILLED_FRACTION * len(values):
        foreground = values[values != lowest_value]
    bright = _percentile(foreground, HIGH_PERCENTILE) if len(foreground) else low
    return _IntensityStatistics(values, low, bright, padding, voxels.numel())


def _percentile(values: NDArray[np.float32], percentile: float) -> float:
    """Return the value at or below this percentile, without sorting them all."""
    index = int((len(values) - 1) * percentile / 100)
    return float(np.partition(values, index)[index])
