"""How far a registration is from the truth: on a structure's surface (SRE), at landmarks (TRE), in overlap (Dice)."""

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import ImageError, InputError
from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.images import LabelMap
from crossalign.types import Points

FixedLandmarks: TypeAlias = Float[Tensor, "k 3"]
MovingLandmarks: TypeAlias = Float[Tensor, "m 3"]
LandmarkErrors: TypeAlias = Float[Tensor, "k"]


def surface_registration_error_mm(fixed_to_moving: Rigid, reference: Rigid, surface_mm: Points) -> float:
    """Return the SRE of the papers: the mean of |estimate(p) - reference(p)| over the surface points (n, 3), mm.

    Both transforms map fixed points to moving points. Points correspond to themselves: a rotation of a round structure
    counts, as it would not in a distance between two surfaces. Raises InputError without points.
    """
    if len(surface_mm) == 0:
        raise InputError("SRE needs 1 surface point or more, got none: is the fixed mask empty?")
    points = surface_mm.double()
    return float(mean_displacement_mm(_double(fixed_to_moving), _double(reference), points))


def target_registration_errors_mm(
    fixed_to_moving: Rigid, fixed_mm: FixedLandmarks, moving_mm: MovingLandmarks
) -> LandmarkErrors:
    """Return |fixed_to_moving(fixed_i) - moving_i| of each pair of landmarks (k, 3), (k,), mm."""
    if len(fixed_mm) != len(moving_mm):
        raise InputError(f"TRE needs landmarks in pairs, got {len(fixed_mm)} fixed and {len(moving_mm)} moving")
    return (_double(fixed_to_moving).apply(fixed_mm.double()) - moving_mm.double()).norm(dim=-1)


def target_registration_error_mm(fixed_to_moving: Rigid, fixed_mm: FixedLandmarks, moving_mm: MovingLandmarks) -> float:
    """Return the mean over the landmarks (k, 3), mm; raises InputError without landmarks."""
    errors = target_registration_errors_mm(fixed_to_moving, fixed_mm, moving_mm)
    if len(errors) == 0:
        raise InputError("TRE needs 1 pair of landmarks or more, got none")
    return float(errors.mean())


def dice_score(fixed_mask: LabelMap, moving_mask: LabelMap, fixed_to_moving: Rigid) -> float:
    """Return 2 |F and M| / (|F| + |M|), 0 to 1, of the fixed structure F and the moving one M on the fixed grid.

    Any label but 0 is structure; M is resampled by nearest voxel. What the transform puts outside the fixed grid
    is not counted. Raises ImageError for an empty fixed mask; a moving structure that misses the fixed one scores 0.
    """
    fixed = fixed_mask.labels != 0
    if not bool(fixed.any()):
        raise ImageError(f"{fixed_mask.name}: the mask is empty: Dice needs a structure in it")
    moved = moving_mask.resampled(fixed_mask.grid, fixed_to_moving).labels != 0
    both = torch.count_nonzero(fixed & moved)
    return float(2 * both / (torch.count_nonzero(fixed) + torch.count_nonzero(moved)))


def _double(transform: Rigid) -> Rigid:
    return transform.to("cpu", torch.float64)
