"""The structure that a registration is about: its centre, and points on its surface. The twin of `images.surface`."""

from __future__ import annotations

import numpy as np

from crossalign.onnx_runtime.motions import Array
from crossalign.onnx_runtime.scans import Lattice, Scan

SURFACE_POINTS, MORTON_BITS = 1024, 10
CROP_POINTS = 6  # a side: where there is no mask


def centroid_mm(mask: Scan) -> Array:
    """Return the middle of a mask's voxels."""
    return mask.lattice.to_physical(np.argwhere(mask.voxels)[:, ::-1].mean(0))


def surface_points(mask: Scan) -> Array:
    """Return up to 1,024 points (n, 3), mm, evenly over a mask's surface."""
    inside = mask.voxels != 0
    faces = [_faces_across(inside, axis) for axis in range(3)]
    index = np.concatenate(faces)
    points = mask.lattice.to_physical(index if len(index) else np.argwhere(inside)[:, ::-1].astype(np.float64))
    points = points[np.argsort(_morton_codes(points), kind="stable")]
    count = min(SURFACE_POINTS, len(points))
    return points[((np.arange(count) + 0.5) * len(points) / count).astype(np.int64)]


def crop_points(shape: tuple[int, int, int], spacing_mm: float) -> Array:
    """Return points (n, 3) all over a crop (z, y, x), mm from its centre."""
    axes = [(np.arange(CROP_POINTS) - (CROP_POINTS - 1) / 2) * size * spacing_mm / CROP_POINTS for size in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.stack((x, y, z), -1).reshape(-1, 3)


def crop_lattice(shape: tuple[int, int, int], spacing_mm: float, center_mm: Array, rotation: Array) -> Lattice:
    """Return where a crop's voxels lie about a point; `rotation` (3, 3) brings the world's axes to the crop's."""
    z, y, x = shape
    return Lattice.about(center_mm, (x, y, z), np.full(3, spacing_mm), rotation.T)


def _faces_across(inside: Array, axis: int) -> Array:
    crossing = np.diff(inside.astype(np.int8), axis=axis) != 0
    index = np.argwhere(crossing).astype(np.float64)
    index[:, axis] += 0.5
    return index[:, ::-1]


def _morton_codes(points_mm: Array) -> Array:
    low = points_mm.min(0)
    extent = max(float((points_mm - low).max()), 1e-6)
    steps = np.rint((points_mm - low) / extent * (2**MORTON_BITS - 1)).astype(np.int64)
    code = np.zeros(len(points_mm), np.int64)
    for bit in range(MORTON_BITS):
        for axis in range(3):
            code |= ((steps[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code
