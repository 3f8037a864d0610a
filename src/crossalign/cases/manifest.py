"""The manifest: a CSV file that says which scans belong together.

| column | needed | what |
|---|---|---|
| case | yes | name of the pair, unique |
| split | yes | `train`, `val` or `test` |
| fixed, moving | yes | image files (MR and ultrasound, say) |
| fixed_mask | yes | the gland in the fixed image, a label map on the fixed grid |
| reference | yes | ITK transform file, fixed points to moving points: the truth |
| patient | no | who it is; the case's own name where it is absent. A patient may be in one split only |
| moving_mask | no | the gland in the moving image |
| landmarks | no | CSV: name, then x, y, z in the fixed and x, y, z in the moving image, LPS mm |

Paths are absolute or relative to the manifest's folder. Rows and columns are named in every error; the header is row 1.
"""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossalign.errors import ManifestError

NEEDED = ("case", "split", "fixed", "moving", "fixed_mask", "reference")
OPTIONAL = ("patient", "moving_mask", "landmarks")
FILES = ("fixed", "moving", "fixed_mask", "reference", "moving_mask", "landmarks")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Case:
    """One row of a manifest; every path exists when it was read."""

    name: str
    patient: str
    split: str
    fixed: Path
    moving: Path
    fixed_mask: Path
    reference: Path
    moving_mask: Path | None = None
    landmarks: Path | None = None


def read_manifest(path: str | os.PathLike[str]) -> tuple[Case, ...]:
    """Read and check a manifest, in the order of its rows; raises ManifestError naming row and column."""
    path = Path(path)
    rows = read_rows(path)
    if not rows:
        raise ManifestError(f"{path.name}: is empty, expected a header with the columns {', '.join(NEEDED)}")
    _, header = rows[0]
    _check_columns(path.name, header)
    cases = {number: _case(path, number, header, values) for number, values in rows[1:]}
    if not cases:
        raise ManifestError(f"{path.name}: holds no cases, only a header")
    _check_across_rows(path.name, cases)
    return tuple(cases.values())


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read a CSV file's rows that are not blank, each with its number (from 1, blank ones counted), cells stripped."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except FileNotFoundError as error:
        raise ManifestError(f"{path}: no such file") from error
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(f"{path.name}: not a CSV file in UTF-8: {error}") from error
    return [(number, row) for number, row in enumerate(table, start=1) if any(row)]


def in_split(cases: tuple[Case, ...], split: str) -> tuple[Case, ...]:
    """Pick one split; raises ManifestError where it has no case."""
    picked = tuple(case for case in cases if case.split == split)
    if not picked:
        raise ManifestError(f"the manifest has no case with split '{split}', only {sorted({c.split for c in cases})}")
    return picked


def _check_columns(name: str, header: list[str]) -> None:
    expected = f"expected {', '.join(NEEDED)} and optionally {', '.join(OPTIONAL)}, separated by commas"
    for column in NEEDED:
        if column not in header:
            raise ManifestError(f"{name}, row 1: column '{column}' is missing; {expected}")
    for column in header:
        if column not in NEEDED + OPTIONAL:
            raise ManifestError(f"{name}, row 1: unknown column '{column}'; {expected}")
        if header.count(column) > 1:
            raise ManifestError(f"{name}, row 1: column '{column}' stands there twice")


def _case(manifest: Path, number: int, header: list[str], row: list[str]) -> Case:
    where = f"{manifest.name}, row {number}"
    if len(row) > len(header):
        raise ManifestError(
            f"{where}, column {len(header) + 1}: {len(row)} values, but the header has {len(header)} columns"
        )
    values = dict(zip(header, row + [""] * (len(header) - len(row)), strict=True))
    for column in NEEDED:
        if not values[column]:
            raise ManifestError(f"{where}, column '{column}': is empty")
    if values["split"] not in SPLITS:
        raise ManifestError(f"{where}, column 'split': got '{values['split']}', expected one of {', '.join(SPLITS)}")
    paths = {column: _file(manifest, where, column, values[column]) for column in FILES if values.get(column)}
    return Case(
        name=values["case"],
        patient=values.get("patient") or values["case"],
        split=values["split"],
        fixed=paths["fixed"],
        moving=paths["moving"],
        fixed_mask=paths["fixed_mask"],
        reference=paths["reference"],
        moving_mask=paths.get("moving_mask"),
        landmarks=paths.get("landmarks"),
    )


def _file(manifest: Path, where: str, column: str, value: str) -> Path:
    path = manifest.parent / value
    try:
        found = path.is_file()
    except OSError:  # a name that is too long
        found = False
    if not found:
        raise ManifestError(f"{where}, column '{column}': no such file: {value}")
    return path


def _check_across_rows(name: str, cases: Mapping[int, Case]) -> None:
    seen: dict[str, int] = {}
    split_of: dict[str, str] = {}
    for number, case in cases.items():
        first = seen.setdefault(case.name, number)
        if first != number:
            raise ManifestError(f"{name}, row {number}, column 'case': '{case.name}' stands in row {first} already")
        if split_of.setdefault(case.patient, case.split) != case.split:
            raise ManifestError(
                f"{name}, row {number}, column 'split': patient '{case.patient}' is in '{split_of[case.patient]}' and "
                f"'{case.split}': keep each patient in one split"
            )
