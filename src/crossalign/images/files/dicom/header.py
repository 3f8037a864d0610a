"""What a DICOM file's header says of its images, as plain values without identity: frames in the patient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from crossalign.errors import ImageError
from crossalign.images.files.dicom.identity import without_identity
from crossalign.images.files.dicom.parsing import parsed
from crossalign.images.files.dicom.uptake import Uptake, uptake_of
from crossalign.input import excerpt

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Numbers: TypeAlias = tuple[float, ...]
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
DIRECTORY = "1.2.840.10008.1.3.10"
ENHANCED_ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.2"
FRAME_LIMIT = 100_000
SIDE_LIMIT = 65_535
# What tells frames at one place apart, and what people call it.
VARIANTS = {
    "AcquisitionNumber": "acquisitions", "TemporalPositionIdentifier": "time points", "TriggerTime": "trigger times",
    "EchoTime": "echo times", "EchoNumbers": "echoes", "DiffusionBValue": "b-values",
    "ContentTime": "times", "AcquisitionTime": "times",
}  # fmt: skip
FRAME_VARIANTS = {
    "FrameContentSequence.TemporalPositionIndex": "time points",
    "MREchoSequence.EffectiveEchoTime": "echo times",
    "MRDiffusionSequence.DiffusionBValue": "b-values",
    "MRImageFrameTypeSequence.ComplexImageComponent": "parts of a complex image",
    "MRImageFrameTypeSequence.FrameType": "kinds of image",
    "FrameContentSequence.StackID": "stacks",
}


@dataclass(frozen=True)
class Frame:
    """One slice: where it is (LPS, mm; None where the header does not say) and how its values are scaled.

    `orientation` holds the unit vectors along its rows and columns, `spacing_mm` (between rows, between columns);
    `segment` is the number of the segment that it is of, in a segmentation.
    """

    path: Path
    index: int
    position_mm: Numbers | None
    orientation: Numbers | None
    spacing_mm: Numbers | None
    slope: float
    intercept: float
    variants: tuple[tuple[str, str], ...]
    segment: int = 0


@dataclass(frozen=True)
class DicomHeader:
    """The header of one file. Its UIDs serve to compare files; they, names and dates stand in no message."""

    path: Path
    sop_class: str
    instance_uid: str
    space: str
    series_uid: str
    series_number: int | None
    description: str
    modality: str
    image_type: tuple[str, ...]
    manufacturer: str
    syntax: str
    size: tuple[int, int]  # columns, rows
    samples: int
    photometric: str
    bits: tuple[int, int, bool]  # allocated, stored, signed
    thickness_mm: float | None
    frames: tuple[Frame, ...]
    uptake: Uptake | None
    notes: tuple[str, ...]

    @property
    def has_image(self) -> bool:
        """Whether it holds an image, as reports, presentation states and plans do not."""
        return self.size != (0, 0) and self.sop_class not in SEGMENTATIONS

    @property
    def has_structures(self) -> bool:
        """Whether it is a segmentation or a set of contours."""
        return self.sop_class == STRUCTURE_SET or self.sop_class in SEGMENTATIONS


def read_dicom_header(path: Path, name: str) -> DicomHeader:
    """Read the header of a DICOM file; raises ImageError where it is damaged or holds impossible values."""
    return parsed(path, name, lambda dataset: _header(dataset, path, name))


def _header(dataset: Dataset, path: Path, name: str) -> DicomHeader:
    columns, rows = _whole(dataset.get("Columns")), _whole(dataset.get("Rows"))
    bits = (_whole(dataset.get("BitsAllocated")), _whole(dataset.get("BitsStored")))
    sop_class = str(dataset.get("SOPClassUID", ""))
    has_image = columns > 0 and rows > 0
    if columns > SIDE_LIMIT or rows > SIDE_LIMIT or (columns > 0) != (rows > 0):
        raise ImageError(f"{name}: a slice of {columns} x {rows} pixels: the DICOM header is damaged")
    notes = ("its values go through a table (Modality LUT), which was not applied",)
    return DicomHeader(
        path=path,
        sop_class=sop_class,
        instance_uid=str(dataset.get("SOPInstanceUID", "")),
        space=str(dataset.get("FrameOfReferenceUID") or ""),
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        series_number=_optional_whole(dataset.get("SeriesNumber")),
        description=without_identity(dataset.get("SeriesDescription") or dataset.get("ProtocolName"), dataset),
        modality=excerpt(dataset.get("Modality") or "DICOM", 16),
        image_type=tuple(str(word).upper() for word in _list(dataset.get("ImageType"))),
        manufacturer=str(dataset.get("Manufacturer", "")),
        syntax=str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "")),
        size=(columns, rows),
        samples=_whole(dataset.get("SamplesPerPixel", 1)),
        photometric=str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).upper(),
        bits=(*bits, _whole(dataset.get("PixelRepresentation")) == 1),
        thickness_mm=slice_distance(dataset),
        frames=_frames(dataset, path, name) if has_image else (),
        uptake=uptake_of(dataset) if dataset.get("Modality") == "PT" else None,
        notes=notes if dataset.get("ModalityLUTSequence") else (),
    )


def _frames(dataset: Dataset, path: Path, name: str) -> tuple[Frame, ...]:
    count = _whole(dataset.get("NumberOfFrames")) or 1
    groups = _list(dataset.get("PerFrameFunctionalGroupsSequence"))
    if count > FRAME_LIMIT or (groups and len(groups) != count):
        raise ImageError(f"{name}: {count} frames, of which {len(groups)} are described: the DICOM header is damaged")
    if not groups:
        return _plain_frames(dataset, path, count)
    shared = next(iter(_list(dataset.get("SharedFunctionalGroupsSequence"))), None)
    return tuple(_enhanced_frame(path, index, (group, shared)) for index, group in enumerate(groups))


def _plain_frames(dataset: Dataset, path: Path, count: int) -> tuple[Frame, ...]:
    variants = tuple((words, str(dataset.get(key))) for key, words in VARIANTS.items() if dataset.get(key) is not None)
    frame = Frame(
        path=path,
        index=0,
        position_mm=_numbers(dataset.get("ImagePositionPatient"), 3),
        orientation=_numbers(dataset.get("ImageOrientationPatient"), 6),
        spacing_mm=_numbers(dataset.get("PixelSpacing"), 2),
        slope=_number(dataset.get("RescaleSlope"), 1.0),
        intercept=_number(dataset.get("RescaleIntercept"), 0.0),
        variants=variants,
    )
    if count == 1:
        return (frame,)
    offsets = _numbers(dataset.get("GridFrameOffsetVector"), count)
    slope = _number(dataset.get("DoseGridScaling"), frame.slope)
    return tuple(_offset_frame(frame, index, offsets, slope) for index in range(count))


def _offset_frame(frame: Frame, index: int, offsets: Numbers | None, slope: float) -> Frame:
    """Return a frame of a dose, whose header gives how far along the normal each lies."""
    position = None
    if offsets is not None and frame.position_mm is not None and frame.orientation is not None:
        (a, b, c), (d, e, f) = frame.orientation[:3], frame.orientation[3:]
        normal = (b * f - c * e, c * d - a * f, a * e - b * d)
        shift = offsets[index] - offsets[0] if offsets[0] == 0 else offsets[index] - frame.position_mm[2]
        position = tuple(p + n * shift for p, n in zip(frame.position_mm, normal, strict=True))
    return Frame(
        frame.path, index, position, frame.orientation, frame.spacing_mm, slope, frame.intercept, frame.variants
    )


Groups: TypeAlias = "tuple[Dataset | None, Dataset | None]"


def _enhanced_frame(path: Path, index: int, groups: Groups) -> Frame:
    position = _found(groups, "PlanePositionSequence.ImagePositionPatient")
    orientation = _found(groups, "PlaneOrientationSequence.ImageOrientationPatient")
    if position is None and orientation is None:
        position = _found(groups, "PlanePositionVolumeSequence.ImagePositionVolume")
        orientation = _found(groups, "PlaneOrientationVolumeSequence.ImageOrientationVolume")
    variants = ((words, _found(groups, where)) for where, words in FRAME_VARIANTS.items())
    return Frame(
        path=path,
        index=index,
        position_mm=_numbers(position, 3),
        orientation=_numbers(orientation, 6),
        spacing_mm=_numbers(_found(groups, "PixelMeasuresSequence.PixelSpacing"), 2),
        slope=_number(_found(groups, "PixelValueTransformationSequence.RescaleSlope"), 1.0),
        intercept=_number(_found(groups, "PixelValueTransformationSequence.RescaleIntercept"), 0.0),
        variants=tuple((words, str(value)) for words, value in variants if value is not None),
        segment=_whole(_found(groups, "SegmentIdentificationSequence.ReferencedSegmentNumber")),
    )


def _found(groups: Groups, where: str) -> Any:
    """Return a value of a frame's own functional groups, else of those that all frames share; None for neither."""
    sequence, keyword = where.split(".")
    for group in groups:
        for item in _list(None if group is None else group.get(sequence))[:1]:
            if item.get(keyword) is not None:
                return item.get(keyword)
    return None


def slice_distance(dataset: Dataset) -> float | None:
    """Return the distance between slices, mm, else their thickness; None where the header says neither."""
    shared = next(iter(_list(dataset.get("SharedFunctionalGroupsSequence"))), None)
    first = next(iter(_list(dataset.get("PerFrameFunctionalGroupsSequence"))), None)
    for key in ("SpacingBetweenSlices", "SliceThickness"):
        value = dataset.get(key)
        value = _found((first, shared), f"PixelMeasuresSequence.{key}") if value is None else value
        number = _number(value, 0.0)
        if number != 0:
            return abs(number)
    return None


def _list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, bytes, int, float)) else list(value)


def _numbers(value: Any, count: int) -> Numbers | None:
    values = tuple(float(part) for part in _list(value))
    return values if len(values) == count and all(math.isfinite(part) for part in values) else None


def _number(value: Any, default: float) -> float:
    number = default if value is None or value == "" else float(value)
    return number if math.isfinite(number) else default


def _whole(value: Any) -> int:
    return 0 if value is None or value == "" else int(value)


def _optional_whole(value: Any) -> int | None:
    return None if value is None or value == "" else int(value)
