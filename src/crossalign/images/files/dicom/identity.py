"""Texts of a DICOM header without what identifies a patient: what people typed into a description may hold a name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from crossalign.input import excerpt

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IDENTIFYING = (
    "PatientName", "PatientID", "OtherPatientNames", "OtherPatientIDs", "PatientBirthName", "PatientMotherBirthName",
    "ResponsiblePerson", "ReferringPhysicianName", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy",
    "PhysiciansOfRecord", "RequestingPhysician", "OperatorsName", "AccessionNumber", "PatientAddress",
)  # fmt: skip
LEAST_LETTERS = 2
WORD = re.compile(r"[^\W_]+")
LONG_NUMBER = re.compile(r"[0-9]{6,}")  # a date, or an identifier
DATE = re.compile(r"[0-9]{1,4}[-./][0-9]{1,2}[-./][0-9]{1,4}")
HIDDEN = "***"


def without_identity(text: object, dataset: Dataset) -> str:
    """Return a text for a message, without words of the patient's and physicians' names and numbers, and dates."""
    known = set[str]()
    for keyword in IDENTIFYING:
        known |= {word.casefold() for word in WORD.findall(str(dataset.get(keyword, "") or ""))}
    known = {word for word in known if len(word) >= LEAST_LETTERS}
    plain = WORD.sub(lambda word: HIDDEN if word.group().casefold() in known else word.group(), str(text or ""))
    return excerpt(LONG_NUMBER.sub(HIDDEN, DATE.sub(HIDDEN, plain)), 60)
