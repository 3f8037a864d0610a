"""Points files, recognised by their content.

CSV has a header and the columns x, y, z (LPS, mm), and optionally `name` and `frame`. `frame` says whose points they
are, `fixed` or `moving`; mapping turns one into the other and refuses the wrong one. Those of 3D Slicer (`.fcsv`,
`.mrk.json`) are read by the frame, RAS or LPS, that they state. Written is CSV.
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from crossalign.cells import plain_cell, spreadsheet_cell
from crossalign.errors import InputError
from crossalign.images.slicer_points import NamedPoint, is_fcsv, parse_fcsv, parse_markups
from crossalign.input import check_regular_file, finite_number, parse_table, read_text, shown
from crossalign.output import whole_file
from crossalign.types import Points

AXES = ("x", "y", "z")
COLUMNS = ("name", *AXES, "frame")
FRAMES = ("fixed", "moving")
SUFFIXES = (".csv", ".fcsv", ".json")
IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_STARTS = (b"NRRD", b"ObjectType", b"NDims", b"# vtk")
START_BYTES = 4096
READ = "points are read from .csv (columns x, y, z: LPS, mm) and from .fcsv and .mrk.json of 3D Slicer"


@dataclass(frozen=True, eq=False)
class PointsFile:
    """Named points (n, 3), float64, LPS mm, and the image whose space they lie in: fixed, moving, or unsaid ("")."""

    names: tuple[str, ...]
    points_mm: Points
    frame: str = ""


def is_points_file(path: str | os.PathLike[str]) -> bool:
    """Say whether `read_points` is to read a file, rather than `read_image`: it is named as points are, or is text.

    False for what cannot be read: the reader of images says why.
    """
    name = Path(path).name.lower()
    if name.endswith(SUFFIXES):
        return True
    try:
        check_regular_file(path)
        with Path(path).open("rb") as file:
            start = file.read(START_BYTES)
    except (OSError, InputError):
        return False
    if b"\0" in start or start.startswith(IMAGE_STARTS):
        return False
    text = start.decode("utf-8-sig", errors="ignore")
    if is_fcsv(text) or set(AXES) <= set(_header(text.partition("\n")[0].split(","))):
        return True
    mostly_text = len(text.encode()) >= len(start) - 6  # a byte order mark and a character cut off at the end
    return mostly_text and not name.endswith(IMAGE_SUFFIXES)


def read_points(path: str | os.PathLike[str]) -> PointsFile:
    """Read a points file of any kind; raises InputError naming the row and the column (a CSV's header is row 1)."""
    name = shown(Path(path).name)
    text = read_text(path)
    if is_fcsv(text):
        return _points_file(name, parse_fcsv(text, name))
    if text.lstrip().startswith(("{", "[")):
        return _points_file(name, parse_markups(text, name))
    return _parse_csv(text, name)


def write_points(points: PointsFile, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a points file, to a tenth of a micrometre; it appears whole or not at all. Raises OutputError."""
    header = [*COLUMNS] if points.frame else [*COLUMNS[:-1]]
    tail = [points.frame] if points.frame else []
    with whole_file(path, overwrite) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for name, row in zip(points.names, points.points_mm.tolist(), strict=True):
            writer.writerow([spreadsheet_cell(name), *(f"{value:.4f}" for value in row), *tail])


def _points_file(name: str, points: list[NamedPoint], frame: str = "") -> PointsFile:
    if not points:
        raise InputError(f"{name}: holds no points, only a header")
    names = tuple(point.name or f"point{number}" for number, point in enumerate(points, start=1))
    return PointsFile(names, torch.tensor([point.point_mm for point in points], dtype=torch.float64), frame)


def _parse_csv(text: str, name: str) -> PointsFile:
    rows = parse_table(text, name)
    while rows and not rows[-1]:
        rows.pop()
    header = _header(rows[0] if rows else [])
    _check_header(name, header)
    records = [_record(name, number, header, row) for number, row in enumerate(rows[1:], start=2)]
    points = [
        NamedPoint(plain_cell(record.get("name", "")), tuple(_number(name, row, axis, record[axis]) for axis in AXES))
        for row, record in enumerate(records, start=2)
    ]
    return _points_file(name, points, _frame(name, records))


def _header(row: list[str]) -> list[str]:
    return [cell.strip().lower() for cell in row]


def _check_header(name: str, header: list[str]) -> None:
    unknown = [column for column in header if column not in COLUMNS]
    if not unknown and len(set(header)) == len(header) and set(AXES) <= set(header):
        return
    got = shown(", ".join(header)) or "nothing"
    advice = READ
    if len(header) == 1 and {"x", "y", "z"} <= set(_header(header[0].replace("\t", ";").split(";"))):
        advice = "save it with commas between the columns and points in the numbers"
    raise InputError(
        f"{name}, row 1: expected the columns x, y, z (LPS mm) and optionally name and frame, got {got}: {advice}"
    )


def _record(name: str, number: int, header: list[str], row: list[str]) -> dict[str, str]:
    if len(row) != len(header):
        advice = ": write numbers with a point, as in 1.5" if len(row) == len(header) + len(AXES) else ""
        raise InputError(
            f"{name}, row {number}: {len(row)} values, expected {len(header)} ({', '.join(header)}){advice}"
        )
    return dict(zip(header, (cell.strip() for cell in row), strict=True))


def _number(name: str, number: int, column: str, text: str) -> float:
    value = finite_number(text)
    if value is None:
        raise InputError(
            f"{name}, row {number}, column '{column}': got '{shown(text, 40)}', expected a finite number (mm)"
        )
    return value


def _frame(name: str, records: list[dict[str, str]]) -> str:
    frames = {record.get("frame", "") for record in records}
    if len(frames) > 1 or not frames <= {"", *FRAMES}:
        got = shown(", ".join(repr(frame) for frame in sorted(frames)))
        raise InputError(f"{name}, column 'frame': expected 'fixed' or 'moving', the same in each row, got {got}")
    return frames.pop() if frames else ""
