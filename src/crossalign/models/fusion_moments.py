"""Local means, variances and covariances of a pair of volumes; of the whole, or slab by slab."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from crossalign.similarity.windows import GAUSSIAN_RADIUS_VOXEL, gaussian_weights
from crossalign.types import Map, Volume

MEAN_C = 0.01  # square roots of the constants of structural similarity: what counts as faint, and as flat
SPREAD_C = 0.03**2
C1, C2 = MEAN_C**2, SPREAD_C
REACH = GAUSSIAN_RADIUS_VOXEL
BLOCK = 32  # rows of a banded matrix in one product


@dataclass(frozen=True)
class Slab:
    """Axial planes `first` to before `last` of a volume of `depth` planes."""

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

    def inside(self, near: Slab) -> slice:
        """Where its planes are among those of `near`, which holds them."""
        return slice(self.first - near.first, self.last - near.first)


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance (b, 1, z, y, x) of the Gaussian window about each voxel, cut at the border."""

    mean: Volume
    variance: Volume


@dataclass(frozen=True, eq=False)
class PairMoments:
    """Moments of both volumes, and their covariance."""

    a: Moments
    b: Moments
    covariance: Volume


def pair_moments(a: Volume, b: Volume) -> PairMoments:
    """Compute the moments of two volumes (b, 1, z, y, x)."""
    return moments_of(window_means(torch.cat((a, b, a * a, b * b, a * b), dim=1)))


def moments_of(means: Map) -> PairMoments:
    """Take them from the windows' means (b, 5, z, y, x) of a, b, their squares and their product."""
    mean_a, mean_b, aa, bb, ab = means.chunk(5, dim=1)
    return PairMoments(Moments(mean_a, aa - mean_a**2), Moments(mean_b, bb - mean_b**2), ab - mean_a * mean_b)


def window_means(volume: Volume) -> Volume:
    """Gaussian mean of the window about each voxel, cut at the border: as many voxels as before."""
    z, y, x = (_band(size).to(volume) for size in volume.shape[2:])
    return _product(volume, z, y, x)


def spread_back(volume: Volume) -> Volume:
    """Give every window's value back to the voxels it was made of: the transpose of `window_means`."""
    z, y, x = (_band(size).to(volume).mT for size in volume.shape[2:])
    return _product(volume, z, y, x)


def slab_means(near: Volume, slab: Slab) -> Map:
    """`window_means` of a slab's planes, from the planes of `slab.widened(REACH)`."""
    y, x = (_band(size).to(near) for size in near.shape[3:])
    return _along_x(_along_y(slab_sum(near, slab, _band(slab.depth)), y), x)


def spread_in_planes(volume: Volume) -> Volume:
    """Do the part of `spread_back` that stays in the axial planes; `slab_spread` does the rest."""
    y, x = (_band(size).to(volume).mT for size in volume.shape[3:])
    return _along_x(_along_y(volume, y), x)


def slab_spread(near: Volume, slab: Slab) -> Map:
    """`spread_back` of a slab's planes, from what `spread_in_planes` made of the planes of `slab.widened(REACH)`."""
    return slab_sum(near, slab, _band(slab.depth).mT)


def slab_sum(near: Volume, slab: Slab, matrix: Tensor) -> Map:
    """Rows of a banded matrix (depth, depth), those of the slab, times the planes of `slab.widened(REACH)`."""
    rows = matrix[slab.planes, slab.widened(REACH).planes].to(near)
    return _along_z(near, rows)


def _product(volume: Volume, z: Tensor, y: Tensor, x: Tensor) -> Volume:
    with torch.autocast(volume.device.type, enabled=False):  # a variance is a small difference of two large numbers
        return _along_z(_along_y(_along_x(volume.float(), x.float()), y.float()), z.float())


def _along_x(volume: Volume, band: Tensor) -> Volume:
    return torch.cat([volume[..., near] @ band[own, near].mT for own, near in _blocks(len(band))], dim=4)


def _along_y(volume: Volume, band: Tensor) -> Volume:
    shape, planes = volume.shape, volume.flatten(0, 2)
    blocks = [
        torch.bmm(band[own, near].expand(len(planes), -1, -1), planes[:, near]) for own, near in _blocks(len(band))
    ]
    return torch.cat(blocks, dim=1).reshape(shape)


def _along_z(volume: Volume, matrix: Tensor) -> Map:
    b, c, depth, height, width = volume.shape
    return (matrix @ volume.reshape(b, c, depth, -1)).reshape(b, c, -1, height, width)


def _blocks(size: int) -> list[tuple[slice, slice]]:
    """Cut the rows of a banded matrix into blocks, each with the columns that are not 0: half the time from 64 on."""
    step = BLOCK if size >= 2 * BLOCK else size
    return [
        (slice(first, min(size, first + step)), slice(max(0, first - REACH), min(size, first + step + REACH)))
        for first in range(0, size, step)
    ]


@lru_cache(maxsize=64)
def _band(size: int) -> Tensor:
    """Matrix (size, size) of Gaussian windows, those at the border cut and their weights brought to a sum of 1."""
    weights = gaussian_weights()
    matrix = torch.zeros(size, size, dtype=torch.float64)
    radius = len(weights) // 2
    for offset in range(-radius, radius + 1):
        if abs(offset) < size:
            matrix.diagonal(offset).fill_(float(weights[offset + radius]))
    return matrix / matrix.sum(1, keepdim=True)
