"""How an image's own units become [0, 1], and how they come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import ndimage

from crossalign.errors import InputError
from crossalign.images import Image
from crossalign.types import Mask, Scan

GIVEN = "given"  # the source of a window, or of a modality, that the user named


@dataclass(frozen=True)
class Scaling:
    """The values of an image that become 0 and 1, in the image's own unit, and the fraction of voxels beyond them.

    `padding` is the value of voxels that show nothing, where the image has one: they become 0. `saturated` voxels, the
    `saturated_fraction` of all, lie above `high` and became 1; `clipped_fraction` counts those below `low` too.
    `modality` says by which rule the values were chosen and `source` how the modality is known, or that the values were
    given.
    """

    OLD_NAMES: ClassVar[Mapping[str, str]] = {"clipped_share": "clipped_fraction"}

    low: float
    high: float
    unit: str = ""
    clipped_fraction: float = 0.0
    padding: float | None = None
    saturated: int = 0
    saturated_fraction: float = 0.0
    modality: str = ""
    source: str = ""

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
