"""The initial transforms of test registrations: fixed for good by the seed, the case, the range, and nothing else."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

import torch
from torch import Tensor

from crossalign.data import LoadedCase
from crossalign.errors import InputError
from crossalign.geometry import Rigid, draw_perturbation
from crossalign.geometry.orientation import code_of, nearest_directions
from crossalign.input import excerpt, finite_number
from crossalign.registration.initialisation import (
    CENTER,
    MASK_CENTER,
    MASKS,
    center_initialisation,
    expected_turn,
    mask_center_initialisation,
    masks_initialisation,
)
from crossalign.registration.orientation import AUTO, HEADER, Orientation, OrientationRequest, find_orientation
from crossalign.registration.pose_prior import TRANSRECTAL
from crossalign.registration.recognition import shipped_recognizer

FARTHEST_MM = 1e4
UNTRACKED = (MASKS, MASK_CENTER, CENTER)


@dataclass(frozen=True)
class InitialisationRange:
    """The initial SRE in mm: uniform between two values, or exactly one where they are equal."""

    low_mm: float
    high_mm: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low_mm) and math.isfinite(self.high_mm) and 0 <= self.low_mm <= self.high_mm):
            raise InputError(
                f"an initialisation needs 0 <= low <= high in mm, got {self.low_mm:g} to {self.high_mm:g}: "
                "write 8, 16 or 0-20"
            )

    @staticmethod
    def parse(text: str) -> InitialisationRange:
        """Read `8` (exactly 8 mm) or `0-20` (uniform from 0 to 20 mm); raises InputError."""
        values = [finite_number(end) for end in text.split("-")]
        low, high = values[0], values[-1]
        if low is None or high is None or len(values) > 2:
            raise InputError(f"cannot read the initialisation '{excerpt(text)}': expected mm as 8, 16 or 0-20")
        if high > FARTHEST_MM:
            raise InputError(
                f"the initialisation '{excerpt(text)}' is over {FARTHEST_MM:g} mm: expected mm as 8, 16 or 0-20"
            )
        return InitialisationRange(low, high)

    def __str__(self) -> str:
        if self.low_mm == self.high_mm:
            return _shortest(self.low_mm)
        return f"{_shortest(self.low_mm)}-{_shortest(self.high_mm)}"


@dataclass(frozen=True)
class NamedInitialisation:
    """The one initialisation of a case that needs no tracker: `masks`, `mask-center` or `center`.

    `moving_orientation` says where the voxel axes of the moving images point: `header`, `auto` (recognised) or a code.
    """

    name: str
    moving_orientation: str = HEADER

    def __post_init__(self) -> None:
        if self.name not in UNTRACKED:
            raise InputError(f"'{excerpt(self.name)}' is no initialisation: expected one of {', '.join(UNTRACKED)}")

    def __str__(self) -> str:
        return self.name


Start: TypeAlias = InitialisationRange | NamedInitialisation


def initialisation_title(text: str) -> str:
    """Return an initialisation as rows name it, with its unit: `8 mm`, `[0, 20] mm`; an untracked one has none."""
    if text in UNTRACKED:
        return text
    low, _, high = text.partition("-")
    return f"[{low}, {high}] mm" if high else f"{low} mm"


def untracked_initialisation(
    case: LoadedCase, start: NamedInitialisation, fixed_to_patient: Tensor | None = None
) -> Rigid:
    """Make a case's initial transform without a tracker, fixed to moving: `masks`, `mask-center` or `center`.

    It brings the axes of both images to one another, as the headers and `moving_orientation` name them, and `masks`
    turns by the mean of the rotation prior besides. `fixed_to_patient` (3, 3) is as for `evaluate`. Raises InputError
    for `masks` where the case has no moving mask, and for an orientation that cannot be.
    """
    initial = _between_centres(case, start.name)
    axes = fixed_to_patient
    if start.moving_orientation != HEADER:
        orientation = _orientation(case, start.moving_orientation, fixed_to_patient)
        axes = orientation.fixed_to_patient
        initial = orientation.rotated(initial, case.fixed.grid, case.moving.grid, case.fixed_mask.centroid_mm())
    return (
        expected_turn(initial, TRANSRECTAL, case.fixed_mask, case.moving.grid, axes) if start.name == MASKS else initial
    )


def _between_centres(case: LoadedCase, name: str) -> Rigid:
    if name == CENTER:
        return center_initialisation(case.fixed, case.moving)
    if name == MASK_CENTER:
        return mask_center_initialisation(case.fixed_mask, case.moving)
    if case.moving_mask is None:
        raise InputError(
            f"case {case.name} has no moving mask, which the initialisation '{MASKS}' needs: name it in the manifest's "
            f"column moving_mask, or begin at {MASK_CENTER}"
        )
    return masks_initialisation(case.fixed_mask, case.moving_mask, prior=None)


def _orientation(case: LoadedCase, moving_orientation: str, fixed_to_patient: Tensor | None) -> Orientation:
    fixed = HEADER if fixed_to_patient is None else code_of(fixed_to_patient @ nearest_directions(case.fixed.grid))
    asked = OrientationRequest(case.fixed, case.moving, case.fixed_mask, case.moving_mask, fixed, moving_orientation)
    return find_orientation(asked, shipped_recognizer() if moving_orientation == AUTO else None)


def parse_initialisations(text: str) -> tuple[Start, ...]:
    """Read a list such as `8,16,0-20` or `masks`; raises InputError for an empty list and for one given twice."""
    parts = text.split(",")
    if not all(part.strip() for part in parts):
        raise InputError(
            f"there is no initialisation between two commas of '{excerpt(text)}': expected mm as 8,16,0-20"
        )
    ranges: tuple[Start, ...] = tuple(
        NamedInitialisation(part) if part in UNTRACKED else InitialisationRange.parse(part) for part in parts
    )
    check_distinct(ranges)
    return ranges


def check_distinct(ranges: tuple[Start, ...]) -> None:
    """Raise InputError where a range is given twice: its rows could not be told apart."""
    for index, one in enumerate(ranges):
        if one in ranges[:index]:
            raise InputError(f"the initialisation {one} is given twice: give each once")


def draw_initialisations(
    case: LoadedCase, initial_range: InitialisationRange, count: int, seed: int
) -> tuple[Rigid, ...]:
    """Draw the case's initial transforms, fixed to moving, each within 0.01 mm of the SRE that was drawn for it.

    The i-th depends on the seed, the case's name, the range and i alone: other cases, ranges and counts do not change
    it, so the first 5 of 40 are the 5. Each is reference @ perturbation about the centroid of the fixed structure.
    """
    if count < 1:
        raise InputError(f"ask for 1 initialisation or more for each case, got {count}")
    points, center = case.surface_mm.double(), case.fixed_mask.centroid_mm()
    return tuple(
        case.fixed_to_moving
        @ _perturbation(points, center, initial_range, f"{seed}|{case.name}|{initial_range}|{index}")
        for index in range(count)
    )


def _perturbation(
    points_mm: torch.Tensor, center_mm: torch.Tensor, initial_range: InitialisationRange, key: str
) -> Rigid:
    generator = torch.Generator().manual_seed(_stable_seed(key))
    unit = torch.rand(1, generator=generator, dtype=torch.float64)
    target_mm = initial_range.low_mm + (initial_range.high_mm - initial_range.low_mm) * unit
    return draw_perturbation(points_mm[None], center_mm[None], target_mm, generator)[0]


def _stable_seed(key: str) -> int:
    # Not hash(): Python salts it anew in each process.
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def _shortest(value: float) -> str:
    """Write a number so that it reads back the same, without an exponent (`1e-3` would look like a range)."""
    return f"{Decimal(repr(value)):f}".removesuffix(".0")
