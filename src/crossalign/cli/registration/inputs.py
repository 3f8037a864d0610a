"""What `crossalign register` reads: which files they are, what records call them, and what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossalign.cli.checks import weight_files
from crossalign.cli.initialisation import (
    LandmarkFiles,
    read_fixed_mask,
    read_initialisation,
    read_moving_mask,
    transform_file,
)
from crossalign.cli.requests.registration import RegisterRequest
from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap, read_transform
from crossalign.images.files.dicom.series import Series
from crossalign.images.files.images import scan_of
from crossalign.images.files.stored import opened, public_name
from crossalign.registration import Initialisation


@dataclass(frozen=True, eq=False)
class Pair:
    """What was read for one registration; the series are those of images that are DICOM."""

    fixed: Image
    moving: Image
    initial: Initialisation
    fixed_mask: LabelMap | None
    moving_mask: LabelMap | None = None
    reference: Rigid | None = None
    fixed_series: Series | None = None
    moving_series: Series | None = None


def input_files(request: RegisterRequest) -> tuple[Path, ...]:
    """Every file that is read."""
    transform, landmarks = transform_file(request.initial), landmark_files(request).paths()
    given = (request.fixed, request.moving, request.fixed_mask, request.moving_mask, request.reference)
    return (*(path for path in (*given, transform, *landmarks) if path is not None), *weight_files(request.method))


def file_names(request: RegisterRequest) -> dict[str, str | None]:
    """Name the inputs by their part, without folders; the label of the mask with it."""
    named = {"fixed": request.fixed, "moving": request.moving, "initial": transform_file(request.initial)}
    named |= {"fixed_mask": request.fixed_mask, "moving_mask": request.moving_mask}
    named |= {"fixed_landmarks": request.fixed_landmarks, "moving_landmarks": request.moving_landmarks}
    names = {part: None if path is None else public_name(path) for part, path in named.items()}
    return names | {"mask_label": request.mask_label, "moving_mask_label": request.moving_mask_label}


def landmark_files(request: RegisterRequest) -> LandmarkFiles:
    """Return the files of landmarks."""
    return LandmarkFiles(request.fixed_landmarks, request.moving_landmarks)


def read_pair(request: RegisterRequest) -> Pair:
    """Read every input; raises ImageError or TransformError."""
    fixed_file = opened(request.fixed, series=request.fixed_series)
    fixed = scan_of(fixed_file)
    moving_file = opened(request.moving, series=request.moving_series)
    moving = scan_of(moving_file)
    mask = read_fixed_mask(request.fixed_mask, request.mask_label, fixed)
    moving_mask = read_moving_mask(request.moving_mask, request.moving_mask_label, moving)
    return Pair(
        fixed=fixed,
        moving=moving,
        initial=read_initialisation(request.initial, (fixed, moving), mask, moving_mask, landmark_files(request)),
        fixed_mask=mask,
        moving_mask=moving_mask,
        reference=None if request.reference is None else read_transform(request.reference),
        fixed_series=fixed_file.series,
        moving_series=moving_file.series,
    )
