"""Tables of registrations whose answer is known: true errors, and what a method knew of them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crossalign.cells import plain_cell
from crossalign.errors import InputError
from crossalign.evaluation.statistics import Values
from crossalign.input import excerpt, finite_number, read_table

FEWEST_REGISTRATIONS = 10
ERROR_COLUMNS = ("sre_mm", "dispersion_mm", "network_sre_mm")
EVIDENCE_PREFIX = "evidence_"  # of the columns of the table that hold evidence
ADVISED_TABLE = "give the table that `crossalign evaluate -o` wrote"


@dataclass(frozen=True, eq=False)
class ErrorEstimates:
    """True SRE and what a method expected of it, a value for each registration, mm; a column that is absent is None.

    `evidence` is what the method judged itself by, NaN where a registration lacks a piece. `patients` says whose each
    registration is (empty: all of different ones). `failure` marks those that were made to fail and should not be
    trusted (None: none was). `weight` is how much each counts in a fit beside others of its kind (None: all alike).
    """

    sre_mm: Values
    dispersion_mm: Values | None
    network_mm: Values | None
    evidence: Mapping[str, Values] = field(default_factory=dict)
    patients: tuple[str, ...] = ()
    failure: npt.NDArray[np.bool_] | None = None
    weight: Values | None = None

    def ordinary(self) -> npt.NDArray[np.bool_]:
        """Return which registrations (n,) are no failures that were made."""
        return np.ones(len(self.sre_mm), dtype=np.bool_) if self.failure is None else ~self.failure

    def evidence_of(self, index: int) -> dict[str, float]:
        """Return the evidence of one registration, as far as there is any."""
        values = {name: float(column[index]) for name, column in self.evidence.items()}
        return {name: value for name, value in values.items() if not math.isnan(value)}

    def part(self, selected: npt.NDArray[np.bool_]) -> ErrorEstimates:
        """Return some of the registrations; `selected` is (n,)."""
        return replace(
            self,
            sre_mm=self.sre_mm[selected],
            dispersion_mm=None if self.dispersion_mm is None else self.dispersion_mm[selected],
            network_mm=None if self.network_mm is None else self.network_mm[selected],
            evidence={name: values[selected] for name, values in self.evidence.items()},
            patients=tuple(name for name, used in zip(self.patients, selected, strict=False) if used),
            failure=None if self.failure is None else self.failure[selected],
            weight=None if self.weight is None else self.weight[selected],
        )

    def __post_init__(self) -> None:
        if self.dispersion_mm is None and self.network_mm is None:
            raise InputError(
                "these registrations say nothing of their own error: run them from several initialisations, or with a "
                "network that expects its own error"
            )


def read_error_estimates(path: str | os.PathLike[str], method: str | None = None) -> ErrorEstimates:
    """Read the table of `crossalign evaluate`; rows that failed do not count. Raises InputError.

    `method` chooses one where the table has several.
    """
    name = excerpt(Path(path).name)
    records = _records(path, name)
    names = sorted({record["method"] for _, record in records})
    if method is None and len(names) > 1:
        several = excerpt(", ".join(names), 200)
        raise InputError(f"{name}: holds several methods, choose one with --method: {several}")
    selected = [(number, record) for number, record in records if record["method"] == (method or names[0])]
    if not selected:
        known = excerpt(", ".join(names), 200)
        raise InputError(f"{name}: no method is called '{excerpt(method)}': there are {known}")
    sre, dispersion, network = (_column(selected, column, name) for column in ERROR_COLUMNS)
    if sre is None:
        raise InputError(f"{name}: the column sre_mm has empty cells: {ADVISED_TABLE}")
    patients = tuple(record.get("patient", "") for _, record in selected)
    whose = patients if all(patients) else ()
    check_count(sre)
    return ErrorEstimates(sre, dispersion, network, _evidence(selected, name), whose, _failure(selected))


def check_count(errors_mm: Values) -> None:
    """Raise InputError where these are too few to fit to."""
    if len(errors_mm) < FEWEST_REGISTRATIONS:
        raise InputError(f"a calibration needs {FEWEST_REGISTRATIONS} registrations or more, got {len(errors_mm)}")


def _records(path: str | os.PathLike[str], name: str) -> list[tuple[int, dict[str, str]]]:
    """Read the registrations that did not fail, each with the number of its row (the header is row 1)."""
    rows = [(number, row) for number, row in enumerate(read_table(path), start=1) if any(row)]
    header = rows[0][1] if rows else []
    if not {"method", *ERROR_COLUMNS} <= set(header) or len(rows) == 1:
        raise InputError(f"{name}: no registrations in it: {ADVISED_TABLE}")
    if len(set(header)) != len(header):
        raise InputError(f"{name}, row 1: a column stands there twice: {ADVISED_TABLE}")
    for number, row in rows:
        if len(row) != len(header):
            raise InputError(f"{name}, row {number}: {len(row)} values, expected {len(header)}: {ADVISED_TABLE}")
    cells = ((number, dict(zip(header, map(plain_cell, row), strict=True))) for number, row in rows[1:])
    found = [(number, record) for number, record in cells if not record.get("error")]
    if not found:
        raise InputError(f"{name}: no registrations in it: every one failed")
    return found


def _column(records: Sequence[tuple[int, dict[str, str]]], column: str, name: str) -> Values | None:
    cells = [(number, record[column]) for number, record in records]
    filled = [bool(cell) for _, cell in cells]
    if not all(filled):
        if any(filled):
            raise InputError(f"{name}: the column {column} is filled in some rows and empty in others")
        return None
    return np.array([_number(f"{name}, row {number}, column '{column}'", cell) for number, cell in cells])


def _evidence(records: Sequence[tuple[int, dict[str, str]]], name: str) -> dict[str, Values]:
    """Read the columns of evidence; NaN for empty cells, and no column where all of them are."""
    columns = [column for column in records[0][1] if column.startswith(EVIDENCE_PREFIX)]
    found = {}
    for column in columns:
        cells = [(number, record[column]) for number, record in records]
        if any(cell for _, cell in cells):
            where = f"{name}, column '{column}', row"
            values = [_number(f"{where} {number}", cell) if cell else math.nan for number, cell in cells]
            found[column.removeprefix(EVIDENCE_PREFIX)] = np.array(values, dtype=np.float64)
    return found


def _failure(records: Sequence[tuple[int, dict[str, str]]]) -> npt.NDArray[np.bool_] | None:
    """Read which registrations were made to fail, where the table says so (column should_be_trusted, 1 or 0)."""
    cells = [record.get("should_be_trusted") for _, record in records]
    return None if None in cells else np.array([cell == "0" for cell in cells], dtype=np.bool_)


def _number(where: str, cell: str) -> float:
    value = finite_number(cell)
    if value is None:
        raise InputError(f"{where}: got '{excerpt(cell, 40)}', expected a finite number (mm)")
    return value
