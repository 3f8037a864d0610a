"""Matrices of 4 x 4 numbers as text. Such a file says neither its frame nor its direction, unless a comment does."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from crossalign.errors import TransformError
from crossalign.images.files.transform_formats.itk import Matrix
from crossalign.images.files.transform_formats.nearly_rigid import checked_linear
from crossalign.input import excerpt, finite_number

HEADER = re.compile(r"^# crossalign matrix: (LPS|RAS), mm(?:, (fixed-to-moving|moving-to-fixed))?\s*$", re.MULTILINE)


class MatrixHeader(NamedTuple):
    """What the comment of a matrix says: its frame, and its direction, or '' where it is of neither."""

    frame: str
    direction: str


def matrix_header(text: str) -> MatrixHeader | None:
    """Return what the comment that crossalign writes says; None where a text has none."""
    found = HEADER.search(text)
    return None if found is None else MatrixHeader(found[1], found[2] or "")


def parse_matrix(text: str, name: str) -> Matrix:
    """Parse four lines of four numbers, blanks or commas between them; comments begin with #. Raises TransformError."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    rows = [line.replace(",", " ").split() for line in lines]
    if [len(row) for row in rows] != [4, 4, 4, 4]:
        raise TransformError(f"{name}: expected four lines of four numbers, a matrix that maps points (x, y, z, 1)")
    values = [[finite_number(word) for word in row] for row in rows]
    wrong = [word for row, read in zip(rows, values, strict=True) for word, value in zip(row, read) if value is None]  # noqa: B905 - as long as one another
    if wrong:
        raise TransformError(f"{name}: got '{excerpt(wrong[0], 40)}', expected a finite number such as 0.5")
    return checked_linear(np.array(values, dtype=np.float64), name)


def format_matrix(matrix: Matrix, header: MatrixHeader | None = None) -> str:
    """Write a matrix (4, 4) with every digit, after a comment that says its frame and direction."""
    comment = []
    if header is not None:
        direction = f", {header.direction}" if header.direction else ""
        comment = [f"# crossalign matrix: {header.frame}, mm{direction}"]
    rows = ["  ".join(repr(float(value)) for value in row) for row in matrix]
    return "\n".join([*comment, *rows, ""])
