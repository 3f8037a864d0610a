"""Points files: CSV with a header and the columns x, y, z (LPS, mm), and optionally `name` and `frame`.

`frame` says whose points they are, `fixed` or `moving`; mapping turns one into the other and refuses the wrong one.
"""

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from crossalign.errors import InputError
from crossalign.output import whole_file
from crossalign.types import Points

AXES = ("x", "y", "z")
COLUMNS = ("name", *AXES, "frame")
FRAMES = ("fixed", "moving")


@dataclass(frozen=True, eq=False)
class PointsFile:
    """Named points (n, 3), float64, LPS mm, and the image whose space they lie in: fixed, moving, or unsaid ("")."""

    names: tuple[str, ...]
    points_mm: Points
    frame: str = ""


def read_points(path: str | os.PathLike[str]) -> PointsFile:
    """Read a points file; raises InputError naming the row and the column (the header is row 1)."""
    path = Path(path)
    rows = _rows(path)
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    unknown = [column for column in header if column not in COLUMNS]
    if unknown or len(set(header)) != len(header) or not set(AXES) <= set(header):
        raise InputError(
            f"{path.name}, row 1: expected the columns x, y, z (LPS mm) and optionally name and frame, "
            f"got {', '.join(header) or 'nothing'}"
        )
    records = [_record(path.name, number, header, row) for number, row in enumerate(rows[1:], start=2)]
    if not records:
        raise InputError(f"{path.name}: holds no points, only a header")
    numbers = [[_number(path.name, row, axis, record[axis]) for axis in AXES] for row, record in enumerate(records, 2)]
    names = tuple(record.get("name", "") or f"point{n}" for n, record in enumerate(records, start=1))
    return PointsFile(names, torch.tensor(numbers, dtype=torch.float64), _frame(path.name, records))


def write_points(points: PointsFile, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a points file, to a tenth of a micrometre; it appears whole or not at all. Raises OutputError."""
    header = [*COLUMNS] if points.frame else [*COLUMNS[:-1]]
    tail = [points.frame] if points.frame else []
    with whole_file(path, overwrite) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for name, row in zip(points.names, points.points_mm.tolist(), strict=True):
            writer.writerow([name, *(f"{value:.4f}" for value in row), *tail])


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}: not a CSV file in UTF-8: {error}") from error
    while rows and not rows[-1]:
        rows.pop()
    return rows


def _record(name: str, number: int, header: list[str], row: list[str]) -> dict[str, str]:
    if len(row) != len(header):
        raise InputError(f"{name}, row {number}: {len(row)} values, expected {len(header)} ({', '.join(header)})")
    return dict(zip(header, (cell.strip() for cell in row), strict=True))


def _number(name: str, number: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name}, row {number}, column '{column}': got '{text}', expected a finite number (mm)")
    return value


def _frame(name: str, records: list[dict[str, str]]) -> str:
    frames = {record.get("frame", "") for record in records}
    if len(frames) > 1 or not frames <= {"", *FRAMES}:
        got = ", ".join(repr(frame) for frame in sorted(frames))
        raise InputError(f"{name}, column 'frame': expected 'fixed' or 'moving', the same in each row, got {got}")
    return frames.pop()
