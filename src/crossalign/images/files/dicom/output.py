"""DICOM series as output: whose they are, what they are made of, and what the user should know of that."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from jaxtyping import UInt8
from numpy import ndarray

from crossalign.arguments import checked
from crossalign.geometry import Grid
from crossalign.images.conversion import ImageLike, as_image
from crossalign.images.files.dicom.derived import Derivation, write_colour_series, write_derived_series
from crossalign.images.files.dicom.filing import Filing
from crossalign.images.files.dicom.series import Series, image_series, is_dicom
from crossalign.images.image import Image
from crossalign.output import check_new_folder, whole_folder

Identity: TypeAlias = Literal["keep", "remove"]
PLACEHOLDER = (
    "the image that the DICOM series is filed with is not DICOM: it is of a placeholder patient, in a new study and a "
    "new frame of reference"
)
TWO_PATIENTS = "the images are of different patient numbers: the DICOM series is filed under the first one's"
RESAMPLED = "Resampled onto the grid of another image."


@dataclass(frozen=True, eq=False)
class DicomOutput:
    """A series to be written. `notes` are what to say of it, without identity."""

    filing: Filing
    derivation: Derivation
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(filed_with: Series | None, derivation: Derivation, identity: Identity = "keep") -> DicomOutput:
        """Choose the patient, study and frame of reference: those of the series whose grid the new one has.

        Without one, and where the identity is to be removed, they are placeholders. Raises ImageError.
        """
        if filed_with is None or identity == "remove":
            removed = identity == "remove"
            return DicomOutput(Filing.placeholder(removed), derivation, () if removed else (PLACEHOLDER,))
        filing = Filing.of(filed_with)
        numbers = {Filing.of(series).patient_number for series in derivation.sources}
        return DicomOutput(filing, derivation, (TWO_PATIENTS,) if numbers - {filing.patient_number} else ())

    def write(self, image: Image, folder: Path) -> tuple[str, ...]:
        """Write a scan into an empty folder of `whole_folder`; return what more there is to say."""
        return write_derived_series(image, folder, self.filing, self.derivation)

    def write_colours(self, rgb: UInt8[ndarray, "z y x 3"], grid: Grid, folder: Path) -> None:
        """Write a volume of red, green and blue into an empty folder of `whole_folder`."""
        write_colour_series(rgb, grid, folder, self.filing, self.derivation)


def series_of(path: str | os.PathLike[str], wanted: str | int | None = None) -> Series | None:
    """Return the series that a path means, None where it is no DICOM. Raises ImageError."""
    return image_series(Path(path), wanted) if is_dicom(path) else None


@checked("folder", "reference", "source", "description", "identity")
def write_dicom_series(
    image: ImageLike,
    folder: str | os.PathLike[str],
    reference: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    *,
    description: str = RESAMPLED,
    identity: Identity = "keep",
) -> tuple[str, ...]:
    """Write a scan as a derived DICOM series into a new folder, which appears whole or not at all; return notes.

    `image` is one of crossalign, a path, or an image of another library (see `as_image`).
    `reference` is the DICOM series in whose space the scan lies: its patient, study and frame of reference are the new
    series'. None, or a file of another format, makes a placeholder, as `identity="remove"` does. `source` is the DICOM
    series that the values are of, with its modality and unit. `description` says in words what was done.
    Raises TypeError for what is no image, ImageError for paths that hold no series, OutputError where the folder exists
    or cannot be written.
    """
    check_new_folder(folder)
    filed_with, of_values = (None if path is None else series_of(path) for path in (reference, source))
    sources = tuple(series for series in (of_values,) if series is not None)
    kind = "image" if of_values is None else of_values.first.modality
    derivation = Derivation(description, f"Resampled {kind}, research only", sources, of_values)
    output = DicomOutput.of(filed_with, derivation, identity)
    with whole_folder(folder) as partial:
        return (*output.notes, *output.write(as_image(image, "image"), partial))
