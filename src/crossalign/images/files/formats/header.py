"""What the header of an image file says, whatever the format, and the bounded reading of text headers.

A header may come from anywhere; it must not make the program read `/etc/passwd`, a device or `../other`, nor hand a
name to printf.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crossalign.errors import ImageError
from crossalign.input import check_regular_file, excerpt

Encoding: TypeAlias = Literal["raw", "gzip", "zlib", "bzip2", "text", "hex"]
HEADER_LIMIT_BYTES = 1024**2
LINE_LIMIT_BYTES = 64 * 1024
DIMENSION_LIMIT = 16
SKIP_LIMIT_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class Part:
    """Where voxels stand: bytes of `path` from `first_byte`, decoded, of which `skipped` come before the voxels.

    A `first_byte` of -1 says that the voxels are the last bytes of the file.
    """

    path: Path
    first_byte: int = 0
    encoding: Encoding = "raw"
    skipped: int = 0


@dataclass(frozen=True, eq=False)
class Header:
    """A header that has been checked as far as its format goes; the geometry is judged by `placed`.

    `size` counts voxels (x, y, z); `kind` is numpy's type with the byte order of the file; `affine` (4, 4) maps voxel
    indices to LPS mm; the value of a voxel is `slope` * stored + `intercept`. Each note becomes a warning.
    """

    name: str
    size: tuple[int, int, int]
    kind: np.dtype[Any]
    affine: NDArray[np.float64]
    parts: tuple[Part, ...]
    slope: float = 1.0
    intercept: float = 0.0
    notes: tuple[str, ...] = field(default=())

    @property
    def voxel_count(self) -> int:
        """Voxels in the image."""
        x, y, z = self.size
        return x * y * z


def spatial_size(sizes: tuple[int, ...], name: str) -> tuple[int, int, int]:
    """Check the sizes of a header and return those of the three axes of space; trailing axes of 1 are dropped."""
    if not 1 <= len(sizes) <= DIMENSION_LIMIT or any(size < 1 for size in sizes):
        raise ImageError(f"{name}: the sizes are {excerpt(sizes)} voxels, expected three whole numbers of 1 or more")
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes = sizes[:-1]
    if len(sizes) != 3:
        raise ImageError(f"{name}: the image is {len(sizes)}-D, expected 3-D: take out one volume")
    return sizes[0], sizes[1], sizes[2]


def check_scalar(components: int, name: str) -> None:
    """Raise ImageError where a voxel holds several values."""
    if components != 1:
        raise ImageError(f"{name}: {components} values in a voxel, expected 1: convert it to a scalar image")


def numbers(text: str, count: int, name: str, field_name: str) -> tuple[float, ...]:
    """Parse `count` numbers, separated by spaces or commas; they need not be finite. Raises ImageError."""
    words = text.replace(",", " ").split()
    try:
        values = tuple(float(word) for word in words if "_" not in word)
    except ValueError:
        values = ()
    if len(values) != count or len(words) != count:
        raise ImageError(f"{name}: {field_name} is {excerpt(text)!r} in the header, expected {count} numbers")
    return values


def whole_numbers(text: str, name: str, field_name: str, most: int = DIMENSION_LIMIT) -> tuple[int, ...]:
    """Parse one or more whole numbers, at most `most`. Raises ImageError."""
    words = text.split()
    plain = [word.lstrip("+-") for word in words]
    if not 1 <= len(words) <= most or not all(w.isascii() and w.isdigit() and len(w) <= 15 for w in plain):
        raise ImageError(f"{name}: {field_name} is {excerpt(text)!r} in the header, expected whole numbers")
    return tuple(int(word) for word in words)


COUNT_LIMIT = 100_000
PATTERN = re.compile(r"([^%]*)%(0?)([0-9]{0,2})[di]([^%]*)")


def data_file(header: Path, file_name: str, name: str) -> Path:
    """Return the path of a data file that a header names; raises ImageError where it may not be read."""
    advice = "put the voxels beside the header, or convert the image to one file (.nrrd, .mha, .nii.gz)"
    if not file_name or file_name in (".", "..") or any(c in file_name for c in "/\\%\0") or len(file_name) > 255:
        raise ImageError(
            f"{name}: the header names {excerpt(file_name)!r} as its data, expected a plain file name: {advice}"
        )
    path = header.parent / file_name
    check_regular_file(path, ImageError)
    if Path(os.path.realpath(path)).parent != Path(os.path.realpath(header.parent)):
        raise ImageError(f"{name}: its data file {excerpt(file_name)} is a link out of the folder: {advice}")
    return path


def numbered_names(text: str, name: str) -> list[str]:
    """Return the names that a pattern such as `slice%03d.raw 1 20 1` (first, last, step) stands for."""
    words = text.split()
    match = PATTERN.fullmatch(words[0])
    numbers = words[1:4]
    if match is None or len(numbers) < 2 or not all(re.fullmatch(r"-?[0-9]{1,9}", word) for word in numbers):
        raise ImageError(
            f"{name}: cannot tell the data files from {excerpt(text)!r}: expected a pattern with one %d and first, "
            "last and step, or convert the image to one file"
        )
    first, last, step = int(numbers[0]), int(numbers[1]), int(numbers[2]) if len(numbers) == 3 else 1
    if step == 0 or (last - first) * step < 0 or abs(last - first) // abs(step) >= COUNT_LIMIT:
        raise ImageError(f"{name}: {excerpt(text)!r} counts no files, or too many: mend its first, last and step")
    before, zero, width, after = match.groups()
    stop = last + (1 if step > 0 else -1)
    return [f"{before}{number:{zero}{width}d}{after}" for number in range(first, stop, step)]


def header_lines(path: Path, name: str) -> Iterator[tuple[str, int]]:
    """Give the lines of a file, without their ends, and where in the file the next one begins. Raises ImageError."""
    check_regular_file(path, ImageError)
    try:
        with path.open("rb") as file:
            place = 0
            while line := file.readline(LINE_LIMIT_BYTES + 1):
                place += len(line)
                if len(line) > LINE_LIMIT_BYTES or place > HEADER_LIMIT_BYTES:
                    raise ImageError(
                        f"{name}: the header is longer than {HEADER_LIMIT_BYTES} bytes or has a line of more than "
                        f"{LINE_LIMIT_BYTES}: the header is damaged"
                    )
                yield line.rstrip(b"\r\n").decode("utf-8", "surrogateescape"), place
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error
