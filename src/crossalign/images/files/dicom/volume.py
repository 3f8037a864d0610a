"""A DICOM series as a volume: what is refused by name, its geometry, its values slice by slice, and SUV of PET."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossalign.errors import ImageError
from crossalign.images.files.dicom.header import ENHANCED_ULTRASOUND, DicomHeader, Frame
from crossalign.images.files.dicom.pixels import frame_values
from crossalign.images.files.dicom.series import Series, image_series
from crossalign.images.files.dicom.stack import Stack, stacked
from crossalign.images.files.dicom.variants import chosen_variant
from crossalign.images.files.formats.header import Header
from crossalign.images.files.formats.placement import Placement, placed
from crossalign.images.memory import check_memory

MEASURED = ("CT", "PT", "NM", "RTDOSE")  # whose values are quantities, however they are to be displayed
FLAT = {"CR", "DX", "MG", "PX", "RF", "XA", "ES", "OT", "SM", "XC"}
EXPORT = (
    "export the volume as Enhanced US Volume, or as NIfTI, NRRD or MetaImage from the scanner's program or 3D Slicer"
)
SUV = "SUV"


@dataclass(frozen=True, eq=False)
class DicomVolume:
    """A series whose headers were read and checked; `values` reads its pixels.

    `series` holds every header of it, `headers` those of the volume that is meant. `factor` multiplies the values after
    the rescale slope, and `unit` is what they then are (SUV, or nothing).
    """

    name: str
    series: Series
    headers: tuple[DicomHeader, ...]
    stack: Stack
    placement: Placement
    factor: float
    unit: str
    notes: tuple[str, ...]

    def values(self) -> NDArray[np.float32]:
        """Read the values of the voxels (z, y, x) as they lie in the series, evenly spaced; raises ImageError."""
        columns, rows = self.headers[0].size
        stored = np.empty((len(self.stack.frames), rows, columns), np.float32)
        for header in self.headers:
            places = [place for place, frame in enumerate(self.stack.frames) if frame.path == header.path]
            indices = [self.stack.frames[place].index for place in places]
            order = sorted(range(len(places)), key=indices.__getitem__)
            found = frame_values(header, [indices[one] for one in order], self.name)
            done = 0
            for one, pixels in zip(order, found, strict=False):
                stored[places[one]] = self._scaled(pixels, self.stack.frames[places[one]], header)
                done += 1
            if done < len(places):
                raise ImageError(f"{self.name}: {done} of {len(places)} frames in a file: it is cut off, copy it again")
        return _at_places(stored, self.stack.sources)

    def _scaled(self, pixels: NDArray[np.generic], frame: Frame, header: DicomHeader) -> NDArray[np.float64]:
        values = pixels.astype(np.float64)
        if _is_inverted(header):
            _, stored, signed = header.bits
            values = (-1 if signed else 2**stored - 1) - values
        with np.errstate(over="ignore", invalid="ignore"):
            return (values * frame.slope + frame.intercept) * self.factor


def _is_inverted(header: DicomHeader) -> bool:
    return header.photometric == "MONOCHROME1" and header.modality not in MEASURED


def _at_places(stored: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Interpolate between slices where a slice of the volume lies between two of the series."""
    if np.array_equal(places, np.arange(len(stored))):
        return stored
    result = np.empty((len(places), *stored.shape[1:]), np.float32)
    for number, place in enumerate(places.tolist()):
        low = min(int(place), len(stored) - 1)
        fraction, high = place - low, min(low + 1, len(stored) - 1)
        result[number] = stored[low] if fraction == 0 else (1 - fraction) * stored[low] + fraction * stored[high]
    return result


def open_dicom_volume(
    path: Path, wanted: str | int | None = None, memory_limit_bytes: int | None = None
) -> DicomVolume:
    """Read the headers of the series that a path means, and place it in the patient; raises ImageError."""
    series = image_series(path, wanted)
    name = series.name
    headers, left_out = _slices(_without_copies(series.headers), name)
    _check_kind(headers[0], name)
    frames = chosen_variant([one for header in headers for one in header.frames], series.volume, name, series.number)
    paths = {frame.path for frame in frames}
    headers = tuple(header for header in headers if header.path in paths)
    columns, rows = headers[0].size
    if any(header.size != headers[0].size for header in headers):
        raise ImageError(
            f"{name}: the slices differ in size, expected {columns} x {rows} pixels of all: not one volume"
        )
    check_memory((columns, rows, len(frames)), name, memory_limit_bytes)
    stack = stacked(frames, headers[0].thickness_mm, name)
    size = (columns, rows, len(stack.sources))
    check_memory(size, name, memory_limit_bytes)
    placement = placed(Header(name, size, np.dtype(np.float32), stack.affine, ()))
    factor, unit, uptake_notes = _uptake(headers)
    notes = (*left_out, *headers[0].notes, *_kind_notes(headers[0]), *stack.notes, *placement.notes, *uptake_notes)
    return DicomVolume(name, series, headers, stack, placement, factor, unit, notes)


def _without_copies(headers: Sequence[DicomHeader]) -> tuple[DicomHeader, ...]:
    """Keep one of files that are copies of each other, by SOPInstanceUID."""
    kept = {header.instance_uid or str(header.path): header for header in reversed(headers)}
    return tuple(header for header in headers if kept[header.instance_uid or str(header.path)] is header)


def _slices(headers: tuple[DicomHeader, ...], name: str) -> tuple[tuple[DicomHeader, ...], tuple[str, ...]]:
    """Leave out localizers that stand among the slices of a volume; raises ImageError where there is nothing else."""
    kept = tuple(header for header in headers if "LOCALIZER" not in header.image_type)
    if not kept:
        raise ImageError(f"{name}: is a localizer (scout), which only plans a scan: name the series of the scan itself")
    mosaics = [header for header in kept if "MOSAIC" in header.image_type]
    if mosaics:
        raise ImageError(
            f"{name}: is a Siemens mosaic, all slices in one picture: convert it with dcm2niix and give the volume"
        )
    count = len(headers) - len(kept)
    return kept, ((f"{count} localizers among its slices were left out",) if count else ())


def _check_kind(header: DicomHeader, name: str) -> None:
    """Raise ImageError for what has no geometry by its kind, and say what to do."""
    if header.modality in ("US", "IVUS") and header.frames[0].position_mm is None:
        raise ImageError(
            f"{name}: is ultrasound without the standard geometry of a volume (a clip, a picture, or a maker's own 3-D "
            f"data): {EXPORT}"
        )
    if header.modality == "NM" and len(header.frames) > 1 and header.frames[0].position_mm is None:
        raise ImageError(f"{name}: is nuclear medicine with many frames in one file: convert it with dcm2niix")
    if header.modality in FLAT and header.frames[0].position_mm is None:
        raise ImageError(f"{name}: is a {header.modality} picture, expected the slices of a 3-D scan")


def _kind_notes(header: DicomHeader) -> tuple[str, ...]:
    notes = []
    if _is_inverted(header):
        notes.append("its low values are meant to be bright (MONOCHROME1): inverted, so that high values are bright")
    if header.sop_class == ENHANCED_ULTRASOUND:
        notes.append("the coordinates are those of the ultrasound volume itself, not of the patient")
    return tuple(notes)


def _uptake(headers: Sequence[DicomHeader]) -> tuple[float, str, tuple[str, ...]]:
    """Return the factor to SUVbw of all slices, the unit, and what to say; 1 and no unit where it is not known."""
    found = [header.uptake for header in headers if header.uptake is not None]
    if not found:
        return 1.0, "", ()
    factors = [uptake.factor for uptake in found if uptake.factor is not None]
    if len(factors) < len(headers):
        lacking = next(uptake for uptake in found if uptake.factor is None)
        unit = lacking.unit[:16]
        return 1.0, "", (f"PET stays in {unit}, no SUV could be computed: {lacking.reason}",)
    return min(factors), SUV, ()  # the smallest is of the slices that were acquired first: the scan's begin
