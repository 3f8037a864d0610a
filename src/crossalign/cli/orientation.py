"""Where the axes of two scans point, as the options of `register` and `explain` say or leave to be found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from crossalign.cli.requests.registration import ExplainRequest, RegisterRequest
from crossalign.images import Image, LabelMap
from crossalign.models.pretrained import shipped_path
from crossalign.registration import Initialisation, Method
from crossalign.registration.initialisation import (
    CENTER,
    HEADER,
    IDENTITY,
    LANDMARKS,
    MASK_CENTER,
    MASKS,
    expected_turn,
)
from crossalign.registration.methods import default_method_name
from crossalign.registration.orientation import AUTO, Orientation, OrientationRequest, find_orientation
from crossalign.registration.orientation import HEADER as AS_HEADER
from crossalign.registration.pose_prior import TRANSRECTAL, RotationPrior
from crossalign.registration.recognition import Recognizer, shipped_recognizer

UNTRACKED = (HEADER, IDENTITY, CENTER, MASK_CENTER, MASKS)  # initialisations that leave the rotation open
PRIORS: Mapping[str, RotationPrior | None] = {"transrectal": TRANSRECTAL, "none": None}


@dataclass(frozen=True, eq=False)
class Scans:
    """Both scans, with their structure's masks where known."""

    fixed: Image
    moving: Image
    fixed_mask: LabelMap | None = None
    moving_mask: LabelMap | None = None


def found_orientation(
    request: RegisterRequest | ExplainRequest, method: Method, scans: Scans, initial: Initialisation
) -> tuple[Orientation | None, Initialisation]:
    """Find where the axes point, and turn an initialisation without a tracker accordingly.

    None where nothing was asked for and nothing is recognised: the headers are believed. Raises InputError for an
    orientation that cannot be.
    """
    is_tracked = initial.name == LANDMARKS or (request.initial is not None and request.initial not in UNTRACKED)
    recognizer = _recognizer(request, method)
    spelled = request.moving_orientation
    if spelled is None:
        believed = is_tracked or request.initial in (HEADER, IDENTITY) or recognizer is None
        spelled = AS_HEADER if believed else AUTO
    asked = OrientationRequest(
        scans.fixed,
        scans.moving,
        scans.fixed_mask,
        scans.moving_mask,
        request.fixed_orientation,
        spelled,
        initial.fixed_to_moving if is_tracked else None,
    )
    if recognizer is None and {request.fixed_orientation, spelled} == {AS_HEADER}:
        return None, _expected(request, scans, initial, None)
    found = find_orientation(asked, recognizer)
    if is_tracked or {request.fixed_orientation, spelled} == {AS_HEADER}:
        return found, _expected(request, scans, initial, found)
    mask, fixed = scans.fixed_mask, scans.fixed.grid
    center = fixed.center_mm() if mask is None else mask.centroid_mm()
    turned = found.rotated(initial.fixed_to_moving, fixed, scans.moving.grid, center)
    return found, _expected(request, scans, replace(initial, fixed_to_moving=turned), found)


def _expected(
    request: RegisterRequest | ExplainRequest, scans: Scans, initial: Initialisation, orientation: Orientation | None
) -> Initialisation:
    """Turn an initialisation from both masks by the mean of the rotation prior; leave others as they are."""
    if initial.name != MASKS or scans.fixed_mask is None:
        return initial
    axes = None if orientation is None else orientation.fixed_to_patient
    prior = PRIORS[request.rotation_prior]
    turned = expected_turn(initial.fixed_to_moving, prior, scans.fixed_mask, scans.moving.grid, axes)
    return replace(initial, fixed_to_moving=turned)


def _recognizer(request: RegisterRequest | ExplainRequest, method: Method) -> Recognizer | None:
    """Load the network where it is wanted: for the prostate's methods that come in the package, and where asked for."""
    if request.recognition == "off":
        return None
    asked = request.recognition == "on" or AUTO in (request.fixed_orientation, request.moving_orientation)
    # Where both masks choose `surface`, the method says so itself.
    name = request.method or default_method_name(request.fixed_mask is not None)
    is_prostate = method.uses_moving_mask or shipped_path(name) is not None
    return shipped_recognizer() if asked or is_prostate else None
