"""Points files of 3D Slicer: `.fcsv` and `.mrk.json`, whose frame (RAS or LPS) the file itself states."""

import csv
import io
import warnings
from typing import Any, NamedTuple

from crossalign.errors import InputError, InputWarning
from crossalign.input import finite_number, parse_json, shown

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
    _tell_left_out(name, left_out)
    return points


def parse_markups(text: str, name: str) -> list[NamedPoint]:
    """Parse a `.mrk.json` file: the points of its lists of type Fiducial, one list after another. Raises InputError."""
    content = parse_json(text, name)
    lists = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(lists, list) or not all(isinstance(one, dict) for one in lists):
        raise InputError(f"{name}: JSON without a list 'markups': not points of 3D Slicer (.mrk.json)")
    fiducials = [one for one in lists if one.get("type") == "Fiducial"]
    if not fiducials:
        kinds = ", ".join(shown(one.get("type"), 20) for one in lists[:5]) or "nothing"
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
        got = "nothing" if frame is None else f"'{shown(frame, 40)}'"
        raise InputError(f"{where}: got {got}, {FRAME_ADVICE}")
    return SIGNS[frame.upper()]


def _row_point(where: str, columns: list[str], row: list[str], signs: tuple[float, ...]) -> NamedPoint:
    if len(row) <= max(columns.index(column) for column in ("x", "y", "z", "label")):  # those after it are not needed
        raise InputError(f"{where}: {len(row)} values, expected {len(columns)}: is the file cut off?")
    record = dict(zip(columns, row, strict=False))
    position = [_number(f"{where}, column '{axis}'", record[axis]) for axis in ("x", "y", "z")]
    return NamedPoint(record["label"].strip(), tuple(s * p for s, p in zip(signs, position, strict=True)))


def _number(where: str, text: str) -> float:
    value = finite_number(text)
    if value is None:
        raise InputError(f"{where}: got '{shown(text, 40)}', expected a finite number (mm)")
    return value


def _list_points(where: str, one: dict[str, Any]) -> list[NamedPoint]:
    signs = _signs(one.get("coordinateSystem"), f"{where}: coordinateSystem")
    scale = _mm_per_unit(where, one.get("coordinateUnits", "mm"))
    controls = one.get("controlPoints")
    if not isinstance(controls, list) or not all(isinstance(control, dict) for control in controls):
        raise InputError(f"{where}: expected a list 'controlPoints': save the points again in 3D Slicer")
    defined = [control for control in controls if control.get("positionStatus", "defined") == "defined"]
    _tell_left_out(where, len(controls) - len(defined))
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
        raise InputError(f"{where}: coordinateUnits: got '{shown(units, 40)}', expected one of {known} for all axes")
    return MM_PER_UNIT[unit.strip("[] ")]


def _control_point(where: str, control: dict[str, Any], factors: tuple[float, ...]) -> NamedPoint:
    position = control.get("position")
    if not isinstance(position, list) or len(position) != 3 or not all(_is_number(value) for value in position):
        raise InputError(f"{where}: position: got {shown(position, 60)}, expected three numbers")
    label = control.get("label", "")
    if not isinstance(label, str):
        raise InputError(f"{where}: label: got {shown(label, 60)}, expected text")
    return NamedPoint(label.strip(), tuple(f * float(value) for f, value in zip(factors, position, strict=True)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tell_left_out(where: str, count: int) -> None:
    if count:
        warnings.warn(
            f"{where}: {count} points whose position is not defined were left out", InputWarning, stacklevel=3
        )
