"""The record of a run: a CSV file and a TensorBoard log."""

import csv
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

COLUMNS = ("step", "loss", "rate", "seconds", "val_sre_mm", "samples_per_second")


class History:
    """Rows of a run in `history.csv` and in the folder `tensorboard`; rows after `step` of an interrupted run are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / "history.csv"
        kept = [row for row in read_history(self._path) if row["step"] <= step] if step else []
        self._file = self._path.open("w", newline="", encoding="utf-8")
        self._csv = csv.DictWriter(self._file, COLUMNS)
        self._csv.writeheader()
        self._csv.writerows(kept)
        self._file.flush()
        self._log = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write(self, row: dict[str, float]) -> None:
        """Add one row."""
        self._csv.writerow({name: f"{value:.6g}" for name, value in row.items()})
        self._file.flush()
        for name in COLUMNS[1:]:
            self._log.add_scalar(name, row[name], int(row["step"]))

    def __enter__(self) -> "History":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._log.close()


def read_history(path: Path) -> list[dict[str, float]]:
    """Read a run's `history.csv`; an absent file has no rows."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
