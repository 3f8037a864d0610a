"""The record of a run: a CSV file and a TensorBoard log."""

import csv
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from crossalign.output import whole_file

COLUMNS = ("step", "loss", "rate", "seconds", "val_sre_mm", "samples_per_second")
MEASURE = "val_sre_mm"


class History:
    """Rows of a run in `history.csv` and in `tensorboard`; those after `step` of an interrupted run are dropped."""

    def __init__(self, folder: Path, step: int, measure: str = MEASURE) -> None:
        self._columns = tuple(measure if name == MEASURE else name for name in COLUMNS)
        path = folder / "history.csv"
        kept = [row for row in read_history(path) if row["step"] <= step] if step else []
        with whole_file(path, overwrite=True) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(map(_text, kept))
        self._file = path.open("a", newline="", encoding="utf-8")
        self._csv = csv.DictWriter(self._file, self._columns)
        self._log = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else 0)

    def write(self, row: dict[str, float]) -> None:
        """Add one row."""
        self._csv.writerow(_text(row))
        self._file.flush()
        for name in self._columns[1:]:
            self._log.add_scalar(name, row[name], int(row["step"]))

    def __enter__(self) -> "History":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._log.close()


def read_history(path: Path) -> list[dict[str, float]]:
    """Read a run's `history.csv`; an absent file has no rows, and a row cut short by a kill is left out."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if len(row) == len(COLUMNS) and all(row)]
    return [dict(zip(rows[0], map(float, row), strict=True)) for row in rows[1:]]


def _text(row: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.0f}" if name == "step" else f"{value:.6g}" for name, value in row.items()}
