"""Headers of MetaImage files (.mha, .mhd)."""

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

KINDS = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
SYNONYMS = {
    "rotation": "transformmatrix",
    "orientation": "transformmatrix",
    "position": "offset",
    "origin": "offset",
    "binarydatabyteordermsb": "elementbyteordermsb",
}
MM_PER_UNIT = {"mm": 1.0, "um": 1e-3, "cm": 10.0}
TOWARDS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "I": (2, 1), "S": (2, -1)}  # "R": from right to left
UNIT_TOLERANCE = 1e-2
FIELD = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]{0,63})\s*[=:]\s*(.*)")


def is_metaimage(head: bytes) -> bool:
    """Say whether a file begins as a MetaImage does."""
    text = head.decode("ascii", "replace")
    return FIELD.match(text) is not None and re.search(r"(?m)^\s*(ObjectType|NDims|DimSize)\s*[=:]", text) is not None


def read_metaimage_header(path: Path, name: str) -> Header:
    """Parse the header at the start of a file; raises ImageError."""
    lines = header_lines(path, name)
    fields, place = _fields(lines, name)
    rank = whole_numbers(_required(fields, "ndims", "NDims", name), name, "NDims", 1)[0]
    sizes = whole_numbers(_required(fields, "dimsize", "DimSize", name), name, "DimSize")
    if rank != len(sizes):
        raise ImageError(f"{name}: NDims is {rank} but DimSize holds {len(sizes)} numbers: the header is damaged")
    check_scalar(whole_numbers(fields.get("elementnumberofchannels", "1"), name, "ElementNumberOfChannels", 1)[0], name)
    size = spatial_size(sizes, name)
    kind = _kind(fields, name)
    notes: list[str] = []
    affine = _affine(fields, rank, name, notes)
    scale = [
        fields.get(f"elementtointensityfunction{part}", default) for part, default in (("slope", "1"), ("offset", "0"))
    ]
    if [numbers(value, 1, name, "ElementToIntensityFunction")[0] for value in scale] != [1, 0]:
        notes.append(
            "ElementToIntensityFunctionSlope and Offset are not applied, as in ITK: the stored values are read"
        )
    parts = _parts(fields, path, place, lines, (size, kind, name))
    return Header(name, size, kind, affine, parts, notes=tuple(notes))


def _fields(lines: Iterator[tuple[str, int]], name: str) -> tuple[dict[str, str], int]:
    """Read up to the line that says where the data are, and return where it ends."""
    fields: dict[str, str] = {}
    for line, place in lines:
        if not line.strip():
            continue
        match = FIELD.fullmatch(line)
        if match is None:
            raise ImageError(f"{name}: {excerpt(line, 60)!r} is no line of a MetaImage header: the header is damaged")
        key = match[1].lower()
        key = SYNONYMS.get(key, key)
        if key in fields and key != "comment":
            raise ImageError(f"{name}: the header holds {match[1]} twice: leave one")
        fields[key] = match[2].strip()
        if key == "elementdatafile":
            return fields, place
    raise ImageError(f"{name}: the header has no ElementDataFile: the file is truncated, copy it again")


def _required(fields: dict[str, str], key: str, label: str, name: str) -> str:
    if key not in fields:
        raise ImageError(f"{name}: the header has no {label}: not a readable image")
    return fields[key]


def _true(fields: dict[str, str], key: str, default: bool, name: str) -> bool:
    text = fields.get(key, str(default)).lower()
    if text not in ("true", "false", "t", "f", "1", "0"):
        raise ImageError(f"{name}: {key} is {excerpt(text)!r} in the header, expected True or False")
    return text in ("true", "t", "1")


def _kind(fields: dict[str, str], name: str) -> np.dtype[Any]:
    text = _required(fields, "elementtype", "ElementType", name).upper()
    if text not in KINDS:
        raise ImageError(f"{name}: ElementType is {excerpt(text)!r}, expected one of {', '.join(KINDS)}")
    return np.dtype((">" if _true(fields, "elementbyteordermsb", False, name) else "<") + KINDS[text])


def _affine(fields: dict[str, str], rank: int, name: str, notes: list[str]) -> NDArray[np.float64]:
    spacing_text = fields.get("elementspacing") or fields.get("elementsize")
    if spacing_text is None:
        notes.append("the header gives no spacing: taken as 1 mm on each axis")
        spacing_text = " ".join(["1"] * rank)
    unit = fields.get("distanceunits", "mm").lower()
    if unit not in MM_PER_UNIT:
        notes.append(f"DistanceUnits is {excerpt(unit)!r}: taken as mm")
    elif unit != "mm":
        notes.append(f"the header's unit is {unit}: converted to mm")
    spacing = np.array(numbers(spacing_text, rank, name, "ElementSpacing")[:3])
    if (spacing < 0).any():
        raise ImageError(
            f"{name}: the spacing is {tuple(spacing.tolist())} mm, expected positive numbers: mend ElementSpacing"
        )
    identity = " ".join(str(value) for value in np.eye(rank).astype(int).ravel())
    rows = np.array(numbers(fields.get("transformmatrix", identity), rank**2, name, "TransformMatrix")).reshape(
        rank, rank
    )
    lengths = np.linalg.norm(rows[:3, :3], axis=1)
    if not (np.isfinite(lengths).all() and np.abs(lengths - 1).max() <= UNIT_TOLERANCE):
        raise ImageError(
            f"{name}: the rows of TransformMatrix are not of length 1, so not orthonormal: divide each by its length, "
            "and give the spacing in ElementSpacing"
        )
    axes = (rows[:3, :3] / lengths[:, None]).T
    offset = numbers(fields.get("offset", " ".join(["0"] * rank)), rank, name, "Offset")[:3]
    _check_letters(fields.get("anatomicalorientation", ""), axes, notes)
    center = numbers(fields.get("centerofrotation", " ".join(["0"] * rank)), rank, name, "CenterOfRotation")[:3]
    if any(center) and not np.allclose(axes, np.eye(3)):
        notes.append(f"CenterOfRotation is {center}: it is not used, as in ITK: Offset is the place of the first voxel")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * spacing, offset
    affine[:3] *= MM_PER_UNIT.get(unit, 1.0)
    return affine


def _check_letters(letters: str, axes: NDArray[np.float64], notes: list[str]) -> None:
    """Tell where AnatomicalOrientation (RAI: from right, front and below) contradicts the matrix, which is used."""
    letters = letters.upper()
    if len(letters) != 3 or len({TOWARDS[c][0] for c in letters if c in TOWARDS}) != 3:
        return
    for column, letter in zip(axes.T, letters, strict=True):
        axis, sign = TOWARDS[letter]
        if column[axis] * sign < -0.1 or abs(column[axis]) < 0.1:
            read = "".join(_letter(one) for one in axes.T)
            notes.append(f"AnatomicalOrientation says {letters}, TransformMatrix {read}: TransformMatrix is used")
            return


def _letter(axis: NDArray[np.float64]) -> str:
    place = int(np.abs(axis).argmax())
    return next(letter for letter, (at, sign) in TOWARDS.items() if at == place and sign * axis[place] > 0)


def _parts(
    fields: dict[str, str],
    path: Path,
    place: int,
    lines: Iterator[tuple[str, int]],
    voxels: tuple[tuple[int, int, int], np.dtype[Any], str],
) -> tuple[Part, ...]:
    size, _, name = voxels
    target = fields["elementdatafile"]
    encoding: Encoding = "raw"
    if not _true(fields, "binarydata", True, name):
        encoding = "text"
    elif _true(fields, "compresseddata", False, name):
        encoding = "zlib"
    skip = whole_numbers(fields.get("headersize", "0"), name, "HeaderSize", 1)[0]
    if not -1 <= skip <= SKIP_LIMIT_BYTES or (skip == -1 and encoding != "raw"):
        raise ImageError(f"{name}: HeaderSize is {skip}, expected -1 (voxels at the end) or a count of bytes: mend it")
    if target.upper() == "LOCAL":
        if 0 < skip < place:
            raise ImageError(f"{name}: HeaderSize is {skip} but the header is {place} bytes long: leave HeaderSize out")
        return (Part(path, skip or place, encoding),)
    if not path.name.lower().endswith(".mhd"):
        raise ImageError(
            f"{name}: expected its own voxels (ElementDataFile = LOCAL), got the name of another file: only a header "
            "named .mhd may have its voxels beside it"
        )
    names, dimensions = _file_names(target, lines, name)
    per_file = dimensions if dimensions is not None else (3 if len(names) == 1 else 2)
    expected = {1: size[1] * size[2], 2: size[2], 3: 1}.get(per_file)
    if expected is None or len(names) != expected:
        raise ImageError(
            f"{name}: the header names {len(names)} data files, expected {expected or size[2]}: complete the list"
        )
    return tuple(Part(data_file(path, one, name), skip, encoding) for one in names)


def _file_names(target: str, lines: Iterator[tuple[str, int]], name: str) -> tuple[list[str], int | None]:
    words = target.split()
    if words and words[0].upper() == "LIST":
        dimensions = int(words[1].rstrip("dD")) if len(words) > 1 and words[1].rstrip("dD").isdecimal() else 2
        names = [line.strip() for line, _ in lines if line.strip()]
        if len(names) > COUNT_LIMIT:
            raise ImageError(f"{name}: lists more than {COUNT_LIMIT} data files: convert it to one file")
        return names, dimensions
    if len(words) > 1 and "%" in words[0]:
        return numbered_names(target, name), 2
    return [target], None
