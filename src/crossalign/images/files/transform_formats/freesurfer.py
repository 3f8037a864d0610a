"""FreeSurfer's linear transforms (`.lta`), through nitransforms, which is an extra.

The matrix maps points of the volume "src" to points of the volume "dst", between RAS points or between voxels.
FreeSurfer's registration programs write the moving volume as src and the fixed one as dst. Matrices are read in single
precision.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from crossalign.errors import TransformError
from crossalign.geometry import Grid
from crossalign.images.files.transform_formats.itk import Matrix
from crossalign.images.files.transform_formats.minc import FLIP
from crossalign.images.files.transform_formats.nearly_rigid import checked_linear

VOXELS, RAS = 0, 1
ADVICE = "write it again with 'lta_convert --inlta IN.lta --outlta OUT.lta'"
FLIP4 = np.diag([*np.diag(FLIP), 1.0])


def is_lta(text: str) -> bool:
    """Say whether a text is a transform of FreeSurfer."""
    return re.search(r"^nxforms\s*=", text, re.MULTILINE) is not None


def parse_lta(text: str, name: str) -> Matrix:
    """Read the one transform of a file, points of src to points of dst, LPS mm; raises TransformError."""
    library = _library()
    try:
        transforms = library.FSLinearTransformArray.from_string(text).xforms
    except (AssertionError, ValueError, IndexError, TypeError, KeyError, OSError) as error:
        raise TransformError(f"{name}: not a transform that nitransforms can read from FreeSurfer: {ADVICE}") from error
    if len(transforms) != 1:
        raise TransformError(f"{name}: holds {len(transforms)} transforms, expected one: {ADVICE}")
    (transform,) = transforms
    kind = int(transform.structarr["type"])
    if kind not in (VOXELS, RAS):
        raise TransformError(f"{name}: a transform of the type {kind}, expected 0 (voxels) or 1 (RAS): {ADVICE}")
    if kind == VOXELS and not all(int(transform[end]["valid"]) for end in ("src", "dst")):
        raise TransformError(f"{name}: maps voxels, but does not say where they lie: {ADVICE}")
    transform.set_type(RAS)
    matrix = np.asarray(transform.structarr["m_L"], np.float64)
    return checked_linear(FLIP4 @ matrix @ FLIP4, name)


def format_lta(matrix: Matrix, source: Grid, target: Grid, comment: str) -> str:
    """Write a matrix (4, 4), points of source to points of target in LPS mm, between RAS points, with both geometries.

    Raises TransformError where nitransforms is not installed.
    """
    library = _library()
    transform = library.FSLinearTransform()
    values = transform.structarr
    values["type"], values["sigma"] = RAS, 1.0
    values["m_L"] = FLIP4 @ matrix @ FLIP4
    for end, grid, name in (("src", source, "source"), ("dst", target, "target")):
        values[end] = _geometry(library, grid, name)
    transforms = library.FSLinearTransformArray()
    transforms.structarr["type"], transforms.structarr["subject"] = RAS, "unknown"
    transforms.xforms = [transform]
    _, rest = str(transforms.to_string()).split("\n", 1)
    return f"# {comment}\n{rest}"


def _geometry(library: Any, grid: Grid, name: str) -> Any:
    geometry = library.VolumeGeometry()
    values = geometry.structarr
    axes, size = FLIP @ np.array(grid.direction), np.array(grid.shape[::-1])
    values["valid"], values["volume"], values["voxelsize"], values["filename"] = 1, size, grid.spacing_mm, name
    for axis, key in enumerate(("xras", "yras", "zras")):
        values[key] = axes[:, axis : axis + 1]
    values["cras"] = FLIP @ np.array(grid.origin_mm) + axes * np.array(grid.spacing_mm) @ size / 2
    return np.asanyarray(geometry)


def _library() -> Any:
    try:
        from nitransforms.io import lta
    except ImportError as error:
        raise TransformError(
            "FreeSurfer's transforms (.lta) need nitransforms, which is not installed: "
            "python -m pip install 'crossalign[transforms]'"
        ) from error
    return lta
