"""What the values of an image say about its background: padding, air, no uptake."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossalign.fusion.scaling import padding_mask
from crossalign.images import Image, padding_value

LOW_PERCENTILE, HIGH_PERCENTILE = 0.1, 99.5
FILLED_FRACTION = 0.01
BODY = 0.1  # of the way from the background to the 99.5th percentile: what is brighter belongs to the body
# Fractions of the range from the 0.1th percentile to the 99.5th.
NEAR_ZERO = 0.05  # padding so little below the rest is the same background
WITHIN_REACH = 0.5  # padding farther below the rest (-1024) is not part of the scale
AIR_RANGE, AIR_FRACTION = 0.10, 0.30  # an image with so many voxels so near its lowest shows air
NOISE_FRACTION = 0.10  # of voxels below the commonest value
ADDED = 0.5  # of the 99.5th percentile: a background above it is a constant that was added to a PET
MODE_BINS = 200
# The mean and the standard deviation of a z-scored image are 0 and 1.
MEAN_SD, LEAST_SD, MOST_SD = 0.1, 0.8, 1.25


@dataclass(frozen=True, eq=False)
class IntensityStatistics:
    """Of an image's voxels without its padding: the values, a low and a high percentile; and the padding's value."""

    values: NDArray[np.float32]
    low: float
    bright: float
    padding: float | None
    voxels: int

    @property
    def span(self) -> float:
        """The bright percentile minus the low one."""
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

    def body_percentile(self, percentile: float) -> float:
        """Return a percentile of the body: of what is brighter than a tenth of the way to the 99.5th percentile."""
        low = self.background()
        body = self.values[self.values > low + BODY * (self.bright - low)]
        return _percentile(body, percentile) if len(body) else float(self.values.max())


def intensity_statistics(image: Image) -> IntensityStatistics:
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
    return IntensityStatistics(values, low, bright, padding, voxels.numel())


def _percentile(values: NDArray[np.float32], percentile: float) -> float:
    """Return the value at or below this percentile, without sorting them all."""
    index = int((len(values) - 1) * percentile / 100)
    return float(np.partition(values, index)[index])
