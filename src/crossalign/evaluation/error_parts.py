"""The parts of a registration's error: of the structure's centre along the patient's axes, and of the rotation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.data import LoadedCase
from crossalign.errors import InputError
from crossalign.geometry import Rigid
from crossalign.registration.frame import rotation_to_axes
from crossalign.types import Triple, Vector

PATIENT_AXES = ("left", "posterior", "superior")
LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))


@dataclass(frozen=True)
class ErrorParts:
    """What is left to correct, as a motion of the fixed structure.

    `center_mm` is how far too far to the patient's left, posterior and superior the transform takes the structure's
    centre: it maps the centre to where the reference maps the centre moved by this. `angle_deg` is the angle, 0 to 180,
    of the rotation that is left.
    """

    center_mm: Triple
    angle_deg: float

    @property
    def distance_mm(self) -> float:
        """Length of the centre's error."""
        return float(torch.tensor(self.center_mm, dtype=torch.float64).norm())


def error_parts(
    fixed_to_moving: Rigid, case: LoadedCase, fixed_to_patient: Float[Tensor, "3 3"] | None = None
) -> ErrorParts:
    """Measure a transform of fixed to moving points against the case's reference.

    The patient's axes are the fixed image's own, each taken for the one of L, P and S that it is nearest to, and turned
    by `fixed_to_patient` where the header is wrong (see `registration.Problem`); None believes it.
    """
    axes = patient_axes(case, fixed_to_patient)
    return parts_between(fixed_to_moving, case.fixed_to_moving, case.fixed_mask.centroid_mm(), axes)


def parts_between(
    fixed_to_moving: Rigid, reference: Rigid, center_mm: Vector, axes: Float[Tensor, "3 3"]
) -> ErrorParts:
    """Measure a transform against a reference, at a centre; `axes` rotates the fixed world's axes to the patient's."""
    center = center_mm.double()[None]
    left_over = reference.inverse().to("cpu", torch.float64) @ fixed_to_moving.to("cpu", torch.float64)
    left, posterior, superior = (axes @ (left_over.apply(center) - center)[0]).tolist()
    return ErrorParts((left, posterior, superior), float(left_over.angle_deg()))


def patient_axes(case: LoadedCase, fixed_to_patient: Float[Tensor, "3 3"] | None = None) -> Float[Tensor, "3 3"]:
    """Return the rotation from the axes of the fixed image's world to those of the patient, float64."""
    to_image = rotation_to_axes(case.fixed.grid)
    return to_image if fixed_to_patient is None else fixed_to_patient.double() @ to_image


def check_rotation(fixed_to_patient: Float[Tensor, "3 3"] | None) -> None:
    """Raise InputError for a matrix that is no rotation."""
    if fixed_to_patient is None:
        return
    turned = fixed_to_patient.double()
    orthonormal = torch.allclose(turned @ turned.mT, torch.eye(3, dtype=torch.float64), atol=1e-4)
    if not orthonormal or float(torch.linalg.det(turned)) < 0:
        raise InputError(f"fixed_to_patient must be a rotation (3, 3), got {turned.tolist()}")


def axes_text(fixed_to_patient: Float[Tensor, "3 3"] | None) -> str:
    """Say in words which axes the errors of the centre are along."""
    if fixed_to_patient is None or torch.equal(fixed_to_patient.double(), torch.eye(3, dtype=torch.float64)):
        return "those of the fixed images, as their headers name them"
    largest = fixed_to_patient.abs().argmax(0).tolist()
    named = [LETTERS[row][int(fixed_to_patient[row, axis] < 0)] for axis, row in enumerate(largest)]
    return f"the patient's: what the headers of the fixed images call L, P, S is taken for {', '.join(named)}"
