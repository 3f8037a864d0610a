"""What a registration of the protocol begins with, and what its method is told beside the scans."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from crossalign.data import LoadedCase
from crossalign.evaluation.initialisations import (
    InitialisationRange,
    Start,
    draw_initialisations,
    untracked_initialisation,
)
from crossalign.geometry import Rigid
from crossalign.geometry.orientation import code_of, nearest_directions
from crossalign.images import LabelMap
from crossalign.registration import Method
from crossalign.registration.orientation import HEADER, Orientation, OrientationRequest, find_orientation


def registration_count(cases: int, starts: Sequence[Start], count: int, methods: int) -> int:
    """Count the registrations of an evaluation: `count` of a case for each range, one where it has a name."""
    return cases * methods * sum(count if isinstance(one, InitialisationRange) else 1 for one in starts)


def initial_transforms(
    case: LoadedCase, start: Start, count: int, seed: int, fixed_to_patient: Float[Tensor, "3 3"] | None
) -> tuple[Rigid, ...]:
    """Return a case's initial transforms, fixed to moving: those drawn from a range, or the one of a name."""
    if isinstance(start, InitialisationRange):
        return draw_initialisations(case, start, count, seed)
    return (untracked_initialisation(case, start, fixed_to_patient),)


def given_besides(
    case: LoadedCase, method: Method, initial: Rigid, fixed_to_patient: Float[Tensor, "3 3"] | None
) -> tuple[LabelMap | None, Orientation | None]:
    """Return the moving mask and the scans' axes for a method that uses both masks; nothing for others."""
    if not method.uses_moving_mask:
        return None, None
    if fixed_to_patient is None:
        return case.moving_mask, None
    code = code_of(fixed_to_patient @ nearest_directions(case.fixed.grid))
    request = OrientationRequest(
        case.fixed, case.moving, fixed_orientation=code, moving_orientation=HEADER, initial=initial
    )
    return case.moving_mask, find_orientation(request, None)
