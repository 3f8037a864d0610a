"""What the kinds of DICOM image demand in their headers: MR, CT, PET, and secondary capture for everything else."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from crossalign.images.files.dicom.filing import header_part
from crossalign.images.files.dicom.quantisation import Quantisation, decimal
from crossalign.images.files.dicom.series import Series

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

STORAGE = "1.2.840.10008.5.1.4.1.1."
SECONDARY_CAPTURE = f"{STORAGE}7"
SOP_CLASSES = {"MR": f"{STORAGE}4", "CT": f"{STORAGE}2", "PT": f"{STORAGE}128"}
IMAGE_TYPES = {
    "MR": ["DERIVED", "SECONDARY", "OTHER"], "CT": ["DERIVED", "SECONDARY", "AXIAL"],
    "PT": ["DERIVED", "PRIMARY"],  # the standard knows no secondary PET
}  # fmt: skip
WORKSTATION, UNSPECIFIED, HOUNSFIELD = "WSD", "US", "HU"
GRAMS_PER_ML, BODY_WEIGHT, COUNTS = "GML", "BW", "CNTS"
# What each kind demands; empty where the source lacks it and nothing stands here.
MR: dict[str, Any] = {
    "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "",
    "RepetitionTime": None, "EchoTime": None, "EchoTrainLength": None,
}  # fmt: skip
CT: dict[str, Any] = {"KVP": None, "AcquisitionNumber": None}
PT: dict[str, Any] = {
    "SeriesType": ["STATIC", "IMAGE"], "CountsSource": "EMISSION", "CorrectedImage": "", "DecayCorrection": "NONE",
    "CollimatorType": "", "FrameReferenceTime": "0", "ActualFrameDuration": None, "AcquisitionDate": "",
    "AcquisitionTime": "", "RadiopharmaceuticalInformationSequence": [],
    "PatientOrientationCodeSequence": [], "PatientGantryRelationshipCodeSequence": [],
}  # fmt: skip
# Copied where the source has them.
ALSO = {
    "MR": ("BodyPartExamined", "MagneticFieldStrength", "FlipAngle", "InversionTime", "TriggerTime"),
    "CT": ("BodyPartExamined", "ConvolutionKernel"),
    "PT": (
        "BodyPartExamined", "DecayFactor", "RandomsCorrectionMethod", "AttenuationCorrectionMethod",
        "ScatterCorrectionMethod", "ReconstructionMethod", "EnergyWindowRangeSequence",
        "SeriesDate", "SeriesTime",
    ),
}  # fmt: skip
DATES = ("AcquisitionDate", "SeriesDate")
LINKS = ("DA", "DT", "PN", "UI", "UN")


def kind_of(values: Series | None) -> str:
    """Return the modality whose kind of image holds a series' values (MR, CT, PT); empty where none does."""
    modality = "" if values is None else values.first.modality
    return modality if modality in SOP_CLASSES else ""


def set_kind(dataset: Dataset, kind: str, values: Series | None, unit: str, removed: bool) -> None:
    """Set what a kind of image demands. `unit` is that of the values (SUV, or nothing), `removed` without dates."""
    dataset.ImageType = IMAGE_TYPES.get(kind, ["DERIVED", "SECONDARY"])
    if not kind or values is None:
        dataset.ConversionType, dataset.PatientOrientation = WORKSTATION, ""
        return
    demanded = {"MR": MR, "CT": CT, "PT": PT}[kind]
    found = header_part(values, (*demanded, *ALSO[kind], "PatientPosition", "Units"))
    for word, default in demanded.items():
        setattr(dataset, word, copy.deepcopy(default))
    for element in found:
        if element.keyword != "Units" and not element.is_empty:
            dataset[element.keyword] = element
    if kind == "PT":
        _set_pet(dataset, str(found.get("Units", "") or COUNTS), unit)
    elif "PatientPosition" not in dataset:
        dataset.PatientPosition = ""
    if removed:
        _remove_links(dataset)


def _set_pet(dataset: Dataset, source_unit: str, unit: str) -> None:
    """Say what the values are: SUVbw, or what the source's were."""
    if unit:
        dataset.Units, dataset.SUVType = GRAMS_PER_ML, BODY_WEIGHT
    else:
        dataset.Units = source_unit
    if dataset.DecayCorrection != "NONE" and "DecayFactor" not in dataset:
        dataset.DecayFactor = "1"
    for drug in dataset.RadiopharmaceuticalInformationSequence:
        if "RadionuclideCodeSequence" not in drug:
            drug.RadionuclideCodeSequence = []
    if dataset.PatientOrientationCodeSequence and "PatientPosition" in dataset:
        del dataset.PatientPosition  # one or the other


def set_rescale(dataset: Dataset, kind: str, quantisation: Quantisation) -> None:
    """Say how stored values lead to the scan's; MR has no such elements where they are the same."""
    if kind == "MR" and (quantisation.slope, quantisation.intercept) == (1.0, 0.0):
        return
    dataset.RescaleSlope, dataset.RescaleIntercept = decimal(quantisation.slope), decimal(quantisation.intercept)
    if kind != "PT":
        dataset.RescaleType = HOUNSFIELD if kind == "CT" else UNSPECIFIED


def _remove_links(dataset: Dataset) -> None:
    """Take out the dates of the source, and what its sequences say in dates, names, UIDs and private elements."""
    for word in DATES:
        if word in dataset:
            setattr(dataset, word, dataset.ContentDate)
    for element in dataset:
        for item in element.value if element.VR == "SQ" else ():
            _clean(item)


def _clean(item: Dataset) -> None:
    for element in list(item):
        if element.VR in LINKS or element.tag.is_private:
            del item[element.tag]
        elif element.VR == "SQ":
            for inner in element.value:
                _clean(inner)
