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
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(f"{path.name}: not a CSV file in UTF-8: {error}") from error
    _check_columns(path.name, columns)
    cases = tuple(_case(path, number, row) for number, row in enumerate(rows, start=2))
    if not cases:
        raise ManifestError(f"{path.name}: holds no cases, only a header")
    _check_across_rows(path.name, cases)
    return cases


def in_split(cases: tuple[Case, ...], split: str) -> tuple[Case, ...]:
    """Pick one split; raises ManifestError where it has no case."""
    picked = tuple(case for case in cases if case.split == split)
    if not picked:
        raise ManifestError(f"the manifest has no case with split '{split}', only {sorted({c.split for c in cases})}")
    return picked


def _check_columns(name: str, columns: object) -> None:
    present = list(columns) if isinstance(columns, list | tuple) else []
    missing = [column for column in NEEDED if column not in present]
    if missing:
        raise ManifestError(f"{name}, row 1: column '{missing[0]}' is missing; expected {', '.join(NEEDED)} and optionally {', '.join(OPTIONAL)}")
    unknown = [column for column in present if column not in NEEDED + OPTIONAL]
    if unknown:
        raise ManifestError(f"{name}, row 1: unknown column '{unknown[0]}'; expected {', '.join(NEEDED + OPTIONAL)}")


def _case(manifest: Path, number: int, row: dict[str | None, str | None]) -> Case:
    where = f"{manifest.name}, row {number}"
    if None in row:
        raise ManifestError(f"{where}: more values than the header has columns")
    values = {str(key): (value or "").strip() for key, value in row.items()}
    for column in NEEDED:
        if not values[column]:
            raise ManifestError(f"{where}, column '{column}': is empty")
    if values["split"] not in SPLITS:
        raise ManifestError(f"{where}, column 'split': got '{values['split']}', expected one of {', '.join(SPLITS)}")
    paths: dict[str, Path] = {}
    for column in FILES:
        if values.get(column):
            paths[column] = manifest.parent / values[column]
            if not paths[column].is_file():
                raise ManifestError(f"{where}, column '{column}': no such file: {values[column]}")
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


def _check_across_rows(name: str, cases: tuple[Case, ...]) -> None:
    seen: dict[str, int] = {}
    split_of: dict[str, str] = {}
    for number, case in enumerate(cases, start=2):
        if case.name in seen:
            raise ManifestError(f"{name}, row {number}, column 'case': '{case.name}' stands in row {seen[case.name]} already")
        seen[case.name] = number
        if split_of.setdefault(case.patient, case.split) != case.split:
            raise ManifestError(
                f"{name}, row {number}, column 'split': patient '{case.patient}' is in '{split_of[case.patient]}' and "
                f"'{case.split}': keep each patient in one split"
            )
