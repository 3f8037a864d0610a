"""Linear transforms of every format, rigid or not: what a file is, and its matrix, read and written.

A matrix maps points of an image, the source, to points of another, the target, LPS mm. Which of the two is the fixed
image is the caller's: each format's programs have their own habit, which `LinearFormat.direction` names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from crossalign.errors import OutputError, TransformError
from crossalign.geometry import Grid
from crossalign.images.files.formats.placement import placed
from crossalign.images.files.formats.recognition import read_header
from crossalign.images.files.transform_formats.freesurfer import format_lta, is_lta, parse_lta
from crossalign.images.files.transform_formats.fsl import from_scaled_voxels, to_scaled_voxels
from crossalign.images.files.transform_formats.hdf5 import SIGNATURE
from crossalign.images.files.transform_formats.itk import Matrix, is_itk_text
from crossalign.images.files.transform_formats.matlab import is_matlab_transform
from crossalign.images.files.transform_formats.matrix_text import (
    MatrixHeader,
    format_matrix,
    matrix_header,
    parse_matrix,
)
from crossalign.images.files.transform_formats.minc import FLIP, is_minc
from crossalign.images.files.transform_formats.nearly_rigid import checked_linear, compose_linear
from crossalign.images.files.transforms import LIMIT_BYTES, linear_parts, start_of, text_of
from crossalign.images.files.writing import native_path, quiet_native, write_affine_text
from crossalign.input import excerpt, read_text
from crossalign.output import write_text
from crossalign.types import Matrix4

FIXED_TO_MOVING, MOVING_TO_FIXED = "fixed-to-moving", "moving-to-fixed"
FLIP4 = np.diag([*np.diag(FLIP), 1.0])  # between RAS and LPS, either way
ROUNDING = 1e-9  # of a matrix that is written and read back, relative


@dataclass(frozen=True)
class Ends:
    """The grids of the images that a file maps between; None where it does not matter."""

    source: Grid | None = None
    target: Grid | None = None

    def grids(self, name: str, what: str) -> tuple[Grid, Grid]:
        """Return both; raises TransformError where one is missing."""
        if self.source is None or self.target is None:
            raise TransformError(f"{name}: {what} depends on both images' grids: name the fixed and the moving image")
        return self.source, self.target


@dataclass(frozen=True)
class Kind:
    """What a file is: the name of its format, and the direction that the file itself states, or ''."""

    format: str
    direction: str = ""


@dataclass(frozen=True)
class LinearFormat:
    """A format: how its programs direct it ('' where there is no habit), and how it is read and written.

    `read` gives the matrix (4, 4) between LPS points. `write` writes it to a temporary path; its last argument is the
    direction in words, for formats that can hold it. None where a format is not read, or not written.
    """

    direction: str
    suffixes: tuple[str, ...]
    needs_grids: bool
    read: Callable[[Path, Ends], Matrix]
    write: Callable[[Matrix, Path, Ends, str], None] | None


def recognised_format(path: str | os.PathLike[str]) -> Kind | None:
    """Recognise a transform file by its content; None for a matrix without a comment that says its frame.

    Raises TransformError where the file cannot be read or is no linear transform.
    """
    path = Path(path)
    start = start_of(path)
    text = text_of(start)
    if text is not None and is_lta(text):
        return Kind("lta")
    if text is not None and (header := matrix_header(text)) is not None:
        return Kind(f"matrix-{header.frame.lower()}", header.direction)
    if text is not None and _is_bare(text):
        return None
    if text is not None and is_minc(text):
        return Kind("minc")
    if not (start.startswith(SIGNATURE) or is_matlab_transform(start) or (text is not None and is_itk_text(text))):
        linear_parts(path, start)  # says what it is instead
    return Kind("itk")


def read_linear(path: str | os.PathLike[str], format_name: str, ends: Ends | None = None) -> Matrix4:
    """Read the matrix (4, 4), float64, that maps points of the file's source to its target, LPS mm.

    Raises TransformError where the file is not of that format, is a deformation, or has no inverse.
    """
    matrix = LINEAR_FORMATS[format_name].read(Path(path), ends or Ends())
    return torch.tensor(checked_linear(matrix, excerpt(Path(path).name)), dtype=torch.float64)


def write_linear(
    matrix: Matrix4, path: str | os.PathLike[str], format_name: str, ends: Ends | None = None, direction: str = ""
) -> None:
    """Write a matrix (4, 4) that maps points of source to target, LPS mm, to a temporary path of `whole_file`.

    Raises OutputError, and TransformError where the format needs grids, or a library that is not installed.
    """
    write = LINEAR_FORMATS[format_name].write
    if write is None:
        raise OutputError(f"{Path(path).name}: transforms are not written as {format_name}")
    values = checked_linear(matrix.detach().cpu().double().numpy(), Path(path).name)
    write(values, Path(path), ends or Ends(), direction)


def stored_grid(path: str | os.PathLike[str]) -> Grid:
    """Read the grid of an image's voxels as they are stored; raises ImageError, TransformError where it is sheared."""
    header = read_header(Path(path))
    placement = placed(header)
    if placement.grid_to_stored is not None:
        raise TransformError(f"{header.name}: its voxels' axes are not perpendicular: resample it first")
    return placement.grid


def _is_bare(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    try:
        rows = [[float(word) for word in line.replace(",", " ").split()] for line in lines]
    except ValueError:
        return False
    return [len(row) for row in rows] == [4, 4, 4, 4]


def _read_parts(path: Path, _ends: Ends) -> Matrix:
    return compose_linear(linear_parts(path, start_of(path)), excerpt(path.name))


def _read_bare(path: Path) -> Matrix:
    return parse_matrix(read_text(path, TransformError, LIMIT_BYTES), excerpt(path.name))


def _read_lps(path: Path, _ends: Ends) -> Matrix:
    return _read_bare(path)


def _read_ras(path: Path, _ends: Ends) -> Matrix:
    return FLIP4 @ _read_bare(path) @ FLIP4


def _read_fsl(path: Path, ends: Ends) -> Matrix:
    return from_scaled_voxels(_read_bare(path), *ends.grids(excerpt(path.name), "a matrix of FSL"))


def _read_lta(path: Path, _ends: Ends) -> Matrix:
    return parse_lta(read_text(path, TransformError, LIMIT_BYTES), excerpt(path.name))


def _write_itk(matrix: Matrix, path: Path, _ends: Ends, _direction: str) -> None:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(matrix[:3, :3].flatten().tolist())
    affine.SetTranslation(matrix[:3, 3].tolist())
    if path.suffix in (".tfm", ".txt"):
        write_affine_text(affine, path)
        return
    with quiet_native(), native_path(path) as name:
        sitk.WriteTransform(affine, name)
    if not np.allclose(_read_parts(path, Ends()), matrix, rtol=ROUNDING, atol=ROUNDING):
        raise OutputError(f"{path}: what was written does not read back as it should: is the disk full or damaged?")


def _write_lps(matrix: Matrix, path: Path, _ends: Ends, direction: str) -> None:
    write_text(format_matrix(matrix, MatrixHeader("LPS", direction)), path)


def _write_ras(matrix: Matrix, path: Path, _ends: Ends, direction: str) -> None:
    write_text(format_matrix(FLIP4 @ matrix @ FLIP4, MatrixHeader("RAS", direction)), path)


def _write_fsl(matrix: Matrix, path: Path, ends: Ends, _direction: str) -> None:
    write_text(format_matrix(to_scaled_voxels(matrix, *ends.grids(path.name, "a matrix of FSL"))), path)


def _write_lta(matrix: Matrix, path: Path, ends: Ends, direction: str) -> None:
    source, target = ends.grids(path.name, "a transform of FreeSurfer")
    roles = f" (src: {', dst: '.join(direction.split('-to-'))} image)" if direction else ""
    write_text(format_lta(matrix, source, target, f"written by crossalign: maps points of src to dst{roles}"), path)


LINEAR_FORMATS: dict[str, LinearFormat] = {
    "itk": LinearFormat(FIXED_TO_MOVING, (".tfm", ".txt", ".h5", ".mat"), False, _read_parts, _write_itk),
    "minc": LinearFormat(FIXED_TO_MOVING, (".xfm",), False, _read_parts, None),
    "matrix-lps": LinearFormat("", (".txt", ".mat"), False, _read_lps, _write_lps),
    "matrix-ras": LinearFormat("", (".txt", ".mat"), False, _read_ras, _write_ras),
    "fsl": LinearFormat(MOVING_TO_FIXED, (".mat", ".txt"), True, _read_fsl, _write_fsl),
    "lta": LinearFormat(MOVING_TO_FIXED, (".lta",), True, _read_lta, _write_lta),
}
