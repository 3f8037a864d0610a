"""Initial transforms that have a name: from the headers, or from centres where the scans share no coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.geometry import Grid, Rigid, grid_overlap, inside_fraction
from crossalign.images import Image, LabelMap, foreground
from crossalign.registration.frame import rotation_to_axes
from crossalign.registration.landmarks import LandmarkFit
from crossalign.registration.pose_prior import TRANSRECTAL, RotationPrior, expected_rotation
from crossalign.types import Vector

HEADER, IDENTITY, CENTER, MASK_CENTER = "header", "identity", "center", "mask-center"
MASKS, LANDMARKS = "masks", "landmarks"
INITIAL_WORDS = (HEADER, IDENTITY, CENTER, MASK_CENTER, MASKS, LANDMARKS)
STRUCTURES_APART_MM = 30.0  # headers that put the two outlines of one structure farther apart are not believed
LEAST_OVERLAP, SAME_VIEW = 0.25, 0.9
NEAR_ZERO_VOXELS = 2.0
MASK_POINTS = 100_000


@dataclass(frozen=True, eq=False)
class Initialisation:
    """An initial transform, fixed to moving (mm, LPS), its name (or its file's), and why it was chosen.

    `reason` is empty where it was asked for. `landmarks` is the fit that it is from, where it is from one.
    """

    fixed_to_moving: Rigid
    name: str
    reason: str
    landmarks: LandmarkFit | None = None


def center_initialisation(fixed: Image, moving: Image) -> Rigid:
    """Return the shift from the middle of what the fixed image shows to that of the moving image, fixed to moving."""
    return Rigid.from_translation(shown_center_mm(moving) - shown_center_mm(fixed))


def mask_center_initialisation(fixed_mask: LabelMap, moving: Image) -> Rigid:
    """Return the shift from the mask's centroid to the middle of what the moving image shows, fixed to moving."""
    return Rigid.from_translation(shown_center_mm(moving) - fixed_mask.centroid_mm())


def shown_center_mm(image: Image) -> Vector:
    """Return the middle (3,), mm, of the box that an image shows something in; of its grid where it is empty.

    An ultrasound that was padded to a larger grid shows the patient off the grid's middle.
    """
    shown = foreground(image.voxels)
    plane = shown.any(0)
    along = [one.nonzero()[:, 0] for one in (plane.any(0), plane.any(1), shown.flatten(1).any(1))]
    if len(along[0]) == 0:
        return image.grid.center_mm()
    middle = torch.stack([(index[0] + index[-1]).double() / 2 for index in along])
    return image.grid.to_physical(middle[None])[0]


def masks_initialisation(
    fixed_mask: LabelMap,
    moving_mask: LabelMap,
    prior: RotationPrior | None = TRANSRECTAL,
    fixed_to_patient: Tensor | None = None,
) -> Rigid:
    """Return the transform from the fixed mask's centroid to the moving mask's, fixed to moving.

    Its rotation is the prior's mean, the scans' axes taken for the patient's; none without a prior. `fixed_to_patient`
    (3, 3) is that of a `Problem`.
    """
    shift = Rigid.from_translation(moving_mask.centroid_mm() - fixed_mask.centroid_mm())
    return expected_turn(shift, prior, fixed_mask, moving_mask.grid, fixed_to_patient)


def expected_turn(
    initial: Rigid,
    prior: RotationPrior | None,
    fixed_mask: LabelMap,
    moving: Grid,
    fixed_to_patient: Tensor | None = None,
) -> Rigid:
    """Return an initial transform with the mean rotation of a prior in place of its own, about the mask's centroid.

    Where the transform turns too far from the prior, and without one, it stays as it is.
    """
    if prior is None:
        return initial
    axes = rotation_to_axes(fixed_mask.grid)
    to_patient = axes if fixed_to_patient is None else fixed_to_patient.double() @ axes
    expected = expected_rotation(prior, moving, initial, to_patient)
    if expected is None:
        return initial
    center = fixed_mask.centroid_mm()
    target = initial.apply(center[None])[0]
    return Rigid(expected.rotation, target - expected.rotation @ center)


def choose_initialisation(
    fixed: Image,
    moving: Image,
    fixed_mask: LabelMap | None = None,
    moving_mask: LabelMap | None = None,
    prior: RotationPrior | None = TRANSRECTAL,
) -> Initialisation:
    """Choose the headers where they put the scans into one world, otherwise the masks' or the grids' centres.

    They do where a quarter of the smaller field of view lies in the other one, and a quarter of the structure, where it
    is marked, in the moving image. A header whose origin is its own corner was given no place in a world: where one
    scan has such a header nine tenths of the smaller field of view must lie in the other, and where both have, the two
    must be one field of view. Where both masks are given their centroids must lie within 30 mm of each other.
    """
    against = _against_headers(fixed.grid, moving.grid)
    if against is None and fixed_mask is not None:
        inside = inside_fraction(fixed_mask.points_mm(), moving.grid)
        if inside < LEAST_OVERLAP:
            against = f"the headers put only {inside:.0%} of the structure into the moving image"
    if against is None and fixed_mask is not None and moving_mask is not None:
        apart = float((moving_mask.centroid_mm() - fixed_mask.centroid_mm()).norm())
        if apart > STRUCTURES_APART_MM:
            against = f"the headers put the two masks' structures {apart:.0f} mm apart"
    if against is None:
        overlap = grid_overlap(fixed.grid, moving.grid)
        reason = f"by the headers {overlap:.0%} of the smaller field of view lies in the other"
        return Initialisation(Rigid.identity(), HEADER, reason)
    if fixed_mask is not None and moving_mask is not None:
        return Initialisation(masks_initialisation(fixed_mask, moving_mask, prior), MASKS, against)
    if fixed_mask is not None:
        return Initialisation(mask_center_initialisation(fixed_mask, moving), MASK_CENTER, against)
    return Initialisation(center_initialisation(fixed, moving), CENTER, against)


def _against_headers(fixed: Grid, moving: Grid) -> str | None:
    """Say why the headers do not tell where one scan lies in the other; None where they do."""
    overlap = grid_overlap(fixed, moving)
    if overlap == 0:
        return "the headers put the scans apart"
    if overlap < LEAST_OVERLAP:
        return f"the headers let only {overlap:.0%} overlap"
    unplaced = int(_has_corner_at_origin(fixed)) + int(_has_corner_at_origin(moving))
    small, large = sorted(math.prod(grid.extent_mm()) for grid in (fixed, moving))
    if unplaced == 2 and overlap * small < SAME_VIEW * large:
        return "both headers count from their own scan's corner, so neither says where one lies in the other"
    if unplaced == 1 and overlap < SAME_VIEW:
        return "one header counts from its own scan's corner, so it does not say where that scan lies in the other"
    return None


def _has_corner_at_origin(grid: Grid) -> bool:
    """Whether a corner of the grid lies within two voxels of the world's origin, the axes along the world's."""
    axes = torch.tensor(grid.direction, dtype=torch.float64).abs()
    if not torch.allclose(axes, axes.round(), atol=1e-3):
        return False
    step = axes.round() @ torch.tensor(grid.spacing_mm, dtype=torch.float64)
    return bool((grid.corners_mm().abs() / step).amax(1).min() <= NEAR_ZERO_VOXELS)
