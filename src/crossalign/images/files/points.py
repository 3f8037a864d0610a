"""Points files, recognised by their content: CSV, and the `.fcsv` and `.mrk.json` files of 3D Slicer.

CSV has a header and the columns x, y, z (LPS, mm), and optionally `name`, `frame` and `weight` (of landmarks in a fit).
`frame` says whose points they are, `fixed` or `moving`; mapping turns one into the other and refuses the wrong one.
Those of 3D Slicer (`.fcsv`, `.mrk.json`) are read by the frame, RAS or LPS, that they state. Written is CSV.
"""

import csv
import io
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from crossalign.cells import plain_cell, spreadsheet_cell
from crossalign.errors import InputError, InputWarning
from crossalign.input import check_regular_file, excerpt, finite_number, parse_json, parse_table, read_text
from crossalign.output import whole_file
from crossalign.types import Points

FCSV_STARTS = ("# Markups fiducial file", "# Fiducial List file")
SIGNS = {"RAS": (-1.0, -1.0, 1.0), "0": (-1.0, -1.0, 1.0), "LPS": (1.0, 1.0, 1.0), "1": (1.0, 1.0, 1.0)}
FRAME_ADVICE = "expected LPS or RAS: save the points again in 3D Slicer"
MM_PER_UNIT = {"mm": 1.0, "um": 1e-3, "cm": 10.0, "m": 1000.0}
NOT_DEFINED = ("0", "1", "3")  # Slicer 5 adds a column to each .fcsv row, unnamed: 2 where the position is defined


class NamedPoint(NamedTuple):
    """A label and a position, LPS mm."""

    name: str
    point_mm: tuple[float, ...]


def is_fcsv(text: str) -> bool:
    """Say whether a text is a `.fcsv` file by its first line."""
    return text.lstrip().startswith(FCSV_STARTS)


def parse_fcsv(text: str, name: str) -> list[NamedPoint]:
    """Parse a `.fcsv` file; raises InputError naming the line (the first is 1)."""
    settings = _settings(text)
    signs = _signs(settings.get("coordinatesystem"), f"{name}: CoordinateSystem")
    columns = [column.strip().lower() for column in settings.get("columns", "").split(",")]
    if not {"x", "y", "z", "label"} <= set(columns) or len(set(columns)) != len(columns):
        raise InputError(f"{name}: expected a line '# columns = id,x,y,z,...,label,...': save the points again")
    points: list[NamedPoint] = []
    left_out = 0
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if not row or row[0].lstrip().startswith("#"):
                continue
            if len(row) > len(columns) and row[len(columns)].strip() in NOT_DEFINED:
                left_out += 1
            else:
                points.append(_row_point(f"{name}, line {reader.line_num}", columns, row, signs))
    except csv.Error as error:
        raise InputError(f"{name}: not a .fcsv file: {error}") from error
    _warn_left_out(name, left_out)
    return points


def parse_markups(text: str, name: str) -> list[NamedPoint]:
    """Parse a `.mrk.json` file: the points of its lists of type Fiducial, one list after another. Raises InputError."""
    content = parse_json(text, name)
    lists = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(lists, list) or not all(isinstance(one, dict) for one in lists):
        raise InputError(f"{name}: JSON without a list 'markups': not points of 3D Slicer (.mrk.json)")
    fiducials = [one for one in lists if one.get("type") == "Fiducial"]
    if not fiducials:
        kinds = ", ".join(excerpt(one.get("type"), 20) for one in lists[:5]) or "nothing"
        raise InputError(f"{name}: holds no list of points (type Fiducial), only {kinds}: save a point list")
    if len(fiducials) < len(lists):
        warnings.warn(
            f"{name}: {len(lists) - len(fiducials)} of {len(lists)} markups are not points and were left out",
            InputWarning,
            stacklevel=2,
        )
    if len(fiducials) > 1:
        warnings.warn(
            f"{name}: its {len(fiducials)} lists of points were read one after another", InputWarning, stacklevel=2
        )
    return [point for number, one in enumerate(fiducials, 1) for point in _list_points(f"{name}, list {number}", one)]


def _settings(text: str) -> dict[str, str]:
    """Read the lines `# key = value`, keys in lower case."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.lstrip("# \t").partition("=")
        if line.startswith("#") and equals:
            found.setdefault(key.strip().lower(), value.strip())
    return found


def _signs(frame: object, where: str) -> tuple[float, ...]:
    if not isinstance(frame, str) or frame.upper() not in SIGNS:
        got = "nothing" if frame is None else f"'{excerpt(frame, 40)}'"
        raise InputError(f"{where}: got {got}, {FRAME_ADVICE}")
    return SIGNS[frame.upper()]


def _row_point(where: str, columns: list[str], row: list[str], signs: tuple[float, ...]) -> NamedPoint:
    if len(row) <= max(columns.index(column) for column in ("x", "y", "z", "label")):  # those after it are not needed
        raise InputError(f"{where}: {len(row)} values, expected {len(columns)}: is the file cut off?")
    record = dict(zip(columns, row, strict=False))
    position = [_slicer_number(f"{where}, column '{axis}'", record[axis]) for axis in ("x", "y", "z")]
    return NamedPoint(record["label"].strip(), tuple(s * p for s, p in zip(signs, position, strict=True)))


def _slicer_number(where: str, text: str) -> float:
    value = finite_number(text)
    if value is None:
        raise InputError(f"{where}: got '{excerpt(text, 40)}', expected a finite number (mm)")
    return value


def _list_points(where: str, one: dict[str, Any]) -> list[NamedPoint]:
    signs = _signs(one.get("coordinateSystem"), f"{where}: coordinateSystem")
    scale = _mm_per_unit(where, one.get("coordinateUnits", "mm"))
    controls = one.get("controlPoints")
    if not isinstance(controls, list) or not all(isinstance(control, dict) for control in controls):
        raise InputError(f"{where}: expected a list 'controlPoints': save the points again in 3D Slicer")
    defined = [control for control in controls if control.get("positionStatus", "defined") == "defined"]
    _warn_left_out(where, len(controls) - len(defined))
    return [
        _control_point(f"{where}, point {number}", control, tuple(scale * sign for sign in signs))
        for number, control in enumerate(controls, 1)
        if control.get("positionStatus", "defined") == "defined"
    ]


def _mm_per_unit(where: str, units: object) -> float:
    each = units if isinstance(units, list) else [units]
    unit = each[0] if each else None
    if not isinstance(unit, str) or unit.strip("[] ") not in MM_PER_UNIT or each.count(unit) != len(each):
        known = ", ".join(MM_PER_UNIT)
        raise InputError(f"{where}: coordinateUnits: got '{excerpt(units, 40)}', expected one of {known} for all axes")
    return MM_PER_UNIT[unit.strip("[] ")]


def _control_point(where: str, control: dict[str, Any], factors: tuple[float, ...]) -> NamedPoint:
    position = control.get("position")
    if not isinstance(position, list) or len(position) != 3 or not all(_is_number(value) for value in position):
        raise InputError(f"{where}: position: got {excerpt(position, 60)}, expected three numbers")
    label = control.get("label", "")
    if not isinstance(label, str):
        raise InputError(f"{where}: label: got {excerpt(label, 60)}, expected text")
    return NamedPoint(label.strip(), tuple(f * float(value) for f, value in zip(factors, position, strict=True)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _warn_left_out(where: str, count: int) -> None:
    if count:
        warnings.warn(
            f"{where}: {count} points whose position is not defined were left out", InputWarning, stacklevel=3
        )


AXES = ("x", "y", "z")
COLUMNS = ("name", *AXES, "frame")
WEIGHT = "weight"
FRAMES = ("fixed", "moving")
SUFFIXES = (".csv", ".fcsv", ".json")
IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_STARTS = (b"NRRD", b"ObjectType", b"NDims", b"# vtk")
START_BYTES = 4096
READ = "points are read from .csv (columns x, y, z: LPS, mm) and from .fcsv and .mrk.json of 3D Slicer"


@dataclass(frozen=True, eq=False)
class PointsFile:
    """Named points (n, 3), float64, LPS mm, and the image whose space they lie in: fixed, moving, or unsaid ("").

    `weight` has a number for each point, or none where the file has no weights.
    """

    names: tuple[str, ...]
    points_mm: Points
    frame: str = ""
    weight: tuple[float, ...] = ()


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
    name = excerpt(Path(path).name)
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
    weighted = [(row, one[WEIGHT]) for row, one in enumerate(records, start=2) if WEIGHT in one]
    weight = tuple(_number(name, row, WEIGHT, text) for row, text in weighted)
    return replace(_points_file(name, points, _frame(name, records)), weight=weight)


def _header(row: list[str]) -> list[str]:
    return [cell.strip().lower() for cell in row]


def _check_header(name: str, header: list[str]) -> None:
    unknown = [column for column in header if column not in (*COLUMNS, WEIGHT)]
    if not unknown and len(set(header)) == len(header) and set(AXES) <= set(header):
        return
    got = excerpt(", ".join(header)) or "nothing"
    advice = READ
    if len(header) == 1 and {"x", "y", "z"} <= set(_header(header[0].replace("\t", ";").split(";"))):
        advice = "save it with commas between the columns and points in the numbers"
    raise InputError(
        f"{name}, row 1: expected the columns x, y, z (LPS mm), and optionally name, frame and weight, got {got}: "
        f"{advice}"
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
            f"{name}, row {number}, column '{column}': got '{excerpt(text, 40)}', expected a finite number"
        )
    return value


def _frame(name: str, records: list[dict[str, str]]) -> str:
    frames = {record.get("frame", "") for record in records}
    if len(frames) > 1 or not frames <= {"", *FRAMES}:
        got = excerpt(", ".join(repr(frame) for frame in sorted(frames)))
        raise InputError(f"{name}, column 'frame': expected 'fixed' or 'moving', the same in each row, got {got}")
    return frames.pop() if frames else ""
