"""Headers of NRRD files (.nrrd, .nhdr)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossalign.errors import ImageError
from crossalign.images.files.formats.header import (
    COUNT_LIMIT,
    SKIP_LIMIT_BYTES,
    Encoding,
    Header,
    Part,
    check_scalar,
    data_file,
    header_lines,
    numbered_names,
    numbers,
    spatial_size,
    whole_numbers,
)
from crossalign.input import excerpt

MAGIC = re.compile(rb"NRRD000[1-9]\r?\n")
NAMES_OF_KINDS = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
KINDS = {text: kind for kind, names in NAMES_OF_KINDS.items() for text in names}
ENCODINGS: dict[str, Encoding] = {
    "raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2", "ascii": "text", "text": "text",
    "txt": "text", "hex": "hex",
}  # fmt: skip
SPACES = {
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
}  # fmt: skip
UNNAMED_SPACES = ("scanner-xyz", "3d-right-handed", "3d-left-handed")  # not tied to the patient
MM_PER_UNIT = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometers"), 1e-6),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e3),
}
FIELD = re.compile(r"([A-Za-z][A-Za-z ]{0,31}): ?(.*)")
SYNONYMS = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip", "centerings": "centers",
            "axismins": "axis mins", "axismaxs": "axis maxs"}  # fmt: skip
VECTOR = re.compile(r"\(([^()]*)\)|(none)")


def is_nrrd(head: bytes) -> bool:
    """Say whether a file begins as an NRRD file does."""
    return MAGIC.match(head) is not None


def read_nrrd_header(path: Path, name: str) -> Header:
    """Parse the header at the start of a file; raises ImageError."""
    lines = header_lines(path, name)
    next(lines)
    fields, place = _fields(lines, name)
    return _header(fields, path, place, lines)


def read_layered_nrrd_header(path: Path, name: str) -> tuple[Header, int]:
    """Parse the header of an image that may hold several layers, and return their number too; raises ImageError.

    The layers are the fastest axis: the header's size along x counts the voxels of all of them.
    """
    lines = header_lines(path, name)
    next(lines)
    fields, place = _fields(lines, name)
    sizes = whole_numbers(_required(fields, "sizes", name), name, "sizes")
    directions = fields.get("space directions", "").split(maxsplit=1)
    if len(sizes) != 4 or directions[:1] != ["none"]:
        return _header(fields, path, place, lines), 1
    fields["dimension"], fields["space directions"] = "3", directions[-1]
    fields["sizes"] = " ".join(str(size) for size in (sizes[0] * sizes[1], *sizes[2:]))
    fields["kinds"] = " ".join(fields.get("kinds", "").split()[1:])
    return _header(fields, path, place, lines), sizes[0]


def _header(fields: dict[str, str], path: Path, place: int, lines: Iterator[tuple[str, int]]) -> Header:
    name = excerpt(path.name, 255)
    rank = whole_numbers(_required(fields, "dimension", name), name, "dimension", 1)[0]
    sizes = whole_numbers(_required(fields, "sizes", name), name, "sizes")
    if rank != len(sizes):
        raise ImageError(f"{name}: the dimension is {rank} but {len(sizes)} sizes are given: the header is damaged")
    _check_axes(fields, sizes, name)
    size = spatial_size(sizes, name)
    kind = _kind(fields, name)
    notes: list[str] = []
    affine = _affine(fields, sizes, name, notes)
    return Header(name, size, kind, affine, _parts(fields, path, place, lines, size), notes=tuple(notes))


def _fields(lines: Iterator[tuple[str, int]], name: str) -> tuple[dict[str, str], int]:
    """Read up to the blank line that ends the header, or to a list of files, and return where the voxels begin."""
    fields: dict[str, str] = {}
    place = 0
    for line, place in lines:
        if not line:
            return fields, place
        if line.startswith("#") or ":=" in line:
            continue
        match = FIELD.fullmatch(line)
        if match is None:
            raise ImageError(f"{name}: {excerpt(line, 60)!r} is no line of an NRRD header: the header is damaged")
        key = SYNONYMS.get(match[1].lower(), match[1].lower())
        if key in fields:
            raise ImageError(f"{name}: the header holds {key!r} twice: leave one")
        fields[key] = match[2].strip()
        if key == "data file" and fields[key].split()[:1] == ["LIST"]:
            return fields, place
    if "data file" not in fields:
        raise ImageError(f"{name}: the header has no end (an empty line): the file is truncated, copy it again")
    return fields, place


def _required(fields: dict[str, str], key: str, name: str) -> str:
    if key not in fields:
        raise ImageError(f"{name}: the header has no {key!r}: not a readable image")
    return fields[key]


def _check_axes(fields: dict[str, str], sizes: tuple[int, ...], name: str) -> None:
    """Raise ImageError where an axis runs over the values of a voxel, not over space."""
    directions = [bool(vector[1]) for vector in VECTOR.findall(fields.get("space directions", ""))]
    kinds = fields.get("kinds", "").lower().split()
    for axis, size in enumerate(sizes):
        is_none = axis < len(directions) and directions[axis]
        kind = kinds[axis] if axis < len(kinds) else "domain"
        is_value = kind not in ("domain", "space", "none", "???", "time", "list")
        if is_value or (is_none and axis == 0) or (kind == "list" and axis == 0):
            check_scalar(max(2, size), name)


def _kind(fields: dict[str, str], name: str) -> np.dtype[Any]:
    text = " ".join(_required(fields, "type", name).lower().split())
    if text not in KINDS:
        raise ImageError(f"{name}: the type is {excerpt(text)!r}, expected a number such as short or float: convert it")
    kind = KINDS[text]
    endian = fields.get("endian", "").lower()
    encoding = fields.get("encoding", "").lower()
    if endian not in ("little", "big") and kind[1] != "1" and ENCODINGS.get(encoding) != "text":
        raise ImageError(f"{name}: 'endian' is {excerpt(endian)!r} in the header, expected little or big: add the line")
    return np.dtype((">" if endian == "big" else "<") + kind)


def _affine(fields: dict[str, str], sizes: tuple[int, ...], name: str, notes: list[str]) -> NDArray[np.float64]:
    affine = np.eye(4)
    if "space directions" not in fields:
        affine[:3] = _from_spacings(fields, sizes, name, notes)
        return affine
    if fields.keys() & {"spacings", "axis mins", "axis maxs"}:
        notes.append("the header holds 'spacings' or 'axis mins' beside 'space directions': the latter are used")
    vectors = [found[0] for found in VECTOR.findall(fields["space directions"])]
    if len(vectors) != len(sizes) or not all(vectors[:3]):
        raise ImageError(
            f"{name}: 'space directions' holds {len(vectors)} vectors, expected three: the header is damaged"
        )
    columns = [numbers(vector, 3, name, "'space directions'") for vector in vectors[:3]]
    origin = fields.get("space origin")
    if origin is None:
        notes.append("the header gives no 'space origin': taken as (0, 0, 0)")
    match = VECTOR.fullmatch(origin or "(0,0,0)")
    affine[:3, :3] = np.array(columns).T
    affine[:3, 3] = numbers(match[1] if match and match[1] else origin or "", 3, name, "'space origin'")
    affine[:3] *= np.array(_signs(fields, name, notes))[:, None]
    affine[:3] *= _mm_per_unit(fields.get("space units", ""), name, notes)
    return affine


def _signs(fields: dict[str, str], name: str, notes: list[str]) -> tuple[int, int, int]:
    space = fields.get("space", "").lower()
    space = space.removesuffix("-time") if space not in SPACES else space
    if space in SPACES:
        return SPACES[space]
    if space and space not in UNNAMED_SPACES:
        known = "left-posterior-superior, right-anterior-superior or left-anterior-superior"
        raise ImageError(f"{name}: the space is {excerpt(space)!r} in the header, expected {known}: mend it")
    named = f"the space {space!r}" if space else "a space without a name"
    notes.append(
        f"the axes stand in {named}, which is not tied to the patient: read as left-posterior-superior, as in ITK"
    )
    return SPACES["lps"]


def _mm_per_unit(text: str, name: str, notes: list[str]) -> float:
    units = [unit.strip().lower() for unit in re.findall(r'"([^"]*)"', text) if unit.strip()]
    if not units:
        return 1.0
    if len(set(units)) != 1:
        raise ImageError(f"{name}: the axes have different units of length, {excerpt(text)}: convert it to mm")
    scale = MM_PER_UNIT.get(units[0])
    if scale is None:
        notes.append(f"the header's unit of length is {excerpt(units[0])!r}, which is not known: taken as mm")
    elif scale != 1:
        notes.append(f"the header's unit is {units[0]}: converted to mm")
    return 1.0 if scale is None else scale


def _from_spacings(fields: dict[str, str], sizes: tuple[int, ...], name: str, notes: list[str]) -> NDArray[np.float64]:
    """Return the first three rows of the affine of an image without an orientation, read as ITK reads it."""
    rank = len(sizes)
    spacing = np.ones(3)
    low = np.zeros(3)
    is_cell = np.array((fields.get("centers", "").lower().split() + ["cell"] * 3)[:3]) != "node"
    if "axis mins" in fields:
        low = np.array(numbers(fields["axis mins"], rank, name, "'axis mins'")[:3])
    if "spacings" in fields:
        spacing = np.array(numbers(fields["spacings"], rank, name, "'spacings'")[:3])
    elif "axis mins" in fields and "axis maxs" in fields:
        high = np.array(numbers(fields["axis maxs"], rank, name, "'axis maxs'")[:3])
        spacing = (high - low) / np.maximum(np.array(sizes[:3]) - ~is_cell, 1)
    else:
        notes.append("the header gives no spacing: taken as 1 mm on each axis")
    notes.append(
        "the header does not say how the axes lie in the patient: read as left, posterior, superior, as in ITK"
    )
    origin = np.where(is_cell & ("axis mins" in fields), low + spacing / 2, low)
    rows = np.concatenate((np.diag(spacing), origin[:, None]), axis=1)
    return np.asarray(rows * _mm_per_unit(fields.get("units", ""), name, notes), np.float64)


def _parts(
    fields: dict[str, str], path: Path, place: int, lines: Iterator[tuple[str, int]], size: tuple[int, int, int]
) -> tuple[Part, ...]:
    name = excerpt(path.name)
    encoding = ENCODINGS.get(_required(fields, "encoding", name).lower())
    if encoding is None:
        raise ImageError(f"{name}: the encoding is {excerpt(fields['encoding'])!r}, expected raw or gzip: convert it")
    line_skip, byte_skip = (whole_numbers(fields.get(key, "0"), name, key, 1)[0] for key in ("line skip", "byte skip"))
    if line_skip < 0 or not -1 <= byte_skip <= SKIP_LIMIT_BYTES or (byte_skip < 0 and encoding != "raw"):
        raise ImageError(f"{name}: 'line skip' or 'byte skip' makes no sense in the header: mend it")
    if "data file" not in fields:
        files, begin = [path], place
    elif not path.name.lower().endswith(".nhdr"):
        raise ImageError(
            f"{name}: expected its own voxels, got 'data file': only a header named .nhdr may have them beside it"
        )
    else:
        files, begin = _files(fields["data file"], path, lines, size), 0
    return tuple(_part(one, begin, encoding, line_skip, byte_skip) for one in files)


def _part(path: Path, begin: int, encoding: Encoding, line_skip: int, byte_skip: int) -> Part:
    if byte_skip < 0:
        return Part(path, -1, encoding)
    if line_skip:
        with path.open("rb") as file:
            file.seek(begin)
            for _ in range(line_skip):
                if not file.readline(SKIP_LIMIT_BYTES):
                    break
            begin = file.tell()
    return Part(path, begin, encoding, byte_skip)


def _files(target: str, path: Path, lines: Iterator[tuple[str, int]], size: tuple[int, int, int]) -> list[Path]:
    name = excerpt(path.name)
    words = target.split()
    if words and words[0] == "LIST":
        names = [line.strip() for line, _ in lines if line.strip()]
        rank = words[1] if len(words) > 1 else "2"
    elif len(words) > 1 and "%" in words[0]:
        names = numbered_names(" ".join(words[:4]), name)
        rank = words[4] if len(words) > 4 else "2"
    else:
        return [data_file(path, target, name)]
    expected = {"1": size[1] * size[2], "2": size[2], "3": 1}.get(rank)
    if expected is None or len(names) != expected or len(names) > COUNT_LIMIT:
        raise ImageError(
            f"{name}: the header names {len(names)} data files, expected {expected or size[2]}: complete the list"
        )
    return [data_file(path, one, name) for one in names]
