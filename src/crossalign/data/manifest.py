"""The manifest: a CSV file that says which scans belong together.

| column | needed | what |
|---|---|---|
| case | yes | name of the pair, unique |
| split | yes | `train`, `val` or `test` |
| fixed, moving | yes | image files (MR and ultrasound, say), or folders of DICOM series |
| fixed_mask | yes | the structure in the fixed image's space, a label map or a DICOM file of one structure |
| reference | yes | ITK transform file, fixed points to moving points: the truth |
| patient | no | who it is; the case's own name where it is absent. A patient may be in one split only |
| moving_mask | no | the structure in the moving image |
| landmarks | no | CSV: name, then x, y, z in the fixed and x, y, z in the moving image, LPS mm |

Paths are absolute or relative to the manifest's folder. Rows and columns are named in every error; the header is row 1.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossalign.arguments import checked
from crossalign.errors import ManifestError
from crossalign.images.files.dicom.series import holds_dicom
from crossalign.input import check_regular_file, excerpt, read_table

SPLITS = ("train", "val", "test")
NO_FOLDER = re.compile(r"""[/\\:*?"<>|]|^[.\s-]|[.\s]$|^.{129,}$""")  # on some system, or an option, or hidden
CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")  # they would garble tables and terminals


@dataclass(frozen=True)
class Columns:
    """The columns of a manifest beside `case`, `patient` and `split`: files that each row names, and optional ones."""

    files: tuple[str, ...]
    optional_files: tuple[str, ...] = ()
    default_split: str | None = ""  # where it is empty, the column `split` is needed; None: a split may be left open
    names_folders: bool = False  # whether the cases' names become names of folders

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that a manifest must have."""
        return ("case", "split", *self.files) if self.default_split == "" else ("case", *self.files)

    @property
    def optional(self) -> tuple[str, ...]:
        """Columns that it may have."""
        split = () if self.default_split == "" else ("split",)
        return (*split, "patient", *self.optional_files)


SCANS = ("fixed", "moving", "fixed_mask", "moving_mask", "mri", "pet")
COLUMNS = Columns(("fixed", "moving", "fixed_mask", "reference"), ("moving_mask", "landmarks"))


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


@checked("path", "split")
def read_manifest(path: str | os.PathLike[str], split: str | None = None) -> tuple[Case, ...]:
    """Read and check a manifest, in the order of its rows: all of them, or one split.

    Raises ManifestError naming row and column, or where the split has no case.
    """
    cases = tuple(Case(**values) for values in read_cases(Path(path), COLUMNS))
    return cases if split is None else in_split(cases, split)


def read_cases(path: Path, columns: Columns) -> list[dict[str, Any]]:
    """Read and check a manifest with these columns: name, patient, split and files (None: not given) of each row.

    Raises ManifestError naming row and column.
    """
    name = excerpt(path.name)
    rows = read_rows(path)
    if not rows:
        raise ManifestError(f"{name}: is empty, expected a header with the columns {', '.join(columns.needed)}")
    _, header = rows[0]
    _check_columns(name, header, columns)
    files = _Files(path.parent)
    cases = {number: _case(files, f"{name}, row {number}", header, row, columns) for number, row in rows[1:]}
    if not cases:
        raise ManifestError(f"{name}: holds no cases, only a header")
    _check_across_rows(name, cases, columns.names_folders)
    return list(cases.values())


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read a CSV file's rows that are not blank, each with its number (from 1, blank ones counted), cells stripped.

    Raises ManifestError where the file is not CSV, or is too large.
    """
    table = [[cell.strip() for cell in row] for row in read_table(path, ManifestError)]
    return [(number, row) for number, row in enumerate(table, start=1) if any(row)]


def in_split(cases: tuple[Case, ...], split: str) -> tuple[Case, ...]:
    """Select one split; raises ManifestError where it has no case."""
    selected = tuple(case for case in cases if case.split == split)
    if not selected:
        raise ManifestError(
            f"the manifest has no case with split '{excerpt(split)}', only {sorted({c.split for c in cases})}"
        )
    return selected


def _check_columns(name: str, header: list[str], columns: Columns) -> None:
    needed, optional = columns.needed, columns.optional
    expected = f"expected {', '.join(needed)} and optionally {', '.join(optional)}, separated by commas"
    for column in needed:
        if column not in header:
            raise ManifestError(f"{name}, row 1: column '{column}' is missing; {expected}")
    for column in header:
        if column not in needed + optional:
            raise ManifestError(f"{name}, row 1: unknown column '{excerpt(column)}'; {expected}")
        if header.count(column) > 1:
            raise ManifestError(f"{name}, row 1: column '{column}' stands there twice")


class _Files:
    """The files that the cells of a manifest name; each is looked for once, however many rows name it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Path] = {}

    def find(self, value: str, where: str, column: str) -> Path:
        """Return the path of a regular file, or of a DICOM folder; raises ManifestError that begins with `where`."""
        if value not in self._known:
            self._known[value] = self._check(value, f"{where}, column '{column}'", column in SCANS)
        return self._known[value]

    def _check(self, value: str, where: str, may_be_folder: bool) -> Path:
        path = self._folder / value
        try:
            if path.is_file() and os.access(path, os.R_OK):  # quicker than the check below, which words an error
                return path
            if may_be_folder and path.is_dir() and holds_dicom(path):
                return path
        except OSError:  # a name that is too long
            pass
        try:
            check_regular_file(path, ManifestError)
        except ManifestError as error:
            missing = isinstance(error.__cause__, FileNotFoundError)
            reason = "no such file" if missing else str(error).removeprefix(f"{excerpt(path, 200)}: ")
            raise ManifestError(f"{where}: {reason}: {excerpt(value)}") from error
        return path


def _case(files: _Files, where: str, header: list[str], row: list[str], columns: Columns) -> dict[str, Any]:
    if len(row) > len(header):
        raise ManifestError(
            f"{where}, column {len(header) + 1}: {len(row)} values, but the header has {len(header)} columns"
        )
    values = dict(zip(header, row + [""] * (len(header) - len(row)), strict=True))
    for column in columns.needed:
        if not values[column]:
            raise ManifestError(f"{where}, column '{column}': is empty")
    values["split"] = values.get("split") or columns.default_split or ""
    _check_words(where, values, (*SPLITS, "") if columns.default_split is None else SPLITS)
    if columns.names_folders and NO_FOLDER.search(values["case"]):
        raise ManifestError(
            f"{where}, column 'case': '{excerpt(values['case'])}' cannot name a folder: use letters, digits, - and _, "
            "128 at most"
        )
    paths = {
        column: files.find(values[column], where, column) if values.get(column) else None
        for column in columns.files + columns.optional_files
    }
    patient = values.get("patient") or values["case"]
    return {"name": values["case"], "patient": patient, "split": values["split"], **paths}


def _check_words(where: str, values: Mapping[str, str], splits: tuple[str, ...]) -> None:
    if values["split"] not in splits:
        got = excerpt(values["split"])
        raise ManifestError(f"{where}, column 'split': got '{got}', expected one of {', '.join(SPLITS)}")
    for column in ("case", "patient"):
        if CONTROL.search(values.get(column, "")):
            got = excerpt(values[column])
            raise ManifestError(f"{where}, column '{column}': '{got}' holds a control character: rename it")


def _check_across_rows(name: str, cases: Mapping[int, Mapping[str, Any]], names_folders: bool) -> None:
    row_of: dict[str, int] = {}
    split_of: dict[str, str] = {}
    for number, case in cases.items():
        where, case_name = f"{name}, row {number}", case["name"]
        first = row_of.setdefault(case_name.casefold() if names_folders else case_name, number)
        if first != number:
            raise ManifestError(f"{where}, column 'case': '{excerpt(case_name)}' stands in row {first} already")
        patient, split = case["patient"], case["split"]
        before = split_of.setdefault(patient, split)
        if before != split:
            raise ManifestError(
                f"{where}, column 'split': patient '{excerpt(patient)}' is in '{before}' and '{split}': "
                "keep each patient in one split"
            )
