"""Overlapping tiles of a volume: their size, how far they overlap, and their weights where they do."""

from __future__ import annotations

import torch
from torch import Tensor

from crossalign.types import Shape

LARGEST_TILE = 192  # voxels on an axis
OVERLAP = 64  # voxels, at least


def tile_shape(shape: torch.Size, largest: int, multiple: int) -> Shape:
    """Divide each axis evenly among as few tiles as the largest allows."""
    z, y, x = (tile_size(size, largest, multiple) for size in shape)
    return z, y, x


def tile_size(size: int, largest: int, multiple: int) -> int:
    """Return the size of tiles on an axis: a multiple, with which as few as possible overlap by OVERLAP or more."""
    largest = max(largest // multiple, 1) * multiple
    if size <= largest:
        return size
    overlap = -(-OVERLAP // multiple) * multiple
    count = -(-(size - overlap) // max(largest - overlap, multiple))
    return -(-(size + (count - 1) * overlap) // (count * multiple)) * multiple


def tile_weights(tile: Shape) -> Tensor:
    """Gaussian weights (z, y, x) of a tile's voxels, sd a twelfth of each edge.

    MONAI's own raises all weights to a thousandth of the largest: in the volume's edges and corners, where all tiles'
    weights are small, that would mix in the voxels at the border of a tile. The factor makes that limit irrelevant.
    """
    z, y, x = (torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 12)) ** 2) for n in tile)
    return z[:, None, None] * y[:, None] * x * 1e25


def tile_overlap(size: int, tile: int, multiple: int) -> float:
    """Fraction of a tile that the next one covers; the last one is moved back to the end, which is a multiple too."""
    if size == tile:
        return 0.0
    stride = max(tile - -(-OVERLAP // multiple) * multiple, multiple)
    return 1 - (stride + 0.5) / tile
