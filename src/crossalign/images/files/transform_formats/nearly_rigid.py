"""Linear transforms as rigid ones: matrices that were rounded are made orthonormal, others are refused.

Commands that only convert transforms keep the matrix as it is: `compose_linear`.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from crossalign.errors import InputWarning, TransformError
from crossalign.geometry import Rigid
from crossalign.images.files.transform_formats.itk import Linear, Matrix

EXACT = 1e-12  # of a rotation that was computed in double precision
SILENT = 1e-5  # of one in single precision, or printed with six digits
LARGEST = 5e-3  # three digits after the point leave up to 2e-3; a real change of scale or a shear is larger
LARGEST_CONDITION = 1e6  # of a matrix that is to be inverted
REACH_MM = 100.0
ADVICE = "save its rigid part alone"


def compose_rigid(parts: Sequence[Linear], name: str) -> Rigid:
    """Compose transforms, the last of which is applied first; raises TransformError where the whole is not rigid.

    A part that is rigid but for rounding is made so about its own centre, and the user is told by how much.
    """
    matrix = np.eye(4)
    corrected = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for part in parts:
            rotation = _orthonormal(part.matrix, name, strict=len(parts) == 1)
            corrected = max(corrected, float(np.linalg.norm(rotation - part.matrix, 2)))
            matrix = matrix @ _homogeneous(part._replace(matrix=rotation))
    if not np.isfinite(matrix).all():
        raise TransformError(f"{name}: its numbers are too large for a transform in mm: save the transform again")
    rotation = _orthonormal(matrix[:3, :3], name, strict=True)
    corrected = max(corrected, float(np.linalg.norm(rotation - matrix[:3, :3], 2)))
    if corrected > SILENT:
        warnings.warn(
            f"{name}: the matrix is a rotation but for rounding, and was made one: points at {REACH_MM:.0f} mm from "
            f"its centre moved by up to {corrected * REACH_MM:.2g} mm",
            InputWarning,
            stacklevel=3,
        )
    return Rigid(torch.tensor(rotation, dtype=torch.float64), torch.tensor(matrix[:3, 3], dtype=torch.float64))


def compose_linear(parts: Sequence[Linear], name: str) -> Matrix:
    """Compose transforms to a matrix (4, 4), the last of which is applied first; scale, shear and mirroring are kept.

    Raises TransformError where the whole is not finite or has no inverse.
    """
    matrix = np.eye(4)
    with np.errstate(over="ignore", invalid="ignore"):
        for part in parts:
            matrix = matrix @ _homogeneous(part)
    return checked_linear(matrix, name)


def checked_linear(matrix: Matrix, name: str) -> Matrix:
    """Return a matrix (4, 4) that maps points; raises TransformError where it is not finite or has no inverse."""
    if not np.isfinite(matrix).all():
        raise TransformError(f"{name}: its numbers are too large for a transform in mm: save the transform again")
    if float(np.abs(matrix[3] - (0.0, 0.0, 0.0, 1.0)).max()) > EXACT:
        raise TransformError(f"{name}: the last row of the matrix is not 0 0 0 1: give a matrix that maps points")
    if not float(np.linalg.cond(matrix[:3, :3])) < LARGEST_CONDITION:
        raise TransformError(f"{name}: the matrix has no inverse (it flattens space): save the transform again")
    return matrix


def rigid_fault(matrix: Matrix) -> str:
    """Say in which way a matrix (4, 4) is not rigid, as 'it scales its axes by ...'; an empty text where it is."""
    return _fault(matrix[:3, :3])


def _homogeneous(part: Linear) -> Matrix:
    matrix = np.eye(4)
    matrix[:3, :3] = part.matrix
    matrix[:3, 3] = part.translation + part.center - part.matrix @ part.center
    return matrix


def _orthonormal(matrix: Matrix, name: str, strict: bool) -> Matrix:
    """Return the nearest rotation; where it is not near, the matrix as it is, or TransformError if `strict`."""
    error = _fault(matrix)
    if error and strict:
        raise TransformError(f"{name}: the matrix is not rigid ({error}): {ADVICE}")
    if error or float(np.abs(matrix.T @ matrix - np.eye(3)).max()) < EXACT:
        return matrix
    left, _, right = np.linalg.svd(matrix)
    nearest: Matrix = left @ right
    return nearest


def _fault(matrix: Matrix) -> str:
    """Say in which way a matrix is not a rotation, the tolerance aside; an empty text where it is one."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(matrix, axis=0)
        determinant = float(np.linalg.det(matrix))
    if not np.isfinite(lengths).all() or not np.isfinite(determinant):
        return "its numbers are too large"
    if float(lengths.min()) == 0:
        return "it flattens space"
    units = matrix / lengths
    cosines = (units.T @ units)[np.triu_indices(3, 1)]
    if float(np.abs(lengths - 1).max()) > LARGEST:
        return f"it scales its axes by {', '.join(f'{length:.4g}' for length in lengths)}"
    if float(np.abs(cosines).max()) > LARGEST:
        angles = ", ".join(f"{angle:.4g}" for angle in np.degrees(np.arccos(np.clip(cosines, -1, 1))))
        return f"it shears: its axes are {angles} degrees apart, not 90"
    return "it mirrors" if determinant < 0 else ""
