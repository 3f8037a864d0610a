"""Stored values of DICOM frames: plain and RLE by pydicom, JPEG of all kinds by GDCM within SimpleITK.

Bounds: the header's size is checked against the memory limit before, and a compressed frame's own size against it here,
so that a small file does not unpack into any number of bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossalign.errors import ImageError
from crossalign.images.files.dicom.header import DicomHeader
from crossalign.images.files.dicom.parsing import quiet_library
from crossalign.images.files.writing import quiet_native

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PLAIN = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
RLE = "1.2.840.10008.1.2.5"
JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
JPEG_LS = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81))
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91))
HIGH_THROUGHPUT = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203))
DECODERS = {
    **dict.fromkeys(JPEG, "pylibjpeg and pylibjpeg-libjpeg"),
    **dict.fromkeys(JPEG_LS, "pyjpegls"),
    **dict.fromkeys((*JPEG_2000, *HIGH_THROUGHPUT), "pylibjpeg and pylibjpeg-openjpeg"),
}  # packages with which pydicom reads a syntax
TEMPORARY = "1.2.840.10008.5.1.4.1.1.7"  # secondary capture: an image and nothing else
TEMPORARY_INSTANCE = "2.25.1"
JPEG_SIZES = (*(0xC0 + n for n in range(16) if n not in (4, 8, 12)), 0xF7)  # markers that a frame's size follows
SIZE_SEGMENT = 0x51  # of JPEG 2000


def frame_values(header: DicomHeader, indices: Sequence[int], name: str) -> Iterator[NDArray[Any]]:
    """Give the stored values (rows, columns) of frames of one file in this order, whole numbers or floats as they are.

    Raises ImageError where a frame is cut off or damaged, or its compression is none that can be read.
    """
    _check_readable(header, name)
    decoded = _plain(header, indices) if header.syntax in (*PLAIN, RLE) else _compressed(header, indices, name)
    columns, rows = header.size
    while True:
        try:
            with quiet_library():
                values = next(decoded, None)
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # pydicom raises whatever a damaged element makes its parsers raise
            raise ImageError(
                f"{name}: the pixels of the DICOM file are damaged or cut off: copy it again from its source"
            ) from error
        if values is None:
            return
        if values.shape != (rows, columns):
            raise ImageError(f"{name}: a frame is {values.shape[::-1]} pixels, expected {header.size}: it is damaged")
        yield _within_bits(values, header.bits)


def _check_readable(header: DicomHeader, name: str) -> None:
    if header.samples != 1 or not header.photometric.startswith(("MONOCHROME", "PALETTE")):
        kind = header.photometric.split("_")[0][:16]
        raise ImageError(
            f"{name}: the slices are colour pictures ({kind}), expected one value in a pixel: give the scan"
        )
    if header.photometric.startswith("PALETTE") and header.has_image:
        raise ImageError(f"{name}: the slices are pictures with a palette of colours, expected values: give the scan")
    allocated, stored, _ = header.bits
    if allocated not in (1, 8, 16, 32, 64) or not 1 <= stored <= allocated:
        raise ImageError(f"{name}: {stored} of {allocated} bits in a pixel: the DICOM header is damaged")
    if header.syntax not in (*PLAIN, RLE, *DECODERS):
        raise ImageError(
            f"{name}: is compressed in a way that is not read ({_syntax_name(header.syntax)}): unpack it first, for "
            "example with gdcmconv --raw"
        )


def _syntax_name(uid: str) -> str:
    from pydicom.uid import UID

    with quiet_library():
        known = UID(uid)
        return str(known.name)[:60] if known.is_valid and known.is_transfer_syntax else "an unknown transfer syntax"


def _plain(header: DicomHeader, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
    from pydicom.pixels.utils import iter_pixels

    if _has_meta(header.path):
        yield from iter_pixels(header.path, indices=indices, raw=True)
    else:
        yield from iter_pixels(_dataset(header), indices=indices, raw=True)


def _has_meta(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _dataset(header: DicomHeader) -> Dataset:
    import pydicom

    dataset = pydicom.dcmread(header.path, force=True)
    if not dataset.file_meta.get("TransferSyntaxUID"):  # a file without its meta information: as it was parsed
        implicit, little = dataset.original_encoding
        plain = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = plain if little else pydicom.uid.ExplicitVRBigEndian
    return dataset


def _compressed(header: DicomHeader, indices: Sequence[int], name: str) -> Iterator[NDArray[Any]]:
    from pydicom.encaps import generate_frames, get_frame

    dataset, count = _dataset(header), len(header.frames)
    if list(indices) == list(range(count)):
        streams = generate_frames(dataset.PixelData, number_of_frames=count)
    else:
        streams = (get_frame(dataset.PixelData, index, number_of_frames=count) for index in indices)
    for index, stream in zip(indices, streams, strict=False):
        _check_frame_size(stream, header, name)
        values = None if header.syntax in HIGH_THROUGHPUT else _by_gdcm(stream, header)
        yield _by_library(header, index, name) if values is None else values


def _by_gdcm(stream: bytes, header: DicomHeader) -> NDArray[Any] | None:
    """Decode one frame with SimpleITK, from a file that holds nothing of the patient; None where it cannot."""
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory(prefix="crossalign-") as folder:
        path = Path(folder) / "frame.dcm"
        _write_frame(stream, header, path)
        try:
            with quiet_native():
                array = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
        except RuntimeError:
            return None
    return array[0] if array.ndim == 3 else array


def _write_frame(stream: bytes, header: DicomHeader, path: Path) -> None:
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(TEMPORARY), UID(TEMPORARY_INSTANCE)
    meta.TransferSyntaxUID = UID(header.syntax)
    frame = FileDataset(str(path), Dataset(), file_meta=meta, preamble=b"\0" * 128)
    frame.SOPClassUID, frame.SOPInstanceUID = UID(TEMPORARY), UID(TEMPORARY_INSTANCE)
    frame.Columns, frame.Rows = header.size
    frame.BitsAllocated, frame.BitsStored, signed = header.bits
    frame.HighBit, frame.PixelRepresentation = frame.BitsStored - 1, int(signed)
    frame.SamplesPerPixel, frame.PhotometricInterpretation = 1, "MONOCHROME2"
    frame.PixelData = encapsulate([stream])
    frame["PixelData"].is_undefined_length = True
    frame.save_as(path, enforce_file_format=True)


def _by_library(header: DicomHeader, index: int, name: str) -> NDArray[Any]:
    """Decode one frame with pydicom's own plugins; raises ImageError that names the packages where it has none."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import UID

    if not get_decoder(UID(header.syntax)).is_available:
        raise ImageError(
            f"{name}: is compressed as {_syntax_name(header.syntax)}, and no decoder here could read it: where it is "
            f"not damaged install {DECODERS[header.syntax]}, or unpack it first, for example with gdcmconv --raw"
        )
    return pixel_array(header.path, index=index, raw=True)


def _check_frame_size(stream: bytes, header: DicomHeader, name: str) -> None:
    """Raise ImageError where a compressed frame is not of the header's size by its own, before it is unpacked."""
    found = _jpeg_2000_size(stream) if stream[:2] == b"\xff\x4f" else _jpeg_size(stream)
    if found != header.size:
        got = "no picture" if found is None else f"{found[0]} x {found[1]} pixels"
        raise ImageError(
            f"{name}: a compressed frame holds {got}, expected {header.size[0]} x {header.size[1]}: it is damaged"
        )


def _jpeg_2000_size(stream: bytes) -> tuple[int, int] | None:
    if stream[2:4] != bytes((0xFF, SIZE_SEGMENT)) or len(stream) < 24:
        return None
    right, bottom, left, top = (int.from_bytes(stream[place : place + 4], "big") for place in (8, 12, 16, 20))
    return right - left, bottom - top


def _jpeg_size(stream: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker, length = stream[place + 1], int.from_bytes(stream[place + 2 : place + 4], "big")
        if marker == 0xFF:  # a byte that fills up
            place += 1
        elif marker in JPEG_SIZES:
            rows, columns = (int.from_bytes(stream[place + at : place + at + 2], "big") for at in (5, 7))
            return columns, rows
        else:
            place += 2 + max(length, 2)
    return None


def _within_bits(values: NDArray[Any], bits: tuple[int, int, bool]) -> NDArray[Any]:
    """Drop what stands in the bits above the stored ones, as old overlays do; extend the sign of signed values."""
    allocated, stored, signed = bits
    if values.dtype.kind == "f" or stored >= allocated:
        return values
    kept = values.astype(np.int64) & ((1 << stored) - 1)
    return np.where(kept >> (stored - 1) == 1, kept - (1 << stored), kept) if signed else kept
