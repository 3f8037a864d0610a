"""Under which patient, study and frame of reference a new DICOM object is filed, and what made it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import crossalign
from crossalign.images.files.dicom.parsing import parsed, quiet_library
from crossalign.images.files.dicom.series import Series

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

RESEARCH_ONLY = "Research software, not a medical device."
MAKER = "crossalign"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
# The standard demands that they are there: empty where the series lacks them.
DEMANDED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber", "PositionReferenceIndicator",
)  # fmt: skip
CARRIED = (
    "SpecificCharacterSet", "IssuerOfPatientID", "StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified",
)  # fmt: skip
UIDS = ("StudyInstanceUID", "FrameOfReferenceUID")
SHORT = 16  # characters of a short string (SH)
SHORT_WORDS = ("StudyID", "AccessionNumber")
PLACEHOLDER_NAME, PLACEHOLDER_ID = "Placeholder^crossalign", "CROSSALIGN-"
REMOVED = "crossalign: placeholders; sources not referenced"


@dataclass(frozen=True, eq=False)
class Filing:
    """Patient, study and frame of reference. The UIDs are empty where a header lacks them.

    `series` is that which they were taken from, None for a placeholder. Where the identity was `removed` on purpose,
    the new object refers to none of the objects that it was made of.
    """

    elements: Dataset
    study_uid: str
    frame_uid: str
    series: Series | None = None
    removed: bool = False

    @staticmethod
    def of(series: Series) -> Filing:
        """Take them from the first file of a series. Raises ImageError where that is damaged."""
        elements = header_part(series, (*DEMANDED, *CARRIED, "StudyInstanceUID", "FrameOfReferenceUID"))
        study, frame = (str(elements.pop(word).value or "") if word in elements else "" for word in UIDS)
        return Filing(elements, study, frame, series)

    @staticmethod
    def placeholder(removed: bool = False) -> Filing:
        """Make up a patient of its own number, so that no archive takes two placeholders for one, and a study."""
        from pydicom.dataset import Dataset
        from pydicom.uid import generate_uid

        elements = Dataset()
        study = generate_uid()
        elements.PatientName, elements.PatientID = PLACEHOLDER_NAME, f"{PLACEHOLDER_ID}{study[-10:]}"
        if removed:
            elements.PatientIdentityRemoved, elements.DeidentificationMethod = "YES", REMOVED
        return Filing(elements, study, generate_uid(), None, removed)

    def completed(self) -> Filing:
        """Give it a study and a frame of reference of its own where it has none."""
        from pydicom.uid import generate_uid

        return replace(self, study_uid=self.study_uid or generate_uid(), frame_uid=self.frame_uid or generate_uid())

    @property
    def patient_number(self) -> str:
        """The number of the patient, for comparison; never shown."""
        return str(self.elements.get("PatientID", "") or "")

    def fill(self, dataset: Dataset) -> None:
        """Set the elements of patient, study and frame of reference of a new object."""
        from pydicom.uid import UID

        for word in DEMANDED:
            value = self.elements.get(word, "")
            too_long = word in SHORT_WORDS and len(str(value)) > SHORT
            setattr(dataset, word, "" if too_long or value is None else value)
        for word in CARRIED:
            if self.elements.get(word):
                dataset[word] = copy.deepcopy(self.elements[word])
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = UID(self.study_uid), UID(self.frame_uid)


def header_part(series: Series, words: Iterable[str]) -> Dataset:
    """Copy elements of the first file of a series; those that it lacks are left out. Raises ImageError."""

    def taken(dataset: Dataset) -> Dataset:
        from pydicom.dataset import Dataset

        found = Dataset()
        for word in words:
            if word in dataset:
                found[word] = copy.deepcopy(dataset[word])  # converted here, where a damaged value is met
        return found

    return parsed(series.first.path, series.name, taken)


def new_object(filing: Filing, sop_class: str, modality: str) -> Dataset:
    """Make a new object of a new series: patient, study, frame of reference, equipment, and the time of making."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, generate_uid

    now = datetime.now(UTC).astimezone()
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_LITTLE_ENDIAN)
    with quiet_library():
        filing.fill(dataset)
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(sop_class), generate_uid()
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber, dataset.Laterality = modality, 1, 1, ""
    dataset.Manufacturer = dataset.ManufacturerModelName = MAKER
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = crossalign.__version__, "none"
    for kind in ("Content", "Series", "InstanceCreation"):
        setattr(dataset, f"{kind}Date", now.strftime("%Y%m%d"))
        setattr(dataset, f"{kind}Time", now.strftime("%H%M%S"))
    return dataset
