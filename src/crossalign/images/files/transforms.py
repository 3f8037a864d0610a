"""Transform files, recognised by their content: fixed points to moving points, LPS, mm.

Read are ITK's (text, `.mat`, `.h5`) and linear ones of MINC (`.xfm`); written is ITK's text.
"""

import os
from pathlib import Path

import SimpleITK as sitk

from crossalign.arguments import checked
from crossalign.errors import OutputError, TransformError
from crossalign.geometry import Rigid
from crossalign.images.files.transform_formats.foreign import reason_not_read
from crossalign.images.files.transform_formats.hdf5 import SIGNATURE, parse_hdf5_transform
from crossalign.images.files.transform_formats.itk import (
    COMPOSITE,
    ItkTransform,
    Linear,
    is_itk_text,
    parse_itk_text,
    parse_type,
    to_linear,
    types_named,
)
from crossalign.images.files.transform_formats.matlab import is_matlab_transform, parse_matlab_transform
from crossalign.images.files.transform_formats.minc import is_minc, parse_minc
from crossalign.images.files.transform_formats.nearly_rigid import compose_rigid
from crossalign.images.files.writing import write_affine_text
from crossalign.input import check_regular_file, excerpt, read_bytes
from crossalign.output import check_output, whole_file

WRITTEN_SUFFIXES = (".tfm", ".txt")
START_BYTES = 1024**2
LIMIT_BYTES = 16 * 1024**2


@checked("path")
def read_transform(path: str | os.PathLike[str]) -> Rigid:
    """Read a file that holds a rigid transform (affine, Euler, versor, composite, ...), float64.

    A matrix that is rigid but for rounding is made so, with an InputWarning. Raises TransformError where the file is
    not a transform, is damaged, holds several, or scales, shears, mirrors or bends.
    """
    path = Path(path)
    return compose_rigid(linear_parts(path, start_of(path)), excerpt(path.name))


def start_of(path: Path) -> bytes:
    """Read the first MiB of a regular file; raises TransformError."""
    check_regular_file(path, TransformError)
    try:
        with path.open("rb") as file:
            return file.read(START_BYTES)
    except OSError as error:
        raise TransformError(f"{excerpt(path.name)}: cannot be read: {error.strerror}") from error


def linear_parts(path: Path, start: bytes) -> list[Linear]:
    """Read the linear transforms of a file of ITK or MINC, those applied last first; `start` is its beginning.

    Raises TransformError, as `read_transform` does, but for what scales, shears or mirrors.
    """
    return _parts(path, excerpt(path.name), start)


def _parts(path: Path, name: str, start: bytes) -> list[Linear]:
    text = text_of(start)
    if start.startswith(SIGNATURE):
        return [parse_hdf5_transform(read_bytes(path, LIMIT_BYTES, TransformError), name)]
    if is_matlab_transform(start):
        return _composed(parse_matlab_transform(start, name), name)
    if text is not None and is_itk_text(text):
        if len(start) == START_BYTES:  # a deformation, most likely, whose type then stands at the beginning
            for named in types_named(text):
                parse_type(named, name)
            raise TransformError(f"{name}: is larger than a rigid transform can be: save the rigid transform alone")
        return _composed(parse_itk_text(text, name), name)
    if text is not None and is_minc(text) and len(start) < START_BYTES:
        return parse_minc(text, name)
    raise TransformError(f"{name}: {reason_not_read(start)}")


def text_of(start: bytes) -> str | None:
    """Decode text, whose comments may be in any encoding; None where it is binary."""
    if b"\0" in start:
        return None
    try:
        return start.decode("utf-8-sig")
    except UnicodeDecodeError:
        return start.decode("latin-1")


def _composed(transforms: list[ItkTransform], name: str) -> list[Linear]:
    """Return the parts of one transform or of one composite; in a file of ITK the last of them is applied first."""
    composite = transforms[0].kind == COMPOSITE
    parts = transforms[1:] if composite else transforms
    if any(part.kind == COMPOSITE for part in parts):
        raise TransformError(f"{name}: a composite within a list of transforms: save it alone")
    if not parts:
        raise TransformError(f"{name}: a composite without a part: is the file cut off? Save the transform again")
    if len(parts) > 1 and not composite:
        raise TransformError(
            f"{name}: holds {len(parts)} transforms, and not in which order they apply, expected one: write them as "
            "one CompositeTransform, in which the last is applied first"
        )
    return [to_linear(part, name) for part in parts]


@checked("fixed_to_moving", "path")
def write_transform(fixed_to_moving: Rigid, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write one transform as an ITK `AffineTransform` text file (.tfm or .txt). Raises OutputError, TransformError."""
    path = Path(path)
    _check_name(path)
    matrix = fixed_to_moving.matrix()
    if matrix.shape != (4, 4) or not bool(matrix.isfinite().all()):
        raise TransformError(f"{path.name}: expected one finite transform, got {matrix.tolist()}")
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(fixed_to_moving.rotation.double().flatten().tolist())
    affine.SetTranslation(fixed_to_moving.translation_mm.double().tolist())
    with whole_file(path, overwrite) as partial:
        write_affine_text(affine, partial)


def check_transform_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise OutputError where no transform can be written to `path`; for use before a long computation."""
    _check_name(Path(path))
    check_output(path, overwrite)


def _check_name(path: Path) -> None:
    if path.suffix not in WRITTEN_SUFFIXES:
        raise OutputError(f"{path.name}: a transform is written as text: end the name in .tfm or .txt")
