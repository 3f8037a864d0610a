"""ITK's binary transform files (`.mat`, those of ANTs): pairs of matrices in MATLAB's format of level 4.

The first matrix of a pair is named by the type of the transform and holds its parameters, the second is named "fixed".
"""

import struct

import numpy as np

from crossalign.errors import TransformError
from crossalign.images.files.transform_formats.itk import COMPOSITE, TYPE_NAME, ItkTransform, check_counts, parse_type
from crossalign.input import excerpt

HEADER_BYTES = 20
LONGEST_NAME = 256
LARGEST_COUNT = 4096
BIG_ENDIAN = 1000  # the format's first number: thousands tell the byte order, tens the precision
PRECISIONS = {0: "f8", 10: "f4"}

_Header = tuple[str, str, int, int]  # byte order, precision, numbers, length of the name


def is_matlab_transform(start: bytes) -> bool:
    """Say whether a file is an ITK transform in MATLAB's format, by its first header and the name after it."""
    header = _header(start)
    if header is None:
        return False
    name = start[HEADER_BYTES : HEADER_BYTES + header[3]].rstrip(b"\0")
    return TYPE_NAME.fullmatch(name.decode("latin-1")) is not None


def parse_matlab_transform(content: bytes, name: str) -> list[ItkTransform]:
    """Parse the transforms of a file; raises TransformError where it is damaged or one is no linear 3-D transform."""
    matrices = _matrices(content, name)
    kinds = [parse_type(label, name) for label, _ in matrices[::2]]
    if COMPOSITE in kinds:
        raise TransformError(f"{name}: a composite in .mat lacks its parts: save it as .tfm or .h5")
    if len(matrices) % 2 or any(label != "fixed" for label, _ in matrices[1::2]):
        raise TransformError(f"{name}: the FixedParameters are missing or misnamed: is the file damaged? Save it again")
    transforms = [
        ItkTransform(kind, parameters, fixed)
        for kind, (_, parameters), (_, fixed) in zip(kinds, matrices[::2], matrices[1::2], strict=True)
    ]
    for transform in transforms:
        check_counts(transform, name)
    return transforms


def _matrices(content: bytes, name: str) -> list[tuple[str, tuple[float, ...]]]:
    found: list[tuple[str, tuple[float, ...]]] = []
    while content:
        header = _header(content)
        if header is None:
            raise TransformError(f"{name}: byte {HEADER_BYTES} of a matrix is not reached: is the file cut off?")
        order, precision, count, name_bytes = header
        size = HEADER_BYTES + name_bytes + count * int(precision[1])
        label = content[HEADER_BYTES : HEADER_BYTES + name_bytes].rstrip(b"\0").decode("latin-1")
        if found == [] or count > LARGEST_COUNT:
            parse_type(label, name)  # a deformation is refused by its name, however long it is
        if count > LARGEST_COUNT or len(content) < size:
            raise TransformError(
                f"{name}: {excerpt(label)} should have {count} numbers, which are not there: is the file damaged?"
            )
        values = np.frombuffer(content[HEADER_BYTES + name_bytes : size], dtype=order + precision)
        if not np.isfinite(values).all():
            raise TransformError(f"{name}: holds a number that is not finite: save the transform again")
        found.append((label, tuple(values.astype(np.float64).tolist())))
        content = content[size:]
    return found


def _header(content: bytes) -> _Header | None:
    """Read the header of a matrix of real numbers; None where there is none."""
    if len(content) < HEADER_BYTES:
        return None
    for order in "<>":
        kind, rows, columns, imaginary, name_bytes = struct.unpack(f"{order}5I", content[:HEADER_BYTES])
        precision = PRECISIONS.get(kind - BIG_ENDIAN if order == ">" else kind)
        if precision and imaginary == 0 and 1 < name_bytes <= LONGEST_NAME and min(rows, columns) <= 1:
            return order, precision, rows * columns, name_bytes
    return None
