"""How an image's own units become [0, 1], and how they come back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from crossalign.errors import ImageError
from crossalign.images import Image, padding_value
from crossalign.types import Mask, Scan

LOW_PERCENTILE = 0.1
HIGH_PERCENTILE = 99.5
HEADROOM = 2.0
FILLED_SHARE = 0.01
# Shares of the range from the 0.1th percentile to the 99.5th.
NEAR_ZERO = 0.05  # padding so little below the rest is the same background
WITHIN_REACH = 0.5  # padding farther below the rest (-1024) is not part of the scale
AIR_RANGE, AIR_SHARE = 0.10, 0.30  # an image with so many voxels so near its lowest shows air
NOISE_SHARE = 0.10  # of voxels below the commonest level
ADDED = 0.5  # of the 99.5th percentile: a background above it is a constant that was added to a PET
MODE_BINS = 200
# The mean and the standard deviation of a z-scored image are 0 and 1.
MEAN_SD, LEAST_SD, MOST_SD = 0.1, 0.8, 1.25


@dataclass(frozen=True)
class Scaling:
    """The values of an image that become 0 and 1, in the image's own unit, and what share lay beyond them.

    `padding` is the value of voxels that show nothing, where the image has one: they become 0.
    """

    low: float
    high: float
    unit: str = ""
    clipped_share: float = 0.0
    padding: float | None = None

    def applied(self, voxels: Scan) -> Scan:
        """Bring an image's own values to [0, 1]; what lies beyond is clipped, padding is 0."""
        scaled = (voxels - self.low).div_(self.high - self.low).clamp_(0, 1)
        if self.padding is not None and self.padding > self.low:
            scaled[padded(voxels, self.padding)] = 0
        return scaled

    def undone(self, scaled: Scan) -> Scan:
        """Bring values in [0, 1] back to the image's own unit."""
        return scaled * (self.high - self.low) + self.low

    def emptied(self, image: Image) -> Image:
        """Return the image with its padding at the value that becomes 0, so that interpolation mixes in nothing."""
        if self.padding is None or self.padding == self.low:
            return image
        voxels = image.voxels.clone()
        voxels[padded(voxels, self.padding)] = self.low
        return Image(voxels, image.grid, image.name)


def find_scaling(image: Image, unit: str = "") -> Scaling:
    """Choose the scaling of a structural image.

    0 is the background: the padding where it lies just below what is shown, else the 0.1th percentile. 1 is the
    brightest voxel, but no more than twice the 99.5th percentile (from 0): one hot vessel or speck must not darken the
    rest, and a hot lesion, which no percentile of a whole head sees, must not be clipped away. Padding takes no part in
    percentiles. A brighter or shifted copy of an image is scaled alike. Raises ImageError where nothing varies.
    """
    levels = _measured(image)
    return levels.scaling(image.name, levels.background(), unit)


def find_uptake_scaling(image: Image, unit: str = "") -> Scaling:
    """Choose the scaling of a functional image, in which 0 means no uptake and becomes 0.

    Negative noise is clipped. Another value than 0 becomes 0 only where the background plainly has it: a constant that
    was added, or a z-scored image. 1 is chosen as for structural images. Raises ImageError where nothing varies.
    """
    levels = _measured(image)
    return levels.scaling(image.name, levels.no_uptake(), unit)


def padded(voxels: Scan, value: float) -> Mask:
    """Say which voxels are padding of this value.

    All that hold 0; of another value, which a structure may hold too (a saturated 255), those joined to the border.
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
class _Levels:
    """What an image's voxels but its padding hold: the values, their percentiles, and the padding's value."""

    values: NDArray[np.float32]
    low: float
    bright: float
    padding: float | None
    voxels: int

    @property
    def span(self) -> float:
        return self.bright - self.low

    def background(self) -> float:
        """Return the level that lies below everything an image shows."""
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
        """Return the level that means no uptake."""
        if self.low >= 0:
            if self.padding is not None and 0 < self.padding < self.low:
                return self.background()
            added = self.padding != 0 and self.low > ADDED * self.bright and self.shows_air()
            return self.low if added else 0.0
        if self.padding is not None and self.padding < self.low and not self.shows_air():
            return self.background()
        if self.padding == 0 and self.z_scored():
            return self.low
        common = self.commonest()
        if 2 * common - self.low >= 0:  # 0 lies within the spread of the commonest level, as in noise about 0
            return 0.0
        noisy = float(np.mean(self.values < common)) >= NOISE_SHARE
        return common if noisy and self.shows_air() else self.low

    def shows_air(self) -> bool:
        """Say whether the commonest level lies near the lowest, and many voxels with it."""
        near = self.low + AIR_RANGE * self.span
        return self.commonest() <= near and float(np.mean(self.values <= near)) >= AIR_SHARE

    def commonest(self) -> float:
        """Return the level that most voxels have, to half a hundredth of the range."""
        if self.span <= 0:
            return self.low
        counts, edges = np.histogram(self.values, bins=MODE_BINS, range=(self.low, self.bright))
        return float(edges[counts.argmax()] + edges[counts.argmax() + 1]) / 2

    def z_scored(self) -> bool:
        """Say whether mean and standard deviation are about 0 and 1."""
        mean, sd = float(self.values.mean(dtype=np.float64)), float(self.values.std(dtype=np.float64))
        return abs(mean) <= MEAN_SD * sd and LEAST_SD <= sd <= MOST_SD

    def scaling(self, name: str, low: float, unit: str) -> Scaling:
        brightest = float(self.values.max())
        high = min(brightest, low + HEADROOM * (self.bright - low)) if self.bright > low else brightest
        if not high > low:
            raise ImageError(f"{name}: every voxel but a few is {low:g}: an image without contrast cannot be fused")
        beyond = np.count_nonzero(self.values < low) + np.count_nonzero(self.values > high)
        return Scaling(low, high, unit, float(beyond) / self.voxels, self.padding)


def _measured(image: Image) -> _Levels:
    """Take the percentiles of an image: the low one of all but padding, the high one without a constant background."""
    voxels = image.voxels.cpu()
    padding = padding_value(voxels)
    values = voxels.flatten().numpy()
    if padding is not None:
        lowest = padding == float(voxels.min())
        inside = values != np.float32(padding) if lowest else ~padded(voxels, padding).numpy().ravel()
        if not inside.any():
            padding = None
        else:
            values = values[inside]
    low = _percentile(values, LOW_PERCENTILE)
    lowest_value = values.min()
    shown = values
    if np.count_nonzero(values == lowest_value) >= FILLED_SHARE * len(values):
        shown = values[values != lowest_value]
    bright = _percentile(shown, HIGH_PERCENTILE) if len(shown) else low
    return _Levels(values, low, bright, padding, voxels.numel())


def _percentile(values: NDArray[np.float32], percentile: float) -> float:
    """Return the value at or below this percentile, without sorting them all."""
    index = int((len(values) - 1) * percentile / 100)
    return float(np.partition(values, index)[index])
