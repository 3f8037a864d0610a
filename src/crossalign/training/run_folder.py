"""The folder of a run: what may be written into it, whose run it holds, and the history of the run."""

import csv
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from crossalign.errors import InputError, InputWarning, OutputError
from crossalign.extras import optional_module
from crossalign.input import excerpt, finite_number, read_json, read_table
from crossalign.output import PARTIAL, reason, whole_file
from crossalign.training.data_record import changes, todays_record

SETTINGS, HISTORY, LOG = "settings.json", "history.csv", "tensorboard"
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
DATA = "data"  # the entry of settings.json that says what was trained on
LEFT = (PARTIAL, ".partial-")  # how names begin that a killed process leaves behind
RUN = {"steps", "batch", "seed"}  # settings that every run has


def tensorboard_module() -> Any:
    """Import the writer of TensorBoard's logs; raises InputError where TensorBoard is not installed."""
    return optional_module("torch.utils.tensorboard", "training needs tensorboard for its log", "train")


def check_run_folder(folder: Path) -> None:
    """Raise OutputError where a run can neither begin nor go on in a folder.

    A folder is fit that does not exist yet, is empty, holds a run, or holds no more than what a run leaves that was
    killed before its first file was whole.
    """
    if "\0" in str(folder):
        raise OutputError(f"{excerpt(folder, 200)}: the name holds a NUL character: name another folder")
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file, expected a folder for the run")
        if not folder.absolute().parent.is_dir():
            raise OutputError(f"{folder}: {folder.parent} is not a folder that exists: make it first")
        existing = folder if folder.is_dir() else folder.absolute().parent
        if not os.access(existing, os.W_OK | os.X_OK):
            raise OutputError(f"{folder}: {existing} cannot be written to: name another folder")
        if folder.is_dir() and not any((folder / name).is_file() for name in (SETTINGS, LAST, PREVIOUS)):
            _check_contents(folder)
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # a name that is too long or holds a NUL, a folder that is locked
        raise OutputError(f"{excerpt(folder, 200)}: cannot be used for a run: {reason(error)}") from error


def _check_contents(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        log = path.name == LOG and path.is_dir() and all("tfevents" in entry.name for entry in path.iterdir())
        if not log and not path.name.startswith(LEFT):
            raise OutputError(f"{folder}: holds other files than a run ('{excerpt(path.name)}'): name a new folder")


def check_saved_settings(
    folder: Path,
    settings: Mapping[str, object],
    begun: bool,
    renamed: Callable[[Mapping[str, object]], Mapping[str, object]],
) -> None:
    """Raise InputError where settings.json is damaged, not a run's, or (of one that has `begun`) not these settings.

    `renamed` gives settings that an earlier version saved today's names.
    """
    path = folder / SETTINGS
    if not os.path.lexists(path):
        return
    way_out = "delete it: it is written again from the checkpoint" if begun else "move it away, or name another folder"
    try:
        saved = read_json(path)
    except InputError as error:
        raise InputError(f"{error}: {way_out}") from error
    if not isinstance(saved, dict) or not set(saved) >= RUN:
        raise InputError(f"{path}: does not hold the settings of a run ({', '.join(sorted(RUN))}, ...): {way_out}")
    saved.pop(DATA, None)
    changed = changes(renamed(saved), settings)
    if begun and changed:
        raise InputError(
            f"{path}: is not what the run was begun with ({'; '.join(changed)}): put it back, or {way_out}"
        )


def check_same_run(
    folder: Path,
    saved: tuple[Mapping[str, object], Mapping[str, object] | None],
    now: tuple[Mapping[str, object], Mapping[str, object]],
) -> None:
    """Compare a run's settings and data with those at hand; raises OutputError that names what differs.

    Warns where an earlier version began the run, which did not record the data or whose crops were not those of today.
    """
    if changed := changes(saved[0], now[0]):
        raise OutputError(
            f"{folder}: holds a run with other settings: name another folder, or give those that it was begun with "
            f"({'; '.join(changed)})"
        )
    data = dict(now[1]) if saved[1] is None else todays_record(saved[1])
    if saved[1] is None:
        _warn_of_earlier(folder, "which did not record the data: that it is the same is not checked")
    elif "preparation" in now[1] and "preparation" not in data:
        _warn_of_earlier(folder, "whose crops were resampled once more than today's: it goes on with today's")
        data["preparation"] = now[1]["preparation"]
    if changed := changes(data, now[1]):
        raise OutputError(
            f"{folder}: holds a run on other data: name another folder, or put the data back ({'; '.join(changed)})"
        )


def _warn_of_earlier(folder: Path, text: str) -> None:
    warnings.warn(f"{folder}: was begun by an earlier version, {text}", InputWarning, stacklevel=2)


def settings_text(settings: Mapping[str, object], data: Mapping[str, object]) -> str:
    """Write what settings.json holds."""
    return json.dumps({**settings, DATA: data}, indent=2) + "\n"


def discard_new_folder(folder: Path) -> None:
    """Remove a folder that a run made and did nothing in; what is not the run's stays."""
    for path in (folder / SETTINGS, folder / HISTORY, *sorted((folder / LOG).glob("*tfevents*"))):
        path.unlink(missing_ok=True)
    for made in (folder / LOG, folder):
        if made.is_dir() and not any(made.iterdir()):
            made.rmdir()


COLUMNS = ("step", "loss", "rate", "seconds", "val_sre_mm", "samples_per_second")
MEASURE = "val_sre_mm"
WAY_OUT = "delete or repair it: the run goes on from its checkpoint, only the record of what was before is lost"


class History:
    """Rows of a run in `history.csv` and in `tensorboard`; those after `step` of an interrupted run are dropped.

    Raises InputError where the rows up to there cannot be read, OutputError where nothing can be written.
    """

    def __init__(self, folder: Path, step: int, measure: str = MEASURE) -> None:
        self._columns = tuple(measure if name == MEASURE else name for name in COLUMNS)
        self._path = folder / HISTORY
        earlier = [row for row in read_history(self._path, self._columns) if row["step"] <= step] if step else []
        with whole_file(self._path, overwrite=True) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(map(_text, earlier))
        try:
            self._log = tensorboard_module().SummaryWriter(str(folder / LOG), purge_step=step + 1 if step else 0)
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
        raise InputError(f"{path}: has the columns {excerpt(', '.join(header))}, expected {expected}: {WAY_OUT}")
    read: list[dict[str, float]] = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        values = _values(row, read[-1]["step"] if read else -1.0)
        if values is not None:
            read.append(dict(zip(header, values, strict=True)))
        elif number < len(rows):
            raise InputError(f"{path}, row {number}: is '{excerpt(','.join(row))}', not what a run writes: {WAY_OUT}")
    return read


def _values(row: list[str], before: float) -> list[float] | None:
    """Return a row's numbers: all there, finite, of a later step than the row before; else None."""
    values = [value for value in map(finite_number, row) if value is not None]
    if len(row) != len(COLUMNS) or len(values) != len(row):
        return None
    return values if values[0] > before and values[0].is_integer() else None


def _text(row: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.0f}" if name == "step" else f"{value:.6g}" for name, value in row.items()}
