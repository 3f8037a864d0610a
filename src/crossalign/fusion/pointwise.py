"""Fusion voxel by voxel: what every other method must beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from crossalign.fusion.method import FusionMethod
from crossalign.types import Scan


@dataclass(frozen=True)
class Average(FusionMethod):
    """The mean of the two: near the best there is for PSNR averaged over both inputs, and blurred in both."""

    @property
    def name(self) -> str:
        """Short name."""
        return "average"

    def settings(self) -> dict[str, str]:
        """Nothing to set."""
        return {}

    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Return (a + b) / 2."""
        return (a + b).div_(2)


@dataclass(frozen=True)
class Maximum(FusionMethod):
    """The brighter of the two: sharp, but a dark lesion in one is lost wherever the other is bright."""

    @property
    def name(self) -> str:
        """Short name."""
        return "maximum"

    def settings(self) -> dict[str, str]:
        """Nothing to set."""
        return {}

    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Return the larger value of each voxel."""
        return torch.maximum(a, b)
