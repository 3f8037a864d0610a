"""FSL's linear transforms (flirt's `-omat`): 4 x 4 numbers that map scaled voxels of one image to those of another.

A scaled voxel is the voxel's index times the spacing, in mm; along x it counts from the other end where the voxels'
axes are right-handed (FSL's "neurological" order), so that the frame is always left-handed. The source of the
convention is FSL's documentation of FLIRT and of `newimage`.
"""

from __future__ import annotations

import numpy as np

from crossalign.geometry import Grid
from crossalign.images.files.transform_formats.itk import Matrix


def from_scaled_voxels(matrix: Matrix, source: Grid, target: Grid) -> Matrix:
    """Turn a matrix between scaled voxels into one (4, 4) that maps points of source to target, LPS mm."""
    result: Matrix = np.linalg.inv(_scaled_voxels_of_points(target)) @ matrix @ _scaled_voxels_of_points(source)
    return result


def to_scaled_voxels(matrix: Matrix, source: Grid, target: Grid) -> Matrix:
    """Turn a matrix (4, 4) that maps points of source to target, LPS mm, into one between their scaled voxels."""
    result: Matrix = _scaled_voxels_of_points(target) @ matrix @ np.linalg.inv(_scaled_voxels_of_points(source))
    return result


def _scaled_voxels_of_points(grid: Grid) -> Matrix:
    """Matrix (4, 4) from points, LPS mm, to scaled voxels."""
    scale = np.diag([*grid.spacing_mm, 1.0])
    if np.linalg.det(np.array(grid.direction)) > 0:
        scale[0, 0] = -grid.spacing_mm[0]
        scale[0, 3] = grid.spacing_mm[0] * (grid.shape[2] - 1)
    result: Matrix = scale @ grid.physical_to_voxel().numpy()
    return result
