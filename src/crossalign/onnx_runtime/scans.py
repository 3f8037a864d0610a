"""Scans in numpy: where their voxels lie, how they are read, scaled and brought to a working spacing.

The twins of `images` and `geometry.grid`; volumes are (z, y, x), points (x, y, z) in LPS mm. Resampling is ITK's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from crossalign.errors import ImageError
from crossalign.images.files.writing import native_path, quiet_native
from crossalign.input import check_regular_file
from crossalign.onnx_runtime.motions import Array, Motion

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
LARGEST_VOXELS = 2**28
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
BACKGROUND_FRACTION, BORDER_FRACTION, FACE_FRACTION, OTHER_BORDER_FRACTION = 0.01, 0.25, 0.9, 0.75


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where voxels lie: sizes (x, y, z), spacing (mm), origin (mm, LPS), and direction (3, 3), axes as columns."""

    size: tuple[int, int, int]
    spacing_mm: Array
    origin_mm: Array
    direction: Array

    @staticmethod
    def about(center_mm: Array, size: tuple[int, int, int], spacing_mm: Array, direction: Array) -> Lattice:
        """Make the lattice whose middle is a point."""
        half = direction @ (spacing_mm * (np.array(size) - 1) / 2)
        return Lattice(size, spacing_mm, center_mm - half, direction)

    def to_physical(self, voxels: Array) -> Array:
        """Map continuous voxel indices (..., 3) to mm."""
        return (voxels * self.spacing_mm) @ self.direction.T + self.origin_mm

    def to_voxel(self, points_mm: Array) -> Array:
        """Map points (..., 3), mm, to continuous voxel indices."""
        return (points_mm - self.origin_mm) @ np.linalg.inv(self.direction * self.spacing_mm).T

    def corners_mm(self) -> Array:
        """Return the centres of the eight corner voxels, (8, 3)."""
        return self.to_physical(np.array(list(itertools.product((0, 1), repeat=3))) * (np.array(self.size) - 1))

    def center_mm(self) -> Array:
        """Return its middle."""
        return self.corners_mm().mean(0)

    def holds(self, points_mm: Array) -> float:
        """Return the fraction of points (n, 3) that lie in it, to the outer faces of its voxels."""
        index = self.to_voxel(points_mm)
        return float(((index >= -0.5) & (index < np.array(self.size) - 0.5)).all(-1).mean())

    def moved(self, by: Motion) -> Lattice:
        """Return it in a world that is moved."""
        return replace(self, origin_mm=by.apply(self.origin_mm), direction=by.rotation @ self.direction)


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume (z, y, x), float32, on its lattice."""

    voxels: Array
    lattice: Lattice
    name: str = "scan"

    def resampled(self, target: Lattice, target_to_scan: Motion | None = None, fill: float = 0.0) -> Scan:
        """Resample onto another lattice, trilinear, through a motion from its points to the scan's."""
        affine = sitk.AffineTransform(3)
        if target_to_scan is not None:
            affine.SetMatrix(target_to_scan.rotation.flatten().tolist())
            affine.SetTranslation(target_to_scan.translation_mm.tolist())
        filled = sitk.Resample(
            to_sitk(self.voxels, self.lattice),
            target.size,
            affine,
            sitk.sitkLinear,
            target.origin_mm.tolist(),
            target.spacing_mm.tolist(),
            target.direction.flatten().tolist(),
            fill,
            sitk.sitkFloat32,
        )
        return Scan(sitk.GetArrayFromImage(filled), target, self.name)


def read_scan(path: Path) -> Scan:
    """Read a 3-D scan of one channel: NIfTI, NRRD or MetaImage, as ITK reads it.

    Raises ImageError where it cannot be read, is not 3-D, is one voxel thick, constant, or not finite.
    """
    scan = _read(path)
    if min(scan.lattice.size) < 2:
        size = f"the size is {scan.lattice.size} voxels"
        raise ImageError(f"{scan.name}: {size}, expected 2 or more on each axis: give the whole volume")
    if not np.isfinite(scan.voxels).all():
        raise ImageError(
            f"{scan.name}: holds voxels that are NaN or infinite (or beyond float32, 3.4e38): replace them by the "
            "value of the background"
        )
    if scan.voxels.min() == scan.voxels.max():
        raise ImageError(
            f"{scan.name}: every voxel is {scan.voxels.min():g}: a constant image shows nothing: give the scan itself"
        )
    return scan


def read_mask(path: Path, image: Scan) -> Scan:
    """Read the mask of one structure, on its image's lattice; its voxels become 0 and 1. Raises ImageError."""
    mask = _read(path)
    same = mask.lattice.size == image.lattice.size and np.allclose(
        mask.lattice.corners_mm(), image.lattice.corners_mm(), atol=1e-2
    )
    if not same:
        raise ImageError(
            f"{mask.name}: the mask does not lie on the grid of {image.name}: `crossalign apply` puts it there"
        )
    values = np.unique(mask.voxels[mask.voxels != 0])
    if len(values) != 1:
        found = "is empty" if len(values) == 0 else f"holds {len(values)} labels"
        raise ImageError(f"{mask.name}: the mask {found}, expected one structure")
    return Scan((mask.voxels != 0).astype(np.float32), image.lattice, mask.name)


def to_sitk(voxels: Array, lattice: Lattice) -> sitk.Image:
    """Make SimpleITK's image."""
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(lattice.spacing_mm.tolist())
    image.SetOrigin(lattice.origin_mm.tolist())
    image.SetDirection(lattice.direction.flatten().tolist())
    return image


def _read(path: Path) -> Scan:
    check_regular_file(path, ImageError)
    if not path.name.endswith(ENDINGS):
        raise ImageError(f"{path.name}: expected a file that ends in {', '.join(ENDINGS)}")
    reader = sitk.ImageFileReader()
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        with quiet_native(), native_path(path) as name:
            reader.SetFileName(name)
            reader.ReadImageInformation()
            _check_header(reader, path.name)
            image: Any = reader.Execute()
    except RuntimeError as error:
        raise ImageError(f"{path.name}: ITK cannot read this image: is it damaged?") from error
    lattice = Lattice(
        image.GetSize(),
        np.array(image.GetSpacing()),
        np.array(image.GetOrigin()),
        np.array(image.GetDirection()).reshape(3, 3),
    )
    return Scan(sitk.GetArrayFromImage(image), lattice, path.name)


def _check_header(reader: sitk.ImageFileReader, name: str) -> None:
    size = reader.GetSize()
    if len(size) != 3 or reader.GetNumberOfComponents() != 1:
        raise ImageError(
            f"{name}: has the size {size}, {reader.GetNumberOfComponents()} values each, expected 3-D and 1"
        )
    if np.prod(size, dtype=np.float64) > LARGEST_VOXELS:
        raise ImageError(f"{name}: has more than {LARGEST_VOXELS:.2g} voxels: crop it to the structure")


def foreground(voxels: Array) -> Array:
    """Mark the voxels that are not background: not padding, and not a minimum that fills more than 1 %."""
    lowest, padding = voxels.min(), _padding(voxels)
    inside = np.ones(voxels.shape, bool)
    if padding is not None:
        inside &= voxels != padding
    if (voxels == lowest).mean() >= BACKGROUND_FRACTION:
        inside &= voxels != lowest
    return inside if inside.any() else np.ones(voxels.shape, bool)


def empty_value(voxels: Array) -> float:
    """Return the value for voxels outside a scan: its padding, else the minimum of a scan without negative values."""
    padding, low = _padding(voxels), float(voxels.min())
    return padding if padding is not None else low if low >= 0 else 0.0


def _padding(voxels: Array) -> float | None:
    faces = [np.take(voxels, end, axis).ravel() for axis in range(3) for end in (0, -1)]
    border = np.concatenate(faces)
    usual = (voxels.min(), voxels.max(), 0.0)
    for part, least in ((border, BORDER_FRACTION), *((face, FACE_FRACTION) for face in faces)):
        values, counts = np.unique(part, return_counts=True)
        value = values[counts.argmax()]
        fills_border = (part == value).mean() >= least and value in usual
        fills_border = fills_border or (border == value).mean() >= OTHER_BORDER_FRACTION
        if fills_border and (voxels == value).mean() >= BACKGROUND_FRACTION:
            return float(value)
    return None


def scaled(scan: Scan) -> Scan:
    """Clip the foreground to its 0.5th and 99.5th percentile and scale it to [0, 1]; the background becomes 0."""
    inside = foreground(scan.voxels)
    values = scan.voxels[inside]
    ranks = [int((len(values) - 1) * percentile / 100) for percentile in (LOW_PERCENTILE, HIGH_PERCENTILE)]
    low, high = np.partition(values, ranks)[ranks]
    if high <= low:
        low, high = values.min(), values.max()
    if high <= low:
        return replace(scan, voxels=inside.astype(np.float32))
    grey = np.clip((scan.voxels - low) / (high - low), 0, 1)
    return replace(scan, voxels=np.where(inside, grey, np.float32(0)).astype(np.float32, copy=False))


def at_working_spacing(scan: Scan, spacing_mm: float) -> Scan:
    """Resample to an isotropic lattice along L, P and S that holds the whole scan, smoothed against aliasing.

    Raises ImageError where it would have more than 2^28 voxels.
    """
    corners = scan.lattice.corners_mm()
    low, high = corners.min(0), corners.max(0)
    counts = np.ceil((high - low) / spacing_mm - 1e-6) + 1
    if not np.prod(counts) <= LARGEST_VOXELS:
        raise ImageError(
            f"{scan.name}: is too large at a working spacing of {spacing_mm:g} mm: crop it to the structure"
        )
    width, height, depth = (int(count) for count in counts)
    target = Lattice.about((low + high) / 2, (width, height, depth), np.full(3, spacing_mm), np.eye(3))
    return replace(scan, voxels=_smoothed(scan, spacing_mm)).resampled(target)


def _smoothed(scan: Scan, spacing_mm: float) -> Array:
    """Smooth along the axes that are finer than the working spacing: a Gaussian, sd of half that spacing."""
    voxels = scan.voxels
    for axis, step in zip((2, 1, 0), scan.lattice.spacing_mm, strict=True):
        if spacing_mm > step * 1.01:
            voxels = _blurred(voxels, 0.5 * (spacing_mm**2 - step**2) ** 0.5 / step, axis)
    return voxels


def _blurred(voxels: Array, sigma_voxel: float, axis: int) -> Array:
    radius = max(1, round(3 * sigma_voxel))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1, dtype=np.float32) / np.float32(sigma_voxel)) ** 2)
    weights /= weights.sum()
    padding = [(radius, radius) if one == axis else (0, 0) for one in range(3)]
    padded = np.pad(voxels, padding, mode="edge")
    length = voxels.shape[axis]
    found = np.zeros_like(voxels)
    for offset, weight in enumerate(weights):
        part = [slice(offset, offset + length) if one == axis else slice(None) for one in range(3)]
        found += weight * padded[tuple(part)]
    return found
