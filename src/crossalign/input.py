"""How files are read: regular files only, and no more of them than was allowed for.

A pipe, a device or an endless file would hang the process; a file of a million rows or of deeply nested JSON would
exhaust it. Each function names the error class that the caller raises, so that an unreadable manifest is a
ManifestError and an unreadable image an ImageError.
"""

import csv
import io
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from crossalign.errors import InputError

TEXT_LIMIT_BYTES = 64 * 1024**2
JSON_LIMIT_BYTES = 16 * 1024**2
JSON_DEPTH = 64
ROW_LIMIT = 100_000
EXCERPT_LENGTH = 80  # characters of a name that a message repeats
WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
WHOLE_LIMIT = 2**63
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def excerpt(text: object, length: int = EXCERPT_LENGTH) -> str:
    """Return a text for a message: printable, on one line, its middle left out where it is long."""
    plain = "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))
    if len(plain) <= length:
        return plain
    half = (length - 5) // 2
    return f"{plain[:half]} ... {plain[-half:]}"


def finite_number(text: str) -> float | None:
    """Return the finite decimal number that a text is, blanks around it aside; None where it is not one.

    For tables and files, whose reader then names the place; `number_value` raises an error itself.
    """
    plain = text.strip()
    if len(plain) > EXCERPT_LENGTH * 4 or not NUMBER.fullmatch(plain):
        return None
    value = float(plain)
    return value if math.isfinite(value) else None


def check_regular_file(path: str | os.PathLike[str], error: type[InputError] = InputError) -> None:
    """Raise `error` where `path` is not a regular file that can be opened for reading."""
    name = excerpt(path, 200)
    if "\0" in str(path):
        raise error(f"{name}: the name holds a NUL character: name an existing file")
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError as missing:
        raise error(f"{name}: no such file") from missing
    except (OSError, ValueError) as failure:  # a name that is too long, a folder that may not be entered, a loop
        raise error(f"{name}: cannot be read: {getattr(failure, 'strerror', None) or failure}") from failure
    if stat.S_ISDIR(mode):
        raise error(f"{name}: is a folder, expected a file")
    if not stat.S_ISREG(mode):
        raise error(f"{name}: is a pipe, socket or device, expected a regular file: copy its content to a file first")
    if not os.access(path, os.R_OK):
        raise error(f"{name}: cannot be read: permission denied")


def read_bytes(path: str | os.PathLike[str], limit_bytes: int, error: type[InputError] = InputError) -> bytes:
    """Read a regular file of at most `limit_bytes`; raises `error` where it is not one or is larger."""
    check_regular_file(path, error)
    name = excerpt(Path(path).name)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (Path would do the same)
            content = file.read(limit_bytes + 1)
    except OSError as failure:
        raise error(f"{name}: cannot be read: {failure.strerror}") from failure
    if len(content) > limit_bytes:
        raise error(f"{name}: is larger than {limit_bytes / 1024**2:.0f} MiB, too large for a file of this kind")
    return content


def read_text(
    path: str | os.PathLike[str], error: type[InputError] = InputError, limit_bytes: int = TEXT_LIMIT_BYTES
) -> str:
    """Read a text file in UTF-8 (a byte order mark is dropped); raises `error` where it is not one."""
    content = read_bytes(path, limit_bytes, error)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise error(
            f"{excerpt(Path(path).name)}: not text in UTF-8 (byte {failure.start + 1} is not): save it as UTF-8"
        ) from failure
    if "\0" in text:
        raise error(f"{excerpt(Path(path).name)}: holds NUL characters: not a text file")
    return text


def read_table(
    path: str | os.PathLike[str],
    error: type[InputError] = InputError,
    row_limit: int = ROW_LIMIT,
    delimiter: str = ",",
) -> list[list[str]]:
    """Read the rows of a CSV file, blank ones as empty lists, cells as they stand.

    Raises `error` where it is not one, or holds more than `row_limit` rows.
    """
    return parse_table(read_text(path, error), excerpt(Path(path).name), error, row_limit, delimiter)


def parse_table(
    text: str, name: str, error: type[InputError] = InputError, row_limit: int = ROW_LIMIT, delimiter: str = ","
) -> list[list[str]]:
    """Parse the rows of CSV text as `read_table` does; the message of `error` begins with `name`."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if len(rows) == row_limit:
                raise error(f"{name}: holds more than {row_limit} rows: split it into several files")
            rows.append(row)
    except csv.Error as failure:
        raise error(f"{name}: not a CSV file: {failure}") from failure
    return rows


def read_json(path: str | os.PathLike[str], error: type[InputError] = InputError) -> Any:
    """Read a JSON file of bounded size and depth; raises `error` where it is not one."""
    return parse_json(read_text(path, error, JSON_LIMIT_BYTES), excerpt(Path(path).name), error)


def parse_json(text: str, name: str, error: type[InputError] = InputError) -> Any:
    """Parse JSON of bounded size and depth, numbers finite; raises `error`, whose message begins with `name`."""
    if len(text) > JSON_LIMIT_BYTES:
        raise error(f"{name}: is larger than {JSON_LIMIT_BYTES / 1024**2:.0f} MiB, too large for a file of this kind")
    if _depth(text) > JSON_DEPTH:
        raise error(f"{name}: is nested more than {JSON_DEPTH} levels deep: not a file of this kind")
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError) as failure:
        raise error(f"{name}: not JSON: {excerpt(failure, 200)}") from failure


def _depth(text: str) -> int:
    """Count brackets; those within strings count too, which only makes the bound stricter."""
    deepest = depth = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {excerpt(text, 40)} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"the number {excerpt(text, 40)} is too large")
    return int(text)


def whole_value(text: str, name: str, error: type[InputError] = InputError) -> int:
    """Read an option's whole number: ASCII digits, no blanks, below 2^63; raises `error`, which begins with `name`."""
    if WHOLE.fullmatch(text) is None or abs(int(text)) >= WHOLE_LIMIT:
        raise error(f"{name}: '{excerpt(text, 40)}' is not a whole number such as 8")
    return int(text)


def number_value(text: str, name: str, error: type[InputError] = InputError) -> float:
    """Read an option's number: finite, decimal, no blanks; raises `error`, which begins with `name`."""
    value = None if text != text.strip() else finite_number(text)
    if value is None:
        raise error(f"{name}: '{excerpt(text, 40)}' is not a number such as 2.5")
    return value
