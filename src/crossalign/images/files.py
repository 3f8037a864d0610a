"""Image files: NIfTI, NRRD and MetaImage, through SimpleITK; headers are checked before voxels are read."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from crossalign.errors import ImageError, OutputError
from crossalign.geometry import Grid
from crossalign.images.image import Image, LabelMap
from crossalign.images.native import quiet_native
from crossalign.images.nifti import check_complete, float_values
from crossalign.images.writing import write_sitk
from crossalign.output import check_output, whole_file

MEMORY_LIMIT_BYTES = 4 * 1024**3
BYTES_PER_VOXEL = 8
SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
WRITTEN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
COMPLEX_TYPES = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)


def read_volume(path: str | os.PathLike[str], memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> Image:
    """Read a scalar 3-D image as it is: constant, empty, with NaN or infinite voxels; raises ImageError."""
    name = Path(path).name
    image = _read(Path(path), memory_limit_bytes)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite
        values = float_values(Path(path))
        if values is None:  # ITK's NIfTI reader turns NaN into 0; its other readers keep it
            values = sitk.GetArrayViewFromImage(image)
        voxels = torch.from_numpy(values.astype(np.float32))
    return Image(voxels, _grid(image), name)


def read_image(path: str | os.PathLike[str], memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> Image:
    """Read a scan; raises ImageError where it is not a finite, varying, scalar 3-D image within the memory limit."""
    image = read_volume(path, memory_limit_bytes)
    unusable = image.voxels.numel() - int(torch.isfinite(image.voxels).sum())
    if unusable:
        raise ImageError(f"{image.name}: {unusable} voxels are NaN or infinite: replace them before registration")
    if float(image.voxels.min()) == float(image.voxels.max()):
        value = float(image.voxels.min())
        raise ImageError(f"{image.name}: every voxel is {value:g}: a constant image cannot be registered")
    return image


def read_label_map(
    path: str | os.PathLike[str], memory_limit_bytes: int = MEMORY_LIMIT_BYTES, allow_empty: bool = False
) -> LabelMap:
    """Read a segmentation; raises ImageError where it is not 3-D or holds values that are not integers.

    Also where it is empty, unless `allow_empty`.
    """
    name = Path(path).name
    image = _read(Path(path), memory_limit_bytes)
    values = float_values(Path(path))
    if values is None:
        values = sitk.GetArrayViewFromImage(image)
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise ImageError(
            f"{name}: a mask must hold whole numbers (0 is background), got fractions or NaN: is this a scan?"
        )
    if not allow_empty and not values.any():
        raise ImageError(f"{name}: the mask is empty: give one whose structure has values other than 0")
    return LabelMap(torch.from_numpy(values.astype(np.int64)), _grid(image), name)


def read_grid(path: str | os.PathLike[str], memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> Grid:
    """Read where an image's voxels lie, and none of the voxels; raises ImageError as `read_image` does."""
    return _grid(_open(Path(path), memory_limit_bytes))


def write_image(image: Image, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a scan as float32; the file appears whole or not at all. Raises OutputError."""
    _write(to_sitk(image.voxels.cpu().numpy().astype(np.float32), image.grid), Path(path), overwrite)


def write_label_map(label_map: LabelMap, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a segmentation in the smallest integer type that holds it. Raises OutputError."""
    labels = label_map.labels.cpu().numpy()
    low, high = int(labels.min()), int(labels.max())
    kinds = (np.uint8, np.int16, np.int32, np.int64)
    kind = next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
    _write(to_sitk(labels.astype(kind), label_map.grid), Path(path), overwrite)


def check_image_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise OutputError where no image can be written to `path`; for use before a long computation."""
    _written_suffix(Path(path))
    check_output(path, overwrite)


def to_sitk(array: NDArray[Any], grid: Grid) -> sitk.Image:
    """Make SimpleITK's image of an array (z, y, x) on a grid."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    image.SetDirection([value for row in grid.direction for value in row])
    return image


def _read(path: Path, memory_limit_bytes: int) -> sitk.Image:
    reader = _open(path, memory_limit_bytes)
    check_complete(path, math.prod(reader.GetSize()))
    try:
        with quiet_native():
            return reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise ImageError(
            f"{path.name}: the header is sound but the voxels cannot be read: is the file truncated?"
        ) from error


def _open(path: Path, memory_limit_bytes: int) -> sitk.ImageFileReader:
    _check_file(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_native():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise ImageError(f"{path.name}: not a readable image: {_reason(error)}") from error
    _check_header(reader, path.name, memory_limit_bytes)
    return reader


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise ImageError(f"{path}: is a folder, expected an image file")
        if not path.is_file():
            raise ImageError(f"{path}: no such file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
    if not path.name.lower().endswith(SUFFIXES):
        raise ImageError(f"{path.name}: not an image by its name; expected one of {', '.join(SUFFIXES)}")


def _reason(error: RuntimeError) -> str:
    """Take the end of ITK's last line; what comes before it is about ITK's source code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("sitk::ERROR: ").split("): ")[-1] if lines else "no reason given"


def _check_header(reader: sitk.ImageFileReader, name: str, memory_limit_bytes: int) -> None:
    if reader.GetDimension() != 3:
        raise ImageError(f"{name}: the image is {reader.GetDimension()}-D, expected 3-D: take out one volume")
    if reader.GetNumberOfComponents() != 1 or reader.GetPixelID() in COMPLEX_TYPES:
        parts = max(2, reader.GetNumberOfComponents())
        raise ImageError(f"{name}: {parts} values in a voxel, expected 1: convert it to a scalar image")
    size, spacing, direction = reader.GetSize(), reader.GetSpacing(), reader.GetDirection()
    if min(size) < 2:
        raise ImageError(f"{name}: the size is {size} voxels, expected 2 or more on each axis")
    needed = math.prod(size) * BYTES_PER_VOXEL
    if needed > memory_limit_bytes:
        raise ImageError(
            f"{name}: {size} voxels need {needed / 2**30:.1f} GiB, over the limit of "
            f"{memory_limit_bytes / 2**30:.1f} GiB: crop or resample it"
        )
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        raise ImageError(f"{name}: the spacing is {spacing} mm, expected three positive numbers: mend the header")
    if not all(math.isfinite(value) for value in reader.GetOrigin()):
        raise ImageError(f"{name}: the origin is {reader.GetOrigin()} mm, expected finite numbers: mend the header")
    axes = np.array(direction).reshape(3, 3)
    if not np.isfinite(axes).all() or not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
        raise ImageError(f"{name}: the direction matrix {direction} is not orthonormal: mend the header")


def _grid(image: Any) -> Grid:  # an image, or a reader that has read a header
    x, y, z = image.GetSize()
    d = image.GetDirection()
    rows = ((d[0], d[1], d[2]), (d[3], d[4], d[5]), (d[6], d[7], d[8]))
    return Grid((z, y, x), image.GetSpacing(), image.GetOrigin(), rows)


def _written_suffix(path: Path) -> str:
    suffix = next((s for s in WRITTEN_SUFFIXES if path.name.endswith(s)), None)
    if suffix is None:
        raise OutputError(f"{path.name}: cannot tell the format of this image: end it in {', '.join(WRITTEN_SUFFIXES)}")
    return suffix


def _write(image: sitk.Image, path: Path, overwrite: bool) -> None:
    with whole_file(path, overwrite, _written_suffix(path)) as partial:
        write_sitk(image, partial)
