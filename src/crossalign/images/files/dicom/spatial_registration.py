"""DICOM's Spatial Registration object: where the points of one series lie in another series' frame of reference.

After PS3.3 C.20.2 (Spatial Registration Module): each item's matrix maps points of the item's frame of reference to
that of the object, LPS mm. The object's own frame is the fixed series', whose patient and study it is filed under.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import crossalign
from crossalign.errors import ImageError
from crossalign.images.files.dicom.parsing import parsed, quiet_library
from crossalign.images.files.dicom.series import Series
from crossalign.images.files.transform_formats.itk import Matrix
from crossalign.images.files.transform_formats.nearly_rigid import rigid_fault

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SPATIAL_REGISTRATION = "1.2.840.10008.5.1.4.1.1.66.1"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
# Copied from the fixed series, and empty where that lacks them: the standard demands that they are there.
OF_THE_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
OF_THE_STUDY = ("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")
SHORT = 16  # characters of a short string (SH)
ONE_FRAME = (
    "both series are of one frame of reference: programs that go by it alone take them for registered already, and do "
    "not look at the matrix"
)
TWO_PATIENTS = "the two series are of different patient numbers: the object is filed under the fixed one's"


@dataclass(frozen=True, eq=False)
class _Part:
    """One series: what the object takes from its first file."""

    series: Series
    dataset: Dataset
    frame_uid: str
    study_uid: str

    @staticmethod
    def of(series: Series) -> _Part:
        dataset = parsed(series.first.path, series.name, _taken)
        frame, study = (str(dataset.get(word, "") or "") for word in ("FrameOfReferenceUID", "StudyInstanceUID"))
        if not frame or not study:
            raise ImageError(
                f"{series.name}: its files name no frame of reference, or no study: nothing can refer to it"
            )
        return _Part(series, dataset, frame, study)


def write_spatial_registration(fixed_to_moving: Matrix, path: Path, fixed: Series, moving: Series) -> tuple[str, ...]:
    """Write the object to a temporary path of `whole_file`, and return what the user should know.

    `fixed_to_moving` (4, 4) maps fixed points to moving points, LPS mm. Raises ImageError where a series names no frame
    of reference.
    """
    parts = _Part.of(fixed), _Part.of(moving)
    moving_to_fixed: Matrix = np.linalg.inv(fixed_to_moving).astype(np.float64)
    with quiet_library():
        dataset = _filed(parts[0])
        dataset.RegistrationSequence = [_item(parts[0], np.eye(4)), _item(parts[1], moving_to_fixed)]
        _refer(dataset, parts)
        dataset.save_as(path, enforce_file_format=True)
    notes = [ONE_FRAME] if parts[0].frame_uid == parts[1].frame_uid else []
    different = str(parts[0].dataset.get("PatientID", "")) != str(parts[1].dataset.get("PatientID", ""))
    return (*notes, TWO_PATIENTS) if different else tuple(notes)


def _taken(dataset: Dataset) -> Dataset:
    """Copy what is needed of a header; converted here, where a damaged value is met."""
    from pydicom.dataset import Dataset

    taken = Dataset()
    uids = ("FrameOfReferenceUID", "StudyInstanceUID", "SpecificCharacterSet", "PositionReferenceIndicator")
    for word in (*OF_THE_PATIENT, *OF_THE_STUDY, *uids):
        if word in dataset:
            taken[word] = copy.deepcopy(dataset[word])
    return taken


def _filed(fixed: _Part) -> Dataset:
    """Make the object but for what it registers: patient, study, series, frame of reference, equipment."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, generate_uid

    now = datetime.now(UTC).astimezone()
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_LITTLE_ENDIAN)
    for word in (*OF_THE_PATIENT, *OF_THE_STUDY):
        value = fixed.dataset.get(word, "")
        too_long = word in ("StudyID", "AccessionNumber") and len(str(value)) > SHORT
        setattr(dataset, word, "" if too_long else value)
    if fixed.dataset.get("SpecificCharacterSet"):
        dataset.SpecificCharacterSet = fixed.dataset.SpecificCharacterSet
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = UID(fixed.study_uid), generate_uid()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(SPATIAL_REGISTRATION), generate_uid()
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "REG", 1, 1
    dataset.SeriesDescription, dataset.Laterality = "Registration, research only", ""
    dataset.FrameOfReferenceUID = UID(fixed.frame_uid)
    dataset.PositionReferenceIndicator = fixed.dataset.get("PositionReferenceIndicator", "")
    dataset.Manufacturer = dataset.ManufacturerModelName = "crossalign"
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = crossalign.__version__, "none"
    for kind in ("Content", "Series", "InstanceCreation"):
        setattr(dataset, f"{kind}Date", now.strftime("%Y%m%d"))
        setattr(dataset, f"{kind}Time", now.strftime("%H%M%S"))
    dataset.ContentLabel, dataset.ContentDescription = "REGISTRATION", "Research software, not a medical device."
    dataset.ContentCreatorName = ""
    return dataset


def _item(part: _Part, matrix: Matrix) -> Dataset:
    """Make the item of one series: its frame of reference, its images, and the matrix to the object's frame."""
    from pydicom.dataset import Dataset
    from pydicom.uid import UID
    from pydicom.valuerep import format_number_as_ds

    one = Dataset()
    one.FrameOfReferenceTransformationMatrixType = "AFFINE" if rigid_fault(matrix) else "RIGID"
    one.FrameOfReferenceTransformationMatrix = [format_number_as_ds(float(value) + 0.0) for value in matrix.flatten()]
    registration = Dataset()
    registration.RegistrationTypeCodeSequence = []
    registration.MatrixSequence = [one]
    item = Dataset()
    item.FrameOfReferenceUID = UID(part.frame_uid)
    item.ReferencedImageSequence = _references(part.series)
    item.MatrixRegistrationSequence = [registration]
    return item


def _references(series: Series) -> list[Dataset]:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    found = []
    for header in series.headers:
        reference = Dataset()
        reference.ReferencedSOPClassUID = UID(header.sop_class)
        reference.ReferencedSOPInstanceUID = UID(header.instance_uid)
        found.append(reference)
    return found


def _refer(dataset: Dataset, parts: tuple[_Part, _Part]) -> None:
    """Name the series that the object refers to: those of its own study, and those of another one."""
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    studies: dict[str, list[Dataset]] = {}
    for part in {one.series.first.series_uid: one for one in parts}.values():
        series = Dataset()
        series.SeriesInstanceUID = UID(part.series.first.series_uid)
        series.ReferencedInstanceSequence = _references(part.series)
        studies.setdefault(part.study_uid, []).append(series)
    dataset.ReferencedSeriesSequence = studies.pop(parts[0].study_uid)
    others = []
    for uid, series_of_study in studies.items():
        study = Dataset()
        study.StudyInstanceUID, study.ReferencedSeriesSequence = UID(uid), series_of_study
        others.append(study)
    if others:
        dataset.StudiesContainingOtherReferencedInstancesSequence = others
