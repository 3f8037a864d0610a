"""Series that were made of others: a scan, or a volume of colours, as one DICOM file for each of its slices.

Single-frame images of the values' own modality (MR, CT, PET) are what most archives and viewers read. What is of none
of them (ultrasound of other formats, fused volumes, colours) becomes secondary captures with the slices' geometry.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

import crossalign
from crossalign.errors import ImageError
from crossalign.geometry import Grid
from crossalign.images.files.dicom.filing import MAKER, RESEARCH_ONLY, Filing, header_part, new_object
from crossalign.images.files.dicom.image_kinds import SECONDARY_CAPTURE, SOP_CLASSES, kind_of, set_kind, set_rescale
from crossalign.images.files.dicom.parsing import quiet_library
from crossalign.images.files.dicom.quantisation import Quantisation, decimal
from crossalign.images.files.dicom.references import image_references, refer_to_series
from crossalign.images.files.dicom.series import Series
from crossalign.images.image import Image

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NO_MODALITY = "OT"
RESAMPLING = ("113085", "Spatial resampling")
SOURCE_IMAGE = ("121322", "Source image for image processing operation")
PROCESSING_EQUIPMENT = ("109102", "Processing Equipment")
OF_DERIVED = 1000
SIDE_LIMIT = 65_535
SHOWN_PERCENT = (0.5, 99.5)
SHOWN_CT = (40.0, 400.0)  # centre and width, HU
NARROWEST = 4.0  # width of a window: DICOM's linear function takes 1 off; without one viewers show the whole range
SAMPLED = 500_000
SEQUENCE_HEADER_BYTES = 12  # tag, VR and length, explicit


@dataclass(frozen=True)
class Derivation:
    """What a series is made of, and how, for its header: words without names of files or people.

    `values` is the series whose modality and unit the values still have (the moving one); None where they have none.
    `number` is added to the number of the series that it is filed with.
    """

    description: str
    series_description: str
    sources: tuple[Series, ...] = ()
    values: Series | None = None
    number: int = OF_DERIVED


def write_derived_series(image: Image, folder: Path, filing: Filing, derivation: Derivation) -> tuple[str, ...]:
    """Write a scan into an empty folder of `whole_folder`; return what the user should know.

    Values are kept within half a step of 16 bits. Voxels that are NaN or infinite become the lowest value.
    """
    voxels = image.voxels.detach().cpu().numpy()
    finite = np.isfinite(voxels)
    notes: tuple[str, ...] = ()
    if not finite.all():
        if not finite.any():
            raise ImageError(f"{image.name}: holds no finite value: nothing can be written as DICOM")
        lowest = float(voxels[finite].min())
        notes = (f"{int((~finite).sum()):,} voxels that are NaN or infinite are {lowest:g} in the DICOM series",)
        voxels = np.where(finite, voxels, np.float32(lowest))
    kind = kind_of(derivation.values)
    quantisation = Quantisation.of(voxels, kind)
    with quiet_library():
        dataset = _common(filing.completed(), derivation, kind)
        set_kind(dataset, kind, derivation.values, image.unit, filing.removed)
        set_rescale(dataset, kind, quantisation)
        center, width = _window(voxels, kind)
        if width >= NARROWEST:
            dataset.WindowCenter, dataset.WindowWidth = decimal(center), decimal(width)
        _set_pixel_format(dataset, "MONOCHROME2", 16, quantisation.signed)
        _write_slices(dataset, image.grid, folder, lambda index: quantisation.stored(voxels[index]))
    return notes


def write_colour_series(
    rgb: UInt8[NDArray[np.uint8], "z y x 3"], grid: Grid, folder: Path, filing: Filing, derivation: Derivation
) -> None:
    """Write a volume of colours (red, green, blue) into an empty folder of `whole_folder`: secondary captures."""
    if rgb.shape[:3] != grid.shape:
        raise ImageError(f"the colours are {rgb.shape[:3]} (z, y, x) but the grid says {grid.shape}")
    with quiet_library():
        dataset = _common(filing.completed(), derivation, "")
        set_kind(dataset, "", None, "", filing.removed)
        _set_pixel_format(dataset, "RGB", 8, signed=False)
        dataset.PlanarConfiguration = 0
        _write_slices(dataset, grid, folder, lambda index: rgb[index])


def _common(filing: Filing, derivation: Derivation, kind: str) -> Dataset:
    """Make what all slices of a series share, but for geometry and pixels."""
    modality = kind or NO_MODALITY
    dataset = new_object(filing, SOP_CLASSES.get(kind, SECONDARY_CAPTURE), modality)
    number = None if filing.series is None else filing.series.first.series_number
    dataset.SeriesNumber = derivation.number + (number or 0) % 2**30
    dataset.SeriesDescription = derivation.series_description[:64]
    dataset.DerivationDescription = f"{derivation.description} {RESEARCH_ONLY}"
    dataset.DerivationCodeSequence = [_code(*RESAMPLING)]
    dataset.ImageComments = f"Derived by {MAKER} {crossalign.__version__}. {RESEARCH_ONLY}"
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
    dataset.ContributingEquipmentSequence = [_equipment(dataset)]
    if not filing.removed and derivation.sources:
        purpose = _code(*SOURCE_IMAGE)
        sources = derivation.sources
        dataset.SourceImageSequence = [one for series in sources for one in image_references(series, purpose)]
        refer_to_series(dataset, filing.study_uid, [(series, _study_of(series)) for series in sources])
    return dataset


def _study_of(series: Series) -> str:
    return str(header_part(series, ("StudyInstanceUID",)).get("StudyInstanceUID", "") or "")


def _equipment(dataset: Dataset) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_code(*PROCESSING_EQUIPMENT)]
    item.Manufacturer = item.ManufacturerModelName = MAKER
    item.SoftwareVersions = crossalign.__version__
    item.ContributionDateTime = dataset.ContentDate + dataset.ContentTime
    item.ContributionDescription = RESEARCH_ONLY
    return item


def _code(value: str, meaning: str) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _window(voxels: NDArray[np.float32], kind: str) -> tuple[float, float]:
    """Return centre and width of the window in which a viewer shows the series first."""
    if kind == "CT":
        return SHOWN_CT
    low, high = np.percentile(voxels.reshape(-1)[:: max(1, voxels.size // SAMPLED)], SHOWN_PERCENT).tolist()
    return (low + high) / 2, high - low


def _set_pixel_format(dataset: Dataset, photometric: str, bits: int, signed: bool) -> None:
    dataset.SamplesPerPixel = 3 if photometric == "RGB" else 1
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(signed)


def _write_slices(dataset: Dataset, grid: Grid, folder: Path, pixels: Callable[[int], NDArray[np.generic]]) -> None:
    """Write one file for each slice; `pixels` gives those of slice k of the volume."""
    from pydicom.uid import generate_uid

    depth, dataset.Rows, dataset.Columns = grid.shape
    if max(grid.shape) > SIDE_LIMIT:
        raise ImageError(
            f"the volume is {grid.shape} (z, y, x): a DICOM slice holds {SIDE_LIMIT} x {SIDE_LIMIT} pixels"
        )
    axes = np.array(grid.direction)
    dataset.ImageOrientationPatient = [decimal(value) for value in (*axes[:, 0], *axes[:, 1])]
    dataset.PixelSpacing = [decimal(grid.spacing_mm[1]), decimal(grid.spacing_mm[0])]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = decimal(grid.spacing_mm[2])
    if dataset.Modality == "PT":
        dataset.NumberOfSlices = depth
    indices = torch.tensor([[0.0, 0.0, float(index)] for index in range(depth)], dtype=torch.float64)
    positions = grid.to_physical(indices).numpy()
    _encode_sequences(dataset)
    order = np.argsort(positions @ np.cross(axes[:, 0], axes[:, 1]), kind="stable")  # as readers order slices
    for number, index in enumerate(order.tolist(), start=1):
        one = copy.copy(dataset)
        one.file_meta = copy.deepcopy(dataset.file_meta)
        one.SOPInstanceUID, one.InstanceNumber = generate_uid(), number
        one.ImagePositionPatient = [decimal(value) for value in positions[index]]
        if dataset.Modality == "PT":
            one.ImageIndex = number
        _set_pixels(one, pixels(index))
        one.save_as(folder / f"slice_{number:05d}.dcm", enforce_file_format=True)


def _encode_sequences(dataset: Dataset) -> None:
    """Put bytes in place of sequences: to encode hundreds of references anew would take 50 ms for each slice.

    pydicom writes them as they are where the encoding is that which they are said to have been read in.
    """
    from pydicom.charset import convert_encodings
    from pydicom.dataelem import RawDataElement
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element

    encodings = convert_encodings(dataset.get("SpecificCharacterSet"))
    for element in [one for one in dataset if one.VR == "SQ"]:
        content = DicomBytesIO()
        content.is_little_endian, content.is_implicit_VR = True, False
        element.is_undefined_length = False  # as a copied one may have been
        write_data_element(content, element, encodings)
        value = content.getvalue()[SEQUENCE_HEADER_BYTES:]
        dataset[element.tag] = RawDataElement(element.tag, "SQ", len(value), value, 0, False, True)
    dataset.set_original_encoding(False, True, encodings)


def _set_pixels(dataset: Dataset, values: NDArray[np.generic]) -> None:
    """Put the pixels of a slice into its data set, in little endian byte order and of an even number of bytes."""
    content = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
