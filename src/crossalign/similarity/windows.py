"""Weighted means over windows, as products with banded matrices; and slabs, to go through a volume part by part.

On two CPU cores a product with a banded matrix took a quarter of the time of the convolution that it equals, forward
and backward, for axes of up to some hundred voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import InputError
from crossalign.types import Map, Volume

# A plane (y, x) or a volume (z, y, x); and batches of them, (b, c, y, x) or (b, c, z, y, x).
Field: TypeAlias = Float[Tensor, "*space"]
Fields: TypeAlias = Float[Tensor, "_ _ ..."]

SSIM_SIGMA_VOXEL, SSIM_RADIUS_VOXEL = 1.5, 5  # the window of structural similarity
ROWS = 32  # of a banded matrix in one product
SLAB_VOXELS = 2**20


@dataclass(frozen=True)
class Slab:
    """Planes `first` to before `last` of a volume of `depth` planes."""

    first: int
    last: int
    depth: int

    @property
    def planes(self) -> slice:
        """Its planes, to index the volume's first axis."""
        return slice(self.first, self.last)

    def widened(self, planes: int) -> Slab:
        """Take in that many planes more on either side, where there are any."""
        return Slab(max(0, self.first - planes), min(self.depth, self.last + planes), self.depth)

    def inside(self, wider: Slab) -> slice:
        """Where its planes are among those of `wider`, which holds them."""
        return slice(self.first - wider.first, self.last - wider.first)


def slabs_of(shape: Sequence[int], voxels: int = SLAB_VOXELS) -> list[Slab]:
    """Cut a volume of this shape (z, y, x) into slabs of about so many voxels, one plane at least."""
    depth, height, width = shape
    planes = max(1, voxels // (height * width))
    return [Slab(first, min(depth, first + planes), depth) for first in range(0, depth, planes)]


def gaussian_weights(sigma_voxel: float, radius_voxel: int) -> Float[Tensor, " n"]:
    """Weights (2 radius + 1,), float64, of a Gaussian window; their sum is 1."""
    offsets = torch.arange(-radius_voxel, radius_voxel + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma_voxel) ** 2)
    return weights / weights.sum()


SSIM_WEIGHTS: tuple[float, ...] = tuple(gaussian_weights(SSIM_SIGMA_VOXEL, SSIM_RADIUS_VOXEL).tolist())


def window_means(fields: Fields, weights: tuple[float, ...]) -> Fields:
    """Weighted mean of each window that lies inside, with the same n weights along each axis: n - 1 voxels fewer.

    Raises InputError where no window fits.
    """
    space = fields.shape[2:]
    if not weights or 0 in fields.shape:
        raise InputError(f"windows need 1 voxel or more, and volumes too, got {len(weights)} and {tuple(fields.shape)}")
    if min(space) < len(weights):
        raise InputError(f"windows of {len(weights)} voxels need as many on each axis, got a volume of {tuple(space)}")
    means = fields @ _inner_band(space[-1], weights).to(fields).mT
    for axis in range(fields.ndim - 2, 1, -1):
        shape = means.shape
        product = _inner_band(shape[axis], weights).to(fields) @ means.flatten(axis + 1)
        means = product.reshape(*shape[:axis], -1, *shape[axis + 1 :])
    return means


def clipped_means(volume: Volume) -> Volume:
    """Mean over the window of structural similarity about each voxel, clipped at the border: as many voxels as before.

    In float32 also where autocast is on: a variance is a small difference of two large numbers.
    """
    z, y, x = (_clipped_band(size).to(volume) for size in volume.shape[2:])
    return _product(volume, z, y, x)


def clipped_means_adjoint(volume: Volume) -> Volume:
    """Distribute every window's value to the voxels that it is the mean of: the transpose of `clipped_means`."""
    z, y, x = (_clipped_band(size).to(volume).mT for size in volume.shape[2:])
    return _product(volume, z, y, x)


def clipped_means_of_slab(wide: Volume, slab: Slab) -> Map:
    """`clipped_means` of a slab's planes, from the planes of `slab.widened(SSIM_RADIUS_VOXEL)`."""
    y, x = (_clipped_band(size).to(wide) for size in wide.shape[3:])
    return _along_x(_along_y(_across_planes(wide, slab, _clipped_band(slab.depth)), y), x)


def adjoint_in_planes(volume: Volume) -> Volume:
    """Do the part of `clipped_means_adjoint` that stays in the axial planes; `adjoint_of_slab` does the rest."""
    y, x = (_clipped_band(size).to(volume).mT for size in volume.shape[3:])
    return _along_x(_along_y(volume, y), x)


def adjoint_of_slab(wide: Volume, slab: Slab) -> Map:
    """`clipped_means_adjoint` of a slab's planes, from `adjoint_in_planes` of `slab.widened(SSIM_RADIUS_VOXEL)`."""
    return _across_planes(wide, slab, _clipped_band(slab.depth).mT)


def _across_planes(wide: Volume, slab: Slab, band: Tensor) -> Map:
    return _along_z(wide, band[slab.planes, slab.widened(SSIM_RADIUS_VOXEL).planes].to(wide))


def _product(volume: Volume, z: Tensor, y: Tensor, x: Tensor) -> Volume:
    with torch.autocast(volume.device.type, enabled=False):
        return _along_z(_along_y(_along_x(volume.float(), x.float()), y.float()), z.float())


def _along_x(volume: Volume, band: Tensor) -> Volume:
    return torch.cat([volume[..., near] @ band[own, near].mT for own, near in _blocks(len(band))], dim=4)


def _along_y(volume: Volume, band: Tensor) -> Volume:
    shape, planes = volume.shape, volume.flatten(0, 2)
    blocks = [
        torch.bmm(band[own, near].expand(planes.shape[0], -1, -1), planes[:, near]) for own, near in _blocks(len(band))
    ]
    return torch.cat(blocks, dim=1).reshape(shape)


def _along_z(volume: Volume, band: Tensor) -> Map:
    b, c, depth, height, width = volume.shape
    return (band @ volume.reshape(b, c, depth, -1)).reshape(b, c, -1, height, width)


def _blocks(size: int) -> list[tuple[slice, slice]]:
    """Cut the rows of a banded matrix into blocks, each with the columns that are not 0: half the time from 64 on."""
    step = ROWS if size >= 2 * ROWS else size
    rows = [Slab(first, min(size, first + step), size) for first in range(0, size, step)]
    return [(block.planes, block.widened(SSIM_RADIUS_VOXEL).planes) for block in rows]


@lru_cache(maxsize=64)
def _inner_band(size: int, weights: tuple[float, ...]) -> Tensor:
    """Matrix (size - n + 1, size) whose product with an axis is the correlation with n weights."""
    padded = torch.tensor((0.0, *weights, 0.0), dtype=torch.float64)
    offsets = torch.arange(size)[None] - torch.arange(size - len(weights) + 1)[:, None]
    return padded[offsets.clamp(-1, len(weights)) + 1]


@lru_cache(maxsize=64)
def _clipped_band(size: int) -> Tensor:
    """Matrix (size, size) of windows of structural similarity; the weights of those clipped at the border sum to 1."""
    reach = SSIM_RADIUS_VOXEL
    band = _inner_band(size + 2 * reach, SSIM_WEIGHTS)[:, reach : size + reach]
    return band / band.sum(1, keepdim=True)
