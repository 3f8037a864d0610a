"""Classical fusion: average, maximum, Laplacian pyramid and wavelet, in 3-D and slice by slice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.extras import optional_module
from crossalign.fusion.result import FusionMethod
from crossalign.similarity.windows import slabs_of
from crossalign.types import Scan, Shape

Axes = tuple[int, ...]  # among 0 z, 1 y, 2 x
ALL_AXES: Axes = (0, 1, 2)
KERNEL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
SMALLEST_AXIS = 4
PYRAMID_BYTES, WAVELET_BYTES = 20, 24  # a voxel


@dataclass(frozen=True)
class Average(FusionMethod):
    """The mean of the two: near the best there is for PSNR averaged over both inputs, and blurred in both."""

    name = "average"

    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Return (a + b) / 2."""
        return (a + b).div_(2)


@dataclass(frozen=True)
class Maximum(FusionMethod):
    """The brighter of the two: sharp, but a dark lesion in one is lost wherever the other is bright."""

    name = "maximum"

    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Return the larger value of each voxel."""
        return torch.maximum(a, b)


@dataclass(frozen=True)
class LaplacianPyramid(FusionMethod):
    """Takes, at each scale and voxel, the detail of the input that has more of it nearby, and the mean of the rest.

    `axes` are those (0 z, 1 y, 2 x) that the pyramid runs over: all three, or (1, 2) for each axial slice separately.
    More of it nearby: a larger sum of squares over 3 voxels along each of the axes.
    """

    levels: int = 3
    axes: Axes = ALL_AXES

    def __post_init__(self) -> None:
        _check(self.levels, self.axes)

    @property
    def name(self) -> str:
        """Short name."""
        return _name("laplacian", self.axes)

    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Build both pyramids level by level, select details, and expand the fused pyramid."""
        details: list[Tensor] = []
        for _ in range(self.levels):
            if min(a.shape[axis] for axis in self.axes) < SMALLEST_AXIS:
                break
            small_a, small_b = _reduced(a, self.axes), _reduced(b, self.axes)
            detail_a = _expanded(small_a, a, self.axes).neg_().add_(a)
            detail_b = _expanded(small_b, b, self.axes).neg_().add_(b)
            details.append(stronger_detail(detail_a, detail_b, self.axes))
            a, b = small_a, small_b
        fused = (a + b) / 2
        while details:
            detail = details.pop()
            fused = _expanded(fused, detail, self.axes).add_(detail)
        return fused.clamp_(0, 1)

    def needed_bytes(self, shape: Shape) -> int:
        """Details of both, the selected ones, and what expanding takes."""
        return PYRAMID_BYTES * math.prod(shape)


@dataclass(frozen=True)
class WaveletFusion(FusionMethod):
    """Takes each detail coefficient from the input where its size is larger, and the mean of the approximations.

    `axes` are those (0 z, 1 y, 2 x) that the transform runs over: all three, or (1, 2) for each axial slice separately.
    Small volumes get fewer levels than `levels`: as many as the filter fits into (none below 14 voxels: the average).
    """

    wavelet: str = "sym4"
    levels: int = 3
    axes: Axes = ALL_AXES

    def __post_init__(self) -> None:
        _check(self.levels, self.axes)
        _wavelets()

    @property
    def name(self) -> str:
        """Short name."""
        return _name("wavelet", self.axes)

    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Transform both, select coefficients, and transform back."""
        pywt = _wavelets()
        shortest = min(a.shape[axis] for axis in self.axes)
        levels = min(self.levels, pywt.dwt_max_level(shortest, self.wavelet))
        coarse, *details = pywt.wavedecn(a.numpy(), self.wavelet, level=levels, axes=self.axes)
        coarse_b, *details_b = pywt.wavedecn(b.numpy(), self.wavelet, level=levels, axes=self.axes)
        for of_a, of_b in zip(details, details_b, strict=True):
            for key, coefficients in of_a.items():  # in place: another set would take as much memory again
                np.copyto(coefficients, of_b[key], where=np.abs(of_b[key]) > np.abs(coefficients))
                del of_b[key]
        fused = pywt.waverecn([(coarse + coarse_b) / 2, *details], self.wavelet, axes=self.axes)
        depth, height, width = a.shape  # odd axes come back one voxel longer
        return torch.from_numpy(np.ascontiguousarray(fused[:depth, :height, :width])).float().clamp_(0, 1)

    def needed_bytes(self, shape: Shape) -> int:
        """Coefficients of both, and what transforming them takes."""
        return WAVELET_BYTES * math.prod(shape)


def _wavelets() -> Any:
    return optional_module("pywt", "fusion by wavelets needs PyWavelets", "fusion-classical")


def stronger_detail(a: Tensor, b: Tensor, axes: Axes) -> Tensor:
    """Take from a or b, voxel by voxel, by the sum of squares over 3 voxels along each of the axes."""
    selected = torch.empty_like(a)
    for slab in slabs_of(a.shape):
        wider = slab.widened(1)
        own, planes = slab.inside(wider), slab.planes
        stronger_a = _activity(a[wider.planes], axes)[own] >= _activity(b[wider.planes], axes)[own]
        torch.where(stronger_a, a[planes], b[planes], out=selected[planes])
    return selected


def _check(levels: int, axes: Axes) -> None:
    if levels < 1 or not axes or not set(axes) <= set(ALL_AXES):
        raise InputError(f"expected 1 level or more and axes among 0, 1, 2, got {levels} and {axes}")


def _name(name: str, axes: Axes) -> str:
    return name if len(axes) == len(ALL_AXES) else f"{name}-2d"


def _activity(detail: Tensor, axes: Axes) -> Tensor:
    energy = detail**2
    for axis in axes:
        energy = _filtered(energy, (1.0, 1.0, 1.0), axis)
    return energy


def _reduced(volume: Tensor, axes: Axes) -> Tensor:
    """Smooth, and sample every second voxel along each of the axes."""
    for axis in axes:
        even = torch.arange(0, volume.shape[axis], 2)
        volume = _filtered(volume, KERNEL, axis).index_select(axis, even)
    return volume


def _expanded(small: Tensor, like: Tensor, axes: Axes) -> Tensor:
    """Interpolate a reduced volume to the shape that it came from."""
    for axis in axes:
        shape = list(small.shape)
        shape[axis] = like.shape[axis]
        values, weights = small.new_zeros(shape), small.new_zeros(shape[axis])
        values.index_copy_(axis, torch.arange(0, shape[axis], 2), small)
        weights[::2] = 1
        sides = [1, 1, 1]
        sides[axis] = -1
        small = _filtered(values, KERNEL, axis).div_(_filtered(weights, KERNEL, 0).reshape(sides))
    return small


def _filtered(volume: Tensor, kernel: tuple[float, ...], axis: int) -> Tensor:
    """Correlate along one axis, the border repeated: as sums of shifted volumes, which take no copy but the result."""
    size, reach = volume.shape[axis], len(kernel) // 2
    result = volume * kernel[reach]
    for offset, weight in enumerate(kernel, start=-reach):
        if offset == 0:
            continue
        beyond = min(abs(offset), size)
        if size > beyond:
            first = max(0, -offset)
            shifted = volume.narrow(axis, first + offset, size - beyond)
            result.narrow(axis, first, size - beyond).add_(shifted, alpha=weight)
        edge, last = (size - 1, size - beyond) if offset > 0 else (0, 0)
        result.narrow(axis, last, beyond).add_(volume.narrow(axis, edge, 1), alpha=weight)
    return result
