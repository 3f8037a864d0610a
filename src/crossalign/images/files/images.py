"""Image files: read by `images.files.formats` and `images.files.dicom`, written through SimpleITK."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from crossalign.arguments import checked
from crossalign.errors import ImageError, OutputError
from crossalign.geometry import Grid
from crossalign.images.files.stored import StoredImage, opened, opened_structures
from crossalign.images.files.structures import structure_labels
from crossalign.images.files.writing import write_sitk
from crossalign.images.image import Image, LabelMap
from crossalign.images.intensity import check_scan, check_thickness
from crossalign.output import check_output, whole_file

WRITTEN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


def read_volume(
    path: str | os.PathLike[str], memory_limit_bytes: int | None = None, series: str | int | None = None
) -> Image:
    """Read a scalar 3-D image as it is: constant, empty, one slice, with NaN or infinite voxels; raises ImageError.

    The path is that of a file, or of a folder of DICOM files; where that holds several series, `series` chooses one by
    its number, SeriesInstanceUID or a part of its description. A sheared volume (a tilted gantry) is resampled onto a
    straight grid. By default the memory limit is what the machine has free.
    """
    return volume_of(opened(path, memory_limit_bytes, series))


def volume_of(stored: StoredImage) -> Image:
    """Read the voxels of an image whose header was read, as they are; raises ImageError."""
    voxels = torch.from_numpy(stored.float32())
    return Image(voxels, stored.grid, stored.name, stored.unit, stored.space, stored.modality)


@checked("path", "memory_limit_bytes", "series")
def read_image(
    path: str | os.PathLike[str], memory_limit_bytes: int | None = None, series: str | int | None = None
) -> Image:
    """Read a scan, as `read_volume` does; raises ImageError where it is not finite, varying and two voxels thick."""
    return scan_of(opened(path, memory_limit_bytes, series))


def scan_of(stored: StoredImage) -> Image:
    """Read the voxels of a scan whose header was read; raises ImageError as `read_image` does."""
    image = volume_of(stored)
    check_scan(image)
    return image


@checked("path", "memory_limit_bytes", "allow_empty")
def read_label_map(
    path: str | os.PathLike[str], memory_limit_bytes: int | None = None, allow_empty: bool = False
) -> LabelMap:
    """Read a segmentation; raises ImageError where it is not 3-D or holds values that are not integers.

    Also where it is empty or of one slice, unless `allow_empty`, which is for labels that are only moved. Structures
    that have names (DICOM segmentation, RT structure set, 3D Slicer's) get their numbers as labels.
    """
    structures = opened_structures(path, memory_limit_bytes)
    if structures is not None:
        return structure_labels(structures)
    stored = opened(path, memory_limit_bytes)
    values = stored.whole()
    if not allow_empty:
        check_thickness(stored.grid, stored.name)
        if not values.any():
            raise ImageError(f"{stored.name}: the mask is empty: give one whose structure has values other than 0")
    return LabelMap(torch.from_numpy(values), stored.grid, stored.name)


def read_grid(
    path: str | os.PathLike[str], memory_limit_bytes: int | None = None, series: str | int | None = None
) -> Grid:
    """Read where an image's voxels lie, and none of the voxels; raises ImageError as `read_volume` does."""
    return opened(path, memory_limit_bytes, series).grid


@checked("image", "path")
def write_image(image: Image, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a scan as float32; the file appears whole or not at all. Raises OutputError."""
    _write(to_sitk(image.voxels.cpu().numpy().astype(np.float32, copy=False), image.grid), Path(path), overwrite)


@checked("label_map", "path")
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


def _written_suffix(path: Path) -> str:
    suffix = next((s for s in WRITTEN_SUFFIXES if path.name.endswith(s)), None)
    if suffix is None:
        raise OutputError(f"{path.name}: cannot tell the format of this image: end it in {', '.join(WRITTEN_SUFFIXES)}")
    return suffix


def _write(image: sitk.Image, path: Path, overwrite: bool) -> None:
    with whole_file(path, overwrite, _written_suffix(path)) as partial:
        write_sitk(image, partial)
