"""Pairs of scans whose true transform need not be known: a site's own, in a folder or listed in a manifest.

A folder holds one folder for each patient, or within it one for each examination:

| file | needed | what |
|---|---|---|
| mr, us | yes | the fixed and the moving image, in any format that is read (mr.nii.gz, us.nrrd, ...) |
| mr_gland | yes | the prostate in the MR, on its grid |
| us_gland | no | the prostate in the ultrasound, on its grid |
| reference.tfm | no | ITK transform file, MR points to ultrasound points: the truth |
| landmarks.csv | no | name, then x, y, z in the MR and x, y, z in the ultrasound, LPS mm |

A manifest has the columns of `crossalign.data.manifest`; `split` and `reference` may be left out or be empty.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from crossalign.data.manifest import CONTROL, Case, Columns, read_cases
from crossalign.errors import ManifestError
from crossalign.input import check_regular_file, excerpt

PAIR_COLUMNS = Columns(("fixed", "moving", "fixed_mask"), ("moving_mask", "reference", "landmarks"), None)
NAMES = {"fixed": "mr", "moving": "us", "fixed_mask": "mr_gland", "moving_mask": "us_gland"}
OTHER_FILES = {"reference": "reference.tfm", "landmarks": "landmarks.csv"}
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
LAYOUT = "a folder for each patient (or examination) with mr.nii.gz, us.nii.gz and mr_gland.nii.gz"
MOST_FOLDERS = 100_000


@dataclass(frozen=True)
class ScanPair:
    """The files of a pair; `split` is empty where none was given. Every path existed when it was read."""

    name: str
    patient: str
    split: str
    fixed: Path
    moving: Path
    fixed_mask: Path
    moving_mask: Path | None = None
    reference: Path | None = None
    landmarks: Path | None = None

    def with_reference(self, reference: Path, split: str) -> Case:
        """Return it as a case of a split, with this reference."""
        return Case(
            self.name,
            self.patient,
            split,
            self.fixed,
            self.moving,
            self.fixed_mask,
            reference,
            self.moving_mask,
            self.landmarks,
        )


def read_scan_pairs(source: str | os.PathLike[str]) -> tuple[ScanPair, ...]:
    """Read a manifest, or look through a folder in the order of its names.

    Raises ManifestError that names the row and column, or the folder and file.
    """
    path = Path(source)
    if "\0" not in str(path) and path.is_dir():
        return _in_folder(path)
    return tuple(ScanPair(**values) for values in read_cases(path, PAIR_COLUMNS))


def _in_folder(folder: Path) -> tuple[ScanPair, ...]:
    try:
        pairs = [pair for patient in _folders(folder) for pair in _of_patient(patient)]
    except OSError as error:
        raise ManifestError(f"{excerpt(folder, 200)}: cannot be looked through: {error.strerror}") from error
    if not pairs:
        raise ManifestError(f"{excerpt(folder, 200)}: holds no pair of scans: expected {LAYOUT}, or give a manifest")
    return tuple(pairs)


def _of_patient(patient: Path) -> list[ScanPair]:
    """Read the pair of a patient's folder, or those of the folders in it; none where it holds no scan."""
    if CONTROL.search(patient.name):
        raise ManifestError(f"{excerpt(patient, 200)}: the name holds a control character: rename the folder")
    if (pair := _pair(patient, patient.name, patient.name)) is not None:
        return [pair]
    found = (_pair(inner, patient.name, f"{patient.name}-{inner.name}") for inner in _folders(patient))
    return [pair for pair in found if pair is not None]


def _pair(folder: Path, patient: str, name: str) -> ScanPair | None:
    """Read the pair of a folder; None where it holds no scan. Raises ManifestError where a part is missing."""
    files = {column: _image(folder, stem) for column, stem in NAMES.items()}
    files |= {column: _existing(folder / file) for column, file in OTHER_FILES.items()}
    if files["fixed"] is None and files["moving"] is None:
        return None
    needed: dict[str, Path] = {}
    for column in PAIR_COLUMNS.files:
        path = files[column]
        if path is None:
            raise ManifestError(f"{excerpt(folder, 200)}: holds no {NAMES[column]}.nii.gz: expected {LAYOUT}")
        needed[column] = path
    scans = (needed["fixed"], needed["moving"], needed["fixed_mask"])
    return ScanPair(name, patient, "", *scans, files["moving_mask"], files["reference"], files["landmarks"])


def _image(folder: Path, stem: str) -> Path | None:
    found = [folder / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES if (folder / f"{stem}{suffix}").exists()]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ManifestError(f"{excerpt(folder, 200)}: holds {names}: which of them? Keep one")
    return _existing(found[0]) if found else None


def _existing(path: Path) -> Path | None:
    if not os.path.lexists(path):
        return None
    check_regular_file(path, ManifestError)
    return path


def _folders(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(found) > MOST_FOLDERS:
        raise ManifestError(f"{excerpt(folder, 200)}: holds {len(found)} folders: expected {LAYOUT}")
    return found
