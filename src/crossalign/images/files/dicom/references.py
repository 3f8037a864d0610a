"""How a DICOM object refers to images of other series: by class and instance, by series, and by study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crossalign.images.files.dicom.series import Series

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def image_references(series: Series, purpose: Dataset | None = None) -> list[Dataset]:
    """Return one reference to each image of a series; `purpose` is the code of what it was used for."""
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    found = []
    for header in series.headers:
        reference = Dataset()
        reference.ReferencedSOPClassUID = UID(header.sop_class)
        reference.ReferencedSOPInstanceUID = UID(header.instance_uid)
        if purpose is not None:
            reference.PurposeOfReferenceCodeSequence = [purpose]
        found.append(reference)
    return found


def refer_to_series(dataset: Dataset, study_uid: str, referred: Sequence[tuple[Series, str]]) -> None:
    """Name the series that an object of a study refers to: those of its own study, and those of another one.

    `referred` holds each series with its study. After PS3.3 C.12.2 (Common Instance Reference Module).
    """
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    studies: dict[str, list[Dataset]] = {}
    for series, study in {one.first.series_uid: (one, study) for one, study in referred}.values():
        item = Dataset()
        item.SeriesInstanceUID = UID(series.first.series_uid)
        item.ReferencedInstanceSequence = image_references(series)
        studies.setdefault(study, []).append(item)
    if study_uid in studies:
        dataset.ReferencedSeriesSequence = studies.pop(study_uid)
    others = []
    for uid, of_study in studies.items():
        item = Dataset()
        item.StudyInstanceUID, item.ReferencedSeriesSequence = UID(uid), of_study
        others.append(item)
    if others:
        dataset.StudiesContainingOtherReferencedInstancesSequence = others
