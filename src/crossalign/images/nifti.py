"""What ITK's NIfTI reader keeps to itself: a truncated file is read as noise or zeros, and NaN and Inf as 0."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from crossalign.errors import ImageError

GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 1 << 20
HEADER_BYTES = 540
# By header size (NIfTI-1 and -2): format and place of the type code, the bits in a voxel, the first voxel's offset.
FIELDS = {348: (("h", 70), ("h", 72), ("f", 108)), 540: (("h", 12), ("h", 14), ("q", 168))}
FLOAT_TYPES = {16: "f4", 64: "f8"}


@dataclass(frozen=True)
class _Layout:
    """Where the voxels stand in the file; `kind` is numpy's name of the type, or empty where it is not a float."""

    first_byte: int
    byte_count: int
    kind: str


def check_complete(path: Path, voxels: int) -> None:
    """Raise ImageError where a NIfTI file (compressed or not) ends early; other files pass."""
    try:
        with path.open("rb") as file:
            if file.read(2) != GZIP_MAGIC:
                file.seek(0)
                _check_stream(file, path.name, voxels)
                return
        with gzip.open(path) as stream:
            _check_stream(stream, path.name, voxels)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ImageError(f"{path.name}: the compressed file is damaged or truncated: copy it again") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error


def float_values(path: Path) -> NDArray[Any] | None:
    """Return the voxels (z, y, x) of a NIfTI file of floats, NaN kept; None where this is not one."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    image = nibabel.load(path)
    if image.get_data_dtype().kind != "f":
        return None
    return np.asanyarray(image.dataobj).reshape(image.shape[:3]).T


def _check_stream(stream: BufferedIOBase, name: str, voxels: int) -> None:
    layout = _layout(stream.read(HEADER_BYTES), voxels)
    if layout is None:
        return
    stream.seek(layout.first_byte)
    got = 0
    while got < layout.byte_count:
        block = stream.read(min(CHUNK_BYTES, layout.byte_count - got))
        if not block:
            raise ImageError(f"{name}: the file is truncated: {got} bytes of voxels, expected {layout.byte_count}")
        got += len(block)
    stream.read(CHUNK_BYTES)  # past the end, so that gzip compares its checksum


def _layout(header: bytes, voxels: int) -> _Layout | None:
    """Read the header; None where this is not a NIfTI file of its own (.nii)."""
    for order in "<>":
        size = struct.unpack(f"{order}i", header[:4])[0] if len(header) >= 4 else 0
        if size not in FIELDS or len(header) < size or header[344:347] == b"ni1":
            continue
        values = [struct.unpack_from(order + kind, header, place)[0] for kind, place in FIELDS[size]]
        if not math.isfinite(values[2]) or values[2] < 0:
            return None
        kind = FLOAT_TYPES.get(values[0], "")
        return _Layout(int(values[2]), voxels * values[1] // 8, order + kind if kind else "")
    return None
