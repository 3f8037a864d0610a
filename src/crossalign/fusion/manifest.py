"""The manifest of fusion: a CSV file that says which MRI and PET belong together.

| column | needed | what |
|---|---|---|
| case | yes | name of the pair, unique |
| mri, pet | yes | image files, absolute or relative to the manifest's folder; the structural and the functional scan |
| split | no | `train`, `val` or `test`; `test` where it is absent |
| patient | no | who it is; the case's own name where it is absent. A patient may be in one split only |

Rows and columns are named in every error; the header is row 1.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from crossalign.data.manifest import SPLITS, read_rows
from crossalign.errors import ManifestError

NEEDED = ("case", "mri", "pet")
OPTIONAL = ("split", "patient")


@dataclass(frozen=True)
class FusionPair:
    """One row of a fusion manifest; both paths existed when it was read."""

    name: str
    mri: Path
    pet: Path
    split: str = "test"
    patient: str = ""


def read_fusion_manifest(path: str | os.PathLike[str]) -> tuple[FusionPair, ...]:
    """Read and check a manifest, in the order of its rows; raises ManifestError naming row and column."""
    path = Path(path)
    rows = read_rows(path)
    if len(rows) < 2:
        raise ManifestError(f"{path.name}: holds no cases: expected a header ({', '.join(NEEDED)}) and rows below it")
    header = rows[0][1]
    _check_columns(path.name, header)
    pairs = tuple(_pair(path, number, header, values) for number, values in rows[1:])
    _check_across_rows(path.name, pairs)
    return pairs


def _check_columns(name: str, header: list[str]) -> None:
    expected = f"expected {', '.join(NEEDED)} and optionally {', '.join(OPTIONAL)}, separated by commas"
    missing = [column for column in NEEDED if column not in header]
    unknown = [column for column in header if column not in NEEDED + OPTIONAL]
    if missing or unknown or len(set(header)) != len(header):
        raise ManifestError(f"{name}, row 1: {expected}, got {', '.join(header) or 'nothing'}")


def _pair(manifest: Path, number: int, header: list[str], row: list[str]) -> FusionPair:
    where = f"{manifest.name}, row {number}"
    if len(row) > len(header):
        raise ManifestError(f"{where}: {len(row)} values, but the header has {len(header)} columns")
    values = dict(zip(header, row + [""] * (len(header) - len(row)), strict=True))
    for column in NEEDED:
        if not values[column]:
            raise ManifestError(f"{where}, column '{column}': is empty")
    split = values.get("split") or "test"
    if split not in SPLITS:
        raise ManifestError(f"{where}, column 'split': got '{split}', expected one of {', '.join(SPLITS)}")
    mri, pet = (_file(manifest, where, column, values[column]) for column in ("mri", "pet"))
    return FusionPair(values["case"], mri, pet, split, values.get("patient") or values["case"])


def _file(manifest: Path, where: str, column: str, value: str) -> Path:
    path = manifest.parent / value
    if not path.is_file():
        raise ManifestError(f"{where}, column '{column}': {path} is not a file that exists")
    return path


def _check_across_rows(name: str, pairs: tuple[FusionPair, ...]) -> None:
    splits: dict[str, str] = {}
    names: set[str] = set()
    for pair in pairs:
        if pair.name in names:
            raise ManifestError(f"{name}, column 'case': '{pair.name}' stands there twice")
        names.add(pair.name)
        if splits.setdefault(pair.patient, pair.split) != pair.split:
            raise ManifestError(f"{name}, column 'patient': '{pair.patient}' is in two splits")
