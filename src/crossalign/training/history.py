"""The record of a run: a CSV file and a TensorBoard log."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from crossalign.errors import InputError, OutputError
from crossalign.input import finite_number, read_table, shown
from crossalign.output import reason, whole_file
from crossalign.training.run_folder import HISTORY, LOG

COLUMNS = ("step", "loss", "rate", "seconds", "val_sre_mm", "samples_per_second")
MEASURE = "val_sre_mm"
WAY_OUT = "delete it or mend it: the run goes on from its checkpoint, only the record of what was before is lost"


class History:
    """Rows of a run in `history.csv` and in `tensorboard`; those after `step` of an interrupted run are dropped.

    Raises InputError where the rows up to there cannot be read, OutputError where nothing can be written.
    """

    def __init__(self, folder: Path, step: int, measure: str = MEASURE) -> None:
        self._columns = tuple(measure if name == MEASURE else name for name in COLUMNS)
        self._path = folder / HISTORY
        kept = [row for row in read_history(self._path, self._columns) if row["step"] <= step] if step else []
        with whole_file(self._path, overwrite=True) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(map(_text, kept))
        try:
            self._log = SummaryWriter(str(folder / LOG), purge_step=step + 1 if step else 0)
            self._file = self._path.open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{folder / LOG}: cannot be written: {reason(error)}") from error
        self._csv = csv.DictWriter(self._file, self._columns)

    def write(self, row: dict[str, float]) -> None:
        """Add one row; raises OutputError."""
        try:
            self._csv.writerow(_text(row))
            self._file.flush()
            for name in self._columns[1:]:
                self._log.add_scalar(name, row[name], int(row["step"]))
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {reason(error)}") from error

    def __enter__(self) -> "History":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._log.close()
            self._file.close()
        except OSError as failure:
            if error is None:
                raise OutputError(f"{self._path}: cannot be written: {reason(failure)}") from failure


def read_history(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Read a run's `history.csv`; an absent file has no rows, and a last row cut short by a kill is left out.

    Raises InputError where it has other `columns`, or a row that the run did not write.
    """
    if not os.path.lexists(path):
        return []
    try:
        rows = read_table(path)
    except InputError as error:
        raise InputError(f"{error}: {WAY_OUT}") from error
    if not rows:
        return []
    header = tuple(rows[0])
    if (columns is not None and header != tuple(columns)) or len(header) != len(COLUMNS) or header[0] != "step":
        expected = ", ".join(columns or COLUMNS)
        raise InputError(f"{path}: has the columns {shown(', '.join(header))}, expected {expected}: {WAY_OUT}")
    read: list[dict[str, float]] = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        values = _values(row, read[-1]["step"] if read else -1.0)
        if values is not None:
            read.append(dict(zip(header, values, strict=True)))
        elif number < len(rows):
            raise InputError(f"{path}, row {number}: is '{shown(','.join(row))}', not what a run writes: {WAY_OUT}")
    return read


def _values(row: list[str], before: float) -> list[float] | None:
    """Return a row's numbers: all there, finite, of a later step than the row before; else None."""
    values = [value for value in map(finite_number, row) if value is not None]
    if len(row) != len(COLUMNS) or len(values) != len(row):
        return None
    return values if values[0] > before and values[0].is_integer() else None


def _text(row: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.0f}" if name == "step" else f"{value:.6g}" for name, value in row.items()}
