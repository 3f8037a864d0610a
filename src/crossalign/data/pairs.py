"""Pairs to register, without truth: a CSV file that says which scans belong together.

| column | needed | what |
|---|---|---|
| case | yes | name of the pair, unique; it names a folder |
| fixed, moving | yes | image files, or folders of DICOM series |
| fixed_mask, moving_mask | no | the structure in the space of either image |
| initial | no | transform file to begin with, fixed points to moving points |
| fixed_landmarks, moving_landmarks | no | corresponding landmarks, to begin with |

The columns of a manifest with truth (`data.manifest`: split, patient, reference, landmarks) may be there and are not
used. Paths are absolute or relative to the manifest's folder.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from crossalign.data.manifest import Columns, read_cases
from crossalign.errors import ManifestError
from crossalign.input import excerpt

FILES = ("fixed", "moving", "fixed_mask", "moving_mask", "initial", "fixed_landmarks", "moving_landmarks")
COLUMNS = Columns(FILES[:2], (*FILES[2:], "reference", "landmarks"), None, names_folders=True)


@dataclass(frozen=True)
class PairFiles:
    """The files of one pair; every path existed when it was read."""

    name: str
    fixed: Path
    moving: Path
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    initial: Path | None = None
    fixed_landmarks: Path | None = None
    moving_landmarks: Path | None = None


def read_pairs(path: str | os.PathLike[str]) -> tuple[PairFiles, ...]:
    """Read and check the pairs of a manifest, in the order of its rows. Raises ManifestError naming row and column."""
    found = []
    for row in read_cases(Path(path), COLUMNS):
        files = {part: row[part] for part in FILES}
        if (files["fixed_landmarks"] is None) != (files["moving_landmarks"] is None):
            raise ManifestError(
                f"{excerpt(Path(path).name)}, case '{excerpt(row['name'])}': landmarks are in one image only: give "
                "both of fixed_landmarks and moving_landmarks, or neither"
            )
        found.append(PairFiles(row["name"], **files))
    return tuple(found)
