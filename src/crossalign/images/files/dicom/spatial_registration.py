"""DICOM's Spatial Registration object: where the points of one series lie in another series' frame of reference.

After PS3.3 C.20.2 (Spatial Registration Module): each item's matrix maps points of the item's frame of reference to
that of the object, LPS mm. The object's own frame is the fixed series', whose patient and study it is filed under.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossalign.errors import ImageError
from crossalign.images.files.dicom.filing import RESEARCH_ONLY, Filing, new_object
from crossalign.images.files.dicom.parsing import quiet_library
from crossalign.images.files.dicom.references import image_references, refer_to_series
from crossalign.images.files.dicom.series import Series
from crossalign.images.files.transform_formats.itk import Matrix
from crossalign.images.files.transform_formats.nearly_rigid import rigid_fault

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SPATIAL_REGISTRATION = "1.2.840.10008.5.1.4.1.1.66.1"
ONE_FRAME = (
    "both series are of one frame of reference: programs that go by it alone take them for registered already, and do "
    "not look at the matrix"
)
TWO_PATIENTS = "the two series are of different patient numbers: the object is filed under the fixed one's"


@dataclass(frozen=True, eq=False)
class _Part:
    """One series, and what the object takes from its first file."""

    series: Series
    filing: Filing

    @staticmethod
    def of(series: Series) -> _Part:
        filing = Filing.of(series)
        if not filing.frame_uid or not filing.study_uid:
            raise ImageError(
                f"{series.name}: its files name no frame of reference, or no study: nothing can refer to it"
            )
        return _Part(series, filing)


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
        refer_to_series(dataset, parts[0].filing.study_uid, [(part.series, part.filing.study_uid) for part in parts])
        dataset.save_as(path, enforce_file_format=True)
    of_fixed, of_moving = (part.filing for part in parts)
    notes = [ONE_FRAME] if of_fixed.frame_uid == of_moving.frame_uid else []
    return (*notes, TWO_PATIENTS) if of_fixed.patient_number != of_moving.patient_number else tuple(notes)


def _filed(fixed: _Part) -> Dataset:
    """Make the object but for what it registers."""
    dataset = new_object(fixed.filing, SPATIAL_REGISTRATION, "REG")
    dataset.SeriesDescription = "Registration, research only"
    dataset.ContentLabel, dataset.ContentDescription = "REGISTRATION", RESEARCH_ONLY
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
    item.FrameOfReferenceUID = UID(part.filing.frame_uid)
    item.ReferencedImageSequence = image_references(part.series)
    item.MatrixRegistrationSequence = [registration]
    return item
