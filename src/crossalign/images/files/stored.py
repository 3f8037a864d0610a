"""An image as it is stored, its header read and checked, its voxels not yet: a file, or a series of DICOM files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from crossalign.errors import ImageError, InputWarning
from crossalign.geometry import Grid
from crossalign.images.files.dicom.series import DICOM, Series, is_dicom
from crossalign.images.files.formats.header import Header
from crossalign.images.files.formats.placement import Placement, placed, straightened
from crossalign.images.files.formats.recognition import HEAD_BYTES, read_header
from crossalign.images.files.formats.slicer_segmentation import is_slicer_segmentation, read_slicer_segmentation
from crossalign.images.files.formats.voxels import LABEL_LIMIT, head, read_float32, read_labels
from crossalign.images.files.structures import StructureFile
from crossalign.images.intensity import empty_value
from crossalign.images.memory import check_memory
from crossalign.input import check_regular_file

if TYPE_CHECKING:
    from crossalign.images.files.dicom.volume import DicomVolume

SERIES_OPTION = "--series and its like (series= in Python) choose among DICOM series: leave it out"


@runtime_checkable
class StoredImage(Protocol):
    """What a reader knows of an image before it reads its voxels."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def grid(self) -> Grid:
        """Where its voxels lie."""
        ...

    @property
    def unit(self) -> str:
        """The unit of its values, such as SUV, where the file says it."""
        ...

    @property
    def space(self) -> str:
        """What tells its physical space from others, where the file says it."""
        ...

    @property
    def modality(self) -> str:
        """DICOM's code of what made it, as MR or PT, where the file says it."""
        ...

    @property
    def series(self) -> Series | None:
        """The DICOM series that it is of; None of another format."""
        ...

    def float32(self) -> NDArray[np.float32]:
        """Read its values (z, y, x); raises ImageError."""
        ...

    def whole(self) -> NDArray[np.int64]:
        """Read its values (z, y, x) as whole numbers; raises ImageError where they are none."""
        ...


@dataclass(frozen=True, eq=False)
class FileImage:
    """An image in a NIfTI, NRRD or MetaImage file."""

    header: Header
    placement: Placement
    unit: str = ""
    space: str = ""
    modality: str = ""
    series: Series | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.header.name

    @property
    def grid(self) -> Grid:
        """The grid with straight axes."""
        return self.placement.grid

    def float32(self) -> NDArray[np.float32]:
        """Read the values, resampled where the file's axes are sheared."""
        values = read_float32(self.header)
        return straightened(values, self.placement, _nothing(values, self.placement))

    def whole(self) -> NDArray[np.int64]:
        """Read the labels, by the nearest voxel where the file's axes are sheared."""
        return straightened(read_labels(self.header), self.placement, 0.0, nearest=True)


@dataclass(frozen=True, eq=False)
class DicomImage:
    """A series of DICOM files."""

    volume: DicomVolume

    @property
    def name(self) -> str:
        """The modality and the number of the series: the names of files may be a patient's."""
        return self.volume.name

    @property
    def grid(self) -> Grid:
        """The grid with straight axes and even slices."""
        return self.volume.placement.grid

    @property
    def unit(self) -> str:
        """SUV of a PET that could be converted, else nothing."""
        return self.volume.unit

    @property
    def space(self) -> str:
        """The frame of reference of its slices."""
        return self.volume.headers[0].space

    @property
    def modality(self) -> str:
        """The modality of the series."""
        return self.volume.headers[0].modality

    @property
    def series(self) -> Series:
        """The series, with all its headers."""
        return self.volume.series

    def float32(self) -> NDArray[np.float32]:
        """Read the values, resampled where the gantry was tilted or slices are uneven."""
        values = self.volume.values()
        return straightened(values, self.volume.placement, _nothing(values, self.volume.placement))

    def whole(self) -> NDArray[np.int64]:
        """Read the values as labels."""
        values = self.volume.values()
        if not (
            np.isfinite(values).all() and (values == np.rint(values)).all() and np.abs(values).max() <= LABEL_LIMIT
        ):
            raise ImageError(
                f"{self.name}: a mask must hold whole numbers (0 is background), got fractions: is this a scan?"
            )
        return straightened(values.astype(np.int64), self.volume.placement, 0.0, nearest=True)


def opened(
    path: str | os.PathLike[str], memory_limit_bytes: int | None = None, series: str | int | None = None
) -> StoredImage:
    """Read and check a header, and warn of what is odd about it; `series` chooses where there are several of DICOM."""
    place = Path(path)
    if is_dicom(place):
        from crossalign.images.files.dicom.volume import open_dicom_volume

        volume = open_dicom_volume(place, series, memory_limit_bytes)
        warn_of(volume.name, volume.notes)
        return DicomImage(volume)
    if series is not None:
        check_regular_file(place, ImageError)
        raise ImageError(f"{place.name}: is no {DICOM}: {SERIES_OPTION}")
    with np.errstate(all="ignore"):  # what a damaged header makes infinite or NaN is refused by name
        header = read_header(place)
        check_memory(header.size, header.name, memory_limit_bytes)
        placement = placed(header)
    check_memory(placement.grid.shape[::-1], header.name, memory_limit_bytes)
    warn_of(header.name, (*header.notes, *placement.notes))
    return FileImage(header, placement)


def opened_structures(path: str | os.PathLike[str], memory_limit_bytes: int | None) -> StructureFile | None:
    """Open a file of named structures: DICOM segmentation, RT structure set, 3D Slicer's; None where it is another one.

    Of a folder it is the one that lies in it. Raises ImageError where several do.
    """
    place = Path(path)
    if is_dicom(place):
        from crossalign.images.files.dicom.drawings import open_drawings

        return open_drawings(place, memory_limit_bytes)
    first, is_gzip = head(place, HEAD_BYTES)
    if is_gzip or not is_slicer_segmentation(place, first):
        return None
    found = read_slicer_segmentation(place, memory_limit_bytes)
    warn_of(found.name, (*found.header.notes, *found.placement.notes))
    return found


def public_name(path: str | os.PathLike[str]) -> str:
    """Return what a record calls an input: its name without folders; of DICOM no name, which may be a patient's."""
    return DICOM if is_dicom(path) else Path(path).name


def warn_of(name: str, notes: Iterable[str]) -> None:
    """Give each note as an InputWarning that begins with the name."""
    for note in notes:
        warnings.warn(f"{name}: {note}", InputWarning, stacklevel=4)


def _nothing(values: NDArray[np.float32], placement: Placement) -> float:
    """Return what a scan holds where it shows nothing, which may be NaN; 0 where nothing is resampled."""
    if placement.grid_to_stored is None:
        return 0.0
    voxels = torch.from_numpy(values)
    finite = torch.isfinite(voxels)
    if bool(finite.all()):
        return empty_value(voxels)
    corners = voxels[:: max(1, len(voxels) - 1), :: max(1, voxels.shape[1] - 1), :: max(1, voxels.shape[2] - 1)]
    if not bool(torch.isfinite(corners).any()) or not bool(finite.any()):
        return float("nan")
    return empty_value(torch.where(finite, voxels, voxels[finite].min()))
