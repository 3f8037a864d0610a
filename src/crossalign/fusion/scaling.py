"""How an image's own units become [0, 1], and how they come back."""

from __future__ import annotations

from dataclasses import dataclass

from crossalign.errors import ImageError
from crossalign.images import Image
from crossalign.types import Scan

LOW_PERCENTILE = 0.1
HIGH_PERCENTILE = 99.5
HEADROOM = 2.0


@dataclass(frozen=True)
class Scaling:
    """The values of an image that become 0 and 1, in the image's own unit, and what share lay beyond them."""

    low: float
    high: float
    unit: str = ""
    clipped_share: float = 0.0

    def applied(self, voxels: Scan) -> Scan:
        """Bring an image's own values to [0, 1]; what lies beyond is clipped."""
        return ((voxels - self.low) / (self.high - self.low)).clamp(0, 1)

    def undone(self, scaled: Scan) -> Scan:
        """Bring values in [0, 1] back to the image's own unit."""
        return scaled * (self.high - self.low) + self.low


def find_scaling(image: Image, unit: str = "") -> Scaling:
    """Choose the scaling of one image, over all of its voxels, background included.

    0 is the 0.1th percentile (the background, in a PET or an MRI). 1 is the brightest voxel, but no more than twice
    the 99.5th percentile: one hot vessel or speck must not darken the rest, and a hot lesion, which no percentile of a
    whole head sees, must not be clipped away. Raises ImageError where nothing varies between the two.
    """
    values = image.voxels.flatten().sort().values
    last = len(values) - 1
    low = float(values[int(last * LOW_PERCENTILE / 100)])
    bright = float(values[int(last * HIGH_PERCENTILE / 100)])
    brightest = float(values[-1])
    high = min(brightest, low + HEADROOM * (bright - low)) if bright > low else brightest
    if not high > low:
        raise ImageError(f"{image.name}: every voxel but a few is {low:g}: an image without contrast cannot be fused")
    clipped = float(((values < low) | (values > high)).double().mean())
    return Scaling(low, high, unit, clipped)
