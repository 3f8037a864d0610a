"""Wavelet fusion (Li, Manjunath and Mitra 1995): the larger coefficient of the two, the mean at the coarsest scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from crossalign.fusion.axes import ALL_AXES, Axes, check_axes, name_over, settings_over
from crossalign.fusion.method import FusionMethod
from crossalign.types import Scan, Shape

NEEDED_BYTES = 24  # a voxel


@dataclass(frozen=True)
class WaveletFusion(FusionMethod):
    """Takes each detail coefficient from the input where its size is larger, and the mean of the approximations.

    `axes` are those (0 z, 1 y, 2 x) that the transform runs over: all three, or (1, 2) for each axial slice by itself.
    Small volumes get fewer levels than `levels`: as many as the filter fits into (none below 14 voxels: the average).
    """

    wavelet: str = "sym4"
    levels: int = 3
    axes: Axes = ALL_AXES

    def __post_init__(self) -> None:
        check_axes(self.levels, self.axes)

    @property
    def name(self) -> str:
        """Short name."""
        return name_over("wavelet", self.axes)

    def settings(self) -> dict[str, str]:
        """Every field, as text."""
        return {"wavelet": self.wavelet, "levels": str(self.levels), **settings_over(self.axes)}

    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Transform both, choose, and transform back."""
        import pywt

        shortest = min(a.shape[axis] for axis in self.axes)
        levels = min(self.levels, pywt.dwt_max_level(shortest, self.wavelet))
        arrays = (a.numpy(), b.numpy())
        coarse, *details = pywt.wavedecn(arrays[0], self.wavelet, level=levels, axes=self.axes)
        coarse_b, *details_b = pywt.wavedecn(arrays[1], self.wavelet, level=levels, axes=self.axes)
        for of_a, of_b in zip(details, details_b, strict=True):
            for key, coefficients in of_a.items():  # in place: another set would take as much memory again
                np.copyto(coefficients, of_b[key], where=np.abs(of_b[key]) > np.abs(coefficients))
                del of_b[key]
        fused = pywt.waverecn([(coarse + coarse_b) / 2, *details], self.wavelet, axes=self.axes)
        depth, height, width = a.shape  # odd axes come back one voxel longer
        return torch.from_numpy(np.ascontiguousarray(fused[:depth, :height, :width])).float().clamp_(0, 1)

    def needed_bytes(self, shape: Shape) -> int:
        """Coefficients of both, and what transforming them takes."""
        return NEEDED_BYTES * math.prod(shape)
