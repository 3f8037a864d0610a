"""Resampling of sheared volumes onto the straight grid that `placed` lays over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from crossalign.images.formats.placement import Placement

EDGE_VOXEL = 1e-4  # rounding must not push a border voxel outside


def straightened(values: NDArray[Any], placement: Placement, fill: float, nearest: bool = False) -> NDArray[Any]:
    """Bring stored voxels (z, y, x) onto the placement's grid, trilinear or nearest; outside they are `fill`.

    A slice at a time, so that memory stays near that of the two volumes.
    """
    matrix = placement.grid_to_stored
    if matrix is None:
        return values
    depth, height, width = placement.grid.shape
    last = np.array(values.shape[::-1], np.float64)[:, None, None] - 1
    y, x = np.meshgrid(np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64), indexing="ij")
    plane = np.einsum("ij,jyx->iyx", matrix[:3, :2], np.stack((x, y))) + matrix[:3, 3, None, None]
    result = np.empty(placement.grid.shape, values.dtype)
    for z in range(depth):
        stored = plane + z * matrix[:3, 2, None, None]
        inside = ((stored >= -EDGE_VOXEL) & (stored <= last + EDGE_VOXEL)).all(0)
        stored = np.clip(stored, 0, last)
        order = 0 if nearest else 1
        found = ndimage.map_coordinates(values, stored[::-1], output=values.dtype, order=order, mode="nearest")
        result[z] = np.where(inside, found, fill)
    return result
