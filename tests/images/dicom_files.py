"""Made-up DICOM files: slices, series, multi-frame images, and what is drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.8.498."
MR, CT, PT = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("4", "2", "128"))
ULTRASOUND, ENHANCED_MR, ENHANCED_US = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("6.1", "4.1", "6.2"))
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
IDENTITY = ("Mustermann", "Erika", "PID4711", "ACC0815", "19570412", "20240229", "Hausarzt")
PLAIN = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ORIGIN, SPACING, STEP = (-20.0, 10.0, 5.0), (1.5, 0.8), 2.5


def base(sop_class: str, modality: str, series: int = 1) -> FileDataset:
    """Make the header of a file of a patient, without an image."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = UID(sop_class)
    dataset.PatientName, dataset.PatientID = "Mustermann^Erika", "PID4711"
    dataset.PatientSex = "F"
    dataset.PatientBirthDate, dataset.AccessionNumber = "19570412", "ACC0815"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20240229"
    dataset.StudyTime = dataset.SeriesTime = "101500"
    dataset.StudyID, dataset.ReferringPhysicianName = "1", "Hausarzt"
    dataset.Modality, dataset.SeriesNumber = modality, series
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = f"{ROOT}1", f"{ROOT}2"
    dataset.SeriesInstanceUID = f"{ROOT}3.{series}"
    dataset.SOPInstanceUID = f"{ROOT}4.{series}.1"
    return dataset


def set_pixels(dataset: Dataset, voxels: NDArray[Any]) -> None:
    """Put one or more frames of whole numbers into a header."""
    dataset.Rows, dataset.Columns = voxels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = voxels.dtype.itemsize * 8
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(voxels.dtype.kind == "i")
    dataset.PixelData = voxels.tobytes()
    dataset["PixelData"].VR = "OW"


def save(dataset: FileDataset, path: Path, **changes: Any) -> Path:
    """Write a file, some elements changed, those of None left out."""
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def normal_of(orientation: Sequence[float]) -> NDArray[np.float64]:
    return np.cross(orientation[:3], orientation[3:])


def write_series(  # what makes up a series
    folder: Path,
    voxels: NDArray[Any],
    *,
    orientation: Sequence[float] = PLAIN,
    depths: Sequence[float] | None = None,
    shear: Sequence[float] = (0.0, 0.0, 0.0),
    series: int = 1,
    sop_class: str = MR,
    modality: str = "MR",
    each: Sequence[dict[str, Any]] | None = None,
    **changes: Any,
) -> list[Path]:
    """Write slices (z, y, x), `depths` mm along their normal, moved by `shear` mm for each mm; last slice first."""
    folder.mkdir(exist_ok=True, parents=True)
    depths = [STEP * number for number in range(len(voxels))] if depths is None else depths
    paths = []
    for number, (pixels, depth) in enumerate(zip(voxels, depths, strict=True)):
        dataset = base(sop_class, modality, series)
        set_pixels(dataset, pixels)
        dataset.SOPInstanceUID = f"{ROOT}4.{series}.{number}"
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [float(v) for v in orientation], list(SPACING)
        dataset.SliceThickness = STEP
        position = np.array(ORIGIN) + depth * (normal_of(orientation) + np.array(shear))
        dataset.ImagePositionPatient = [round(float(value), 8) for value in position]
        path = folder / f"Mustermann_{len(voxels) - number:03d}"
        paths.append(save(dataset, path, **changes, **(each[number] if each else {})))
    return paths


def item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def frame_group(depth: float, kind: str = "Patient", **sequences: Dataset) -> Dataset:
    """Make what an enhanced image says of one frame."""
    position = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + depth]
    volume = kind == "Volume"
    names = (
        ("PlanePositionVolumeSequence", "ImagePositionVolume")
        if volume
        else ("PlanePositionSequence", "ImagePositionPatient")
    )
    group = item(**{names[0]: Items([item(**{names[1]: position})])})
    for keyword, value in sequences.items():
        setattr(group, keyword, Items([value]))
    return group


def enhanced(voxels: NDArray[Any], kind: str = "Patient", depths: Sequence[float] | None = None) -> FileDataset:
    """Make an enhanced MR image, or an enhanced ultrasound volume, of frames (z, y, x)."""
    volume = kind == "Volume"
    dataset = base(ENHANCED_US if volume else ENHANCED_MR, "US" if volume else "MR")
    set_pixels(dataset, voxels)
    dataset.NumberOfFrames = len(voxels)
    depths = [STEP * number for number in range(len(voxels))] if depths is None else depths
    keyword, value = (
        ("PlaneOrientationVolumeSequence", "ImageOrientationVolume")
        if volume
        else ("PlaneOrientationSequence", "ImageOrientationPatient")
    )
    shared = item(PixelMeasuresSequence=Items([item(PixelSpacing=list(SPACING), SliceThickness=STEP)]))
    setattr(shared, keyword, Items([item(**{value: list(PLAIN)})]))
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    dataset.PerFrameFunctionalGroupsSequence = Items([frame_group(depth, kind) for depth in depths])
    return dataset


def structure_set(regions: dict[str, list[NDArray[np.float64]]]) -> FileDataset:
    """Make an RT structure set of closed contours (n, 3), LPS mm, by name."""
    dataset = base(RTSTRUCT, "RTSTRUCT")
    dataset.StructureSetLabel = "contours"
    dataset.StructureSetROISequence = Items(
        [item(ROINumber=number, ROIName=name, ROIGenerationAlgorithm="") for number, name in enumerate(regions, 5)]
    )
    dataset.ROIContourSequence = Items(
        [
            item(
                ReferencedROINumber=number,
                ContourSequence=Items(
                    [
                        item(
                            ContourGeometricType="CLOSED_PLANAR",
                            NumberOfContourPoints=len(contour),
                            ContourData=[f"{value:.6f}" for value in contour.ravel()],
                        )
                        for contour in contours
                    ]
                ),
            )
            for number, contours in enumerate(regions.values(), 5)
        ]
    )
    return dataset
