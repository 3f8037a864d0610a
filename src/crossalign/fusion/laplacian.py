"""Laplacian pyramid fusion (Burt and Adelson 1983): the stronger detail of the two at each scale, the mean below."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.fusion.axes import ALL_AXES, Axes, check_axes, name_over, settings_over
from crossalign.fusion.method import FusionMethod
from crossalign.types import Scan

KERNEL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
SMALLEST_AXIS = 4


@dataclass(frozen=True)
class LaplacianPyramid(FusionMethod):
    """Takes, at each scale and voxel, the detail of the input that has more of it nearby, and the mean of the rest.

    `axes` are those (0 z, 1 y, 2 x) that the pyramid runs over: all three, or (1, 2) for each axial slice by itself.
    More of it nearby: a larger sum of squares over 3 voxels along each of the axes.
    """

    levels: int = 3
    axes: Axes = ALL_AXES

    def __post_init__(self) -> None:
        check_axes(self.levels, self.axes)

    @property
    def name(self) -> str:
        """Short name."""
        return name_over("laplacian", self.axes)

    def settings(self) -> dict[str, str]:
        """Every field, as text."""
        return {"levels": str(self.levels), **settings_over(self.axes)}

    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Build both pyramids level by level, choose, and put the chosen ones together."""
        details: list[Tensor] = []
        for _ in range(self.levels):
            if min(a.shape[axis] for axis in self.axes) < SMALLEST_AXIS:
                break
            small_a, small_b = _reduced(a, self.axes), _reduced(b, self.axes)
            detail_a, detail_b = a - _expanded(small_a, a, self.axes), b - _expanded(small_b, b, self.axes)
            details.append(stronger(detail_a, detail_b, self.axes))
            a, b = small_a, small_b
        fused = (a + b) / 2
        for detail in reversed(details):
            fused = detail + _expanded(fused, detail, self.axes)
        return fused.clamp(0, 1)


def stronger(a: Tensor, b: Tensor, axes: Axes) -> Tensor:
    """Take from a or b, voxel by voxel, by the sum of squares over 3 voxels along each of the axes."""
    return torch.where(_activity(a, axes) >= _activity(b, axes), a, b)


def _activity(detail: Tensor, axes: Axes) -> Tensor:
    energy = detail**2
    for axis in axes:
        energy = _filtered(energy, (1.0, 1.0, 1.0), axis)
    return energy


def _reduced(volume: Tensor, axes: Axes) -> Tensor:
    """Smooth and keep every second voxel along each of the axes."""
    for axis in axes:
        kept = torch.arange(0, volume.shape[axis], 2)
        volume = _filtered(volume, KERNEL, axis).index_select(axis, kept)
    return volume


def _expanded(small: Tensor, like: Tensor, axes: Axes) -> Tensor:
    """Interpolate a reduced volume to the shape that it came from."""
    for axis in axes:
        shape = list(small.shape)
        shape[axis] = like.shape[axis]
        spread, mass = small.new_zeros(shape), small.new_zeros(shape[axis])
        spread.index_copy_(axis, torch.arange(0, shape[axis], 2), small)
        mass[::2] = 1
        sides = [1, 1, 1]
        sides[axis] = -1
        small = _filtered(spread, KERNEL, axis) / _filtered(mass, KERNEL, 0).reshape(sides)
    return small


def _filtered(volume: Tensor, kernel: tuple[float, ...], axis: int) -> Tensor:
    """Correlate along one axis, the border repeated."""
    moved = volume.movedim(axis, -1)
    weights = torch.tensor(kernel, dtype=volume.dtype)[None, None]
    rows = F.pad(moved.reshape(-1, 1, moved.shape[-1]), [len(kernel) // 2] * 2, mode="replicate")
    return F.conv1d(rows, weights).reshape(moved.shape).movedim(-1, axis)
