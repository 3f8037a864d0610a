"""From a header's affine to a Grid: rounding is mended, shear is resampled, what is no scan's geometry is refused."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossalign.errors import ImageError
from crossalign.geometry import Grid
from crossalign.images.files.formats.header import Header

# A micrometre is below what a micro-CT resolves, and no scan has voxels of more than a metre: the unit is wrong.
SPACING_RANGE_MM = (1e-3, 1e3)
ORIGIN_LIMIT_MM = 1e6
# Cosine between two axes. A matrix of 3 digits comes to 0.0017; the least tilt of a gantry, 0.5 degrees, to 0.009.
ROUNDING = 2e-3
EXACT = 1e-9
LEAST_VOLUME = 0.25  # of the cell that three unit axes span: below it they lie almost in one plane (75 degrees of tilt)
TOLERANCE_VOXEL = 0.1

Affine = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Placement:
    """A grid with straight axes; `grid_to_stored` (4, 4) maps its voxel indices to the file's where those differ."""

    grid: Grid
    grid_to_stored: Affine | None
    notes: tuple[str, ...]


def placed(header: Header) -> Placement:
    """Find the grid of a header; raises ImageError where its geometry makes no sense."""
    matrix, origin = header.affine[:3, :3], header.affine[:3, 3]
    spacing = np.linalg.norm(matrix, axis=0)
    _check(header.name, spacing, origin)
    axes = matrix / spacing
    cosine = max(abs(float(axes[:, a] @ axes[:, b])) for a, b in ((0, 1), (0, 2), (1, 2)))
    if not abs(np.linalg.det(axes)) >= LEAST_VOLUME:
        raise ImageError(
            f"{header.name}: the axes of the voxels lie almost in one plane "
            f"({math.degrees(math.asin(min(1, cosine))):.0f} degrees from perpendicular), which no scan "
            "has: export it again from its source"
        )
    if cosine > ROUNDING:
        return _straightened(header, axes, spacing, cosine)
    if cosine > EXACT:
        left, _, right = np.linalg.svd(axes)
        axes = left @ right
    straight = _affine(axes * spacing, origin)
    notes: tuple[str, ...] = ()
    if far_apart(straight, header.affine, header.size):
        degrees = math.degrees(math.asin(cosine))
        notes = (
            f"the direction matrix is rounded: its axes are {degrees:.2g} degrees from perpendicular; made straight",
        )
    return Placement(_grid(header.size, axes, spacing, origin), None, notes)


def _check(name: str, spacing: NDArray[np.float64], origin: NDArray[np.float64]) -> None:
    low, high = SPACING_RANGE_MM
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise ImageError(
            f"{name}: the spacing is {_numbers(spacing)} mm, expected three positive numbers: write the true spacing "
            "into the header"
        )
    if spacing.min() < low * (1 - 1e-5) or spacing.max() > high * (1 + 1e-5):
        raise ImageError(
            f"{name}: the spacing is {_numbers(spacing)} mm, expected {low:g} to {high:g} mm: does the header give the "
            "right unit of length?"
        )
    if not (np.isfinite(origin).all() and np.abs(origin).max() <= ORIGIN_LIMIT_MM):
        raise ImageError(
            f"{name}: the origin is {_numbers(origin)} mm, expected finite numbers up to {ORIGIN_LIMIT_MM:g}: write "
            "the true origin into the header"
        )


def _straightened(header: Header, axes: Affine, spacing: NDArray[np.float64], cosine: float) -> Placement:
    """Lay a straight grid over a sheared volume.

    The two axes that are nearest to perpendicular stay where they are (a tilted CT's slices). The third becomes their
    normal, with the distance between slices as its spacing, so that slices fall on slices.
    """
    pairs = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
    first, second, third = min(pairs, key=lambda pair: abs(float(axes[:, pair[0]] @ axes[:, pair[1]])))
    order = [first, second, third]
    orthogonal, upper = np.linalg.qr(axes[:, order])
    orthogonal = orthogonal * np.sign(np.diag(upper))
    steps = np.abs(np.diag(upper)) * spacing[order]
    straight, straight_spacing = np.empty((3, 3)), np.empty(3)
    straight[:, order], straight_spacing[order] = orthogonal, steps
    base = _affine(straight * straight_spacing, header.affine[:3, 3])
    corners = _corners(header.size) @ (np.linalg.inv(base) @ header.affine).T
    low, high = corners[:, :3].min(0), corners[:, :3].max(0)
    low = np.where(np.abs(low) < 1e-6, 0, low)
    counts = np.ceil(high - low - 1e-6).astype(int) + 1
    origin = base[:3, :3] @ low + base[:3, 3]
    size = (int(counts[0]), int(counts[1]), int(counts[2]))
    note = (
        f"the axes of the voxels are {math.degrees(math.asin(cosine)):.1f} degrees from perpendicular (a tilted gantry "
        f"or a sheared matrix): resampled onto a straight grid of {' x '.join(map(str, size))} voxels of "
        f"{_numbers(straight_spacing)} mm"
    )
    back = np.linalg.inv(header.affine) @ _affine(straight * straight_spacing, origin)
    return Placement(_grid(size, straight, straight_spacing, origin), back, (note,))


def far_apart(one: Affine, other: Affine, size: tuple[int, int, int]) -> bool:
    """Say whether two affines put a corner voxel more than a tenth of a voxel apart."""
    offsets = _displacements(one, other, size)
    step = float(np.linalg.norm(one[:3, :3], axis=0).min())
    return not float(offsets.max()) <= TOLERANCE_VOXEL * step


def farthest_corner(one: Affine, other: Affine, size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the corner voxel (x, y, z) that two affines put farthest apart; the last one where several are."""
    corners = _corners(size)[::-1]
    x, y, z, _ = corners[int(_displacements(one, other, size)[::-1].argmax())]
    return int(x), int(y), int(z)


def position(affine: Affine, index: tuple[int, ...]) -> str:
    """Return where an affine puts a voxel, for a message."""
    return "(" + ", ".join(f"{value:.1f}" for value in affine[:3, :3] @ np.array(index) + affine[:3, 3]) + ")"


def _displacements(one: Affine, other: Affine, size: tuple[int, int, int]) -> NDArray[np.float64]:
    difference = np.zeros((4, 4))
    difference[: len(one), : len(one)] = one - other
    return np.linalg.norm((_corners(size) @ difference.T)[:, :3], axis=1)


def _corners(size: tuple[int, int, int]) -> NDArray[np.float64]:
    return np.array([(*corner, 1.0) for corner in itertools.product(*((0.0, n - 1.0) for n in size))])


def _affine(matrix: Affine, origin: NDArray[np.float64]) -> Affine:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, origin
    return affine


def _grid(size: tuple[int, int, int], axes: Affine, spacing: NDArray[np.float64], origin: NDArray[np.float64]) -> Grid:
    (a, b, c), (d, e, f), (g, h, i) = axes.tolist()
    (sx, sy, sz), (ox, oy, oz) = spacing.tolist(), origin.tolist()
    return Grid((size[2], size[1], size[0]), (sx, sy, sz), (ox, oy, oz), ((a, b, c), (d, e, f), (g, h, i)))


def _numbers(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


EDGE_VOXEL = 1e-4  # rounding must not push a border voxel outside


def straightened(values: NDArray[Any], placement: Placement, fill: float, nearest: bool = False) -> NDArray[Any]:
    """Resample stored voxels (z, y, x) onto the placement's grid, trilinear or nearest; outside they are `fill`.

    A slice at a time, so that memory stays near that of the two volumes.
    """
    matrix = placement.grid_to_stored
    if matrix is None:
        return values
    from scipy import ndimage  # 0.2 s, which few scans need

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
