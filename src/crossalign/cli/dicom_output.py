"""The option --dicom-out of `register`, `apply` and `fuse`: a folder with one derived DICOM series, or several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from crossalign.cli.checks import files_in
from crossalign.cli.requests.registration import ApplyRequest, Identity, RegisterRequest
from crossalign.errors import InputError, OutputError
from crossalign.images.files.dicom.derived import Derivation
from crossalign.images.files.dicom.output import DicomOutput
from crossalign.images.files.dicom.series import Series
from crossalign.input import excerpt
from crossalign.output import check_new_folder, whole_folder
from crossalign.registration import RegistrationResult

UNTRUSTED = "Do not trust this result."
LONGEST = 64  # characters of a series' description


def check_dicom_out(folder: Path | None, identity: Identity, inputs: Iterable[Path]) -> None:
    """Raise OutputError where the folder cannot be made or lies in an input; InputError where it is not named."""
    if folder is None:
        if identity != "keep":
            raise InputError("--dicom-identity needs --dicom-out: without it no DICOM series is written")
        return
    check_new_folder(folder)
    place = Path(os.path.realpath(folder))
    for path in inputs:
        if path.is_dir() and place.is_relative_to(os.path.realpath(path)):
            raise OutputError(f"{folder}: lies in a folder of images that this run reads: name another place")


def moved_series(
    request: RegisterRequest, result: RegistrationResult, fixed: Series | None, moving: Series | None
) -> DicomOutput | None:
    """Plan the moving image on the fixed grid as a series; None where it is not asked for.

    `fixed` and `moving` are the series that the images were read from, None of other formats.
    """
    if request.dicom_out is None:
        return None
    kind = "image" if moving is None else moving.first.modality
    text = (
        f"The moving image, registered to the fixed one by {excerpt(result.method, 100)} and resampled onto its grid."
    )
    derivation = Derivation(text, f"Registered {kind}", present(moving), moving)
    return DicomOutput.of(fixed, judged(derivation, not result.reasons), request.dicom_identity)


def resampled_series(
    request: ApplyRequest, direction: str, of_grid: Series | None, values: Series | None
) -> DicomOutput | None:
    """Plan INPUT on the grid of --reference as a series; `direction` is empty where there is no transform.

    `of_grid` and `values` are the series that the reference and INPUT were read from, None of other formats.
    """
    if request.dicom_out is None:
        return None
    kind = "image" if values is None else values.first.modality
    way = f"{direction} by a transform" if direction else "without a transform"
    text = f"Resampled {way} onto the grid of another image."
    derivation = Derivation(text, f"Resampled {kind}", present(values), values)
    return DicomOutput.of(of_grid, judged(derivation, trusted=True), request.dicom_identity)


def dicom_files_of(folder: Path | None) -> tuple[Path, ...]:
    """List the files of --dicom-out."""
    return () if folder is None else files_in(folder)


def present(*series: Series | None) -> tuple[Series, ...]:
    """Leave out images that are no DICOM."""
    return tuple(one for one in series if one is not None)


def judged(derivation: Derivation, trusted: bool) -> Derivation:
    """Say in the words of a series that its result is not to be trusted, and that it is for research."""
    name = f"{derivation.series_description}{'' if trusted else ', not trusted'}, research only"
    description = derivation.description if trusted else f"{derivation.description} {UNTRUSTED}"
    return replace(derivation, description=description, series_description=name[:LONGEST])


@contextmanager
def dicom_folder(folder: Path | None) -> Iterator[Path | None]:
    """Give the temporary folder of --dicom-out, which appears whole or not at all; None where it is not asked for."""
    if folder is None:
        yield None
        return
    with whole_folder(folder) as partial:
        yield partial
