"""Where the axes of two scans point in the patient: as the headers say, as the user says, or as a network recognises.

The axes that a header names may be wrong by any of the 24 rotations that bring axes to axes. The fixed image's decide
how crops are cut; without a tracker the moving image's decide the rotation of the initial transform.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import (
    Grid,
    Rigid,
    codes_like,
    orientation_code,
    orientation_rotations,
    rotation_of_code,
)
from crossalign.images import Image, LabelMap
from crossalign.registration.frame import rotation_to_axes
from crossalign.registration.recognition import Recognizer, ScanView
from crossalign.types import Rotations, Vector

HEADER, AUTO = "header", "auto"
# Chosen on 32 patients whose pairs no weights were trained on, judged on ten others: docs/lab/experiments.md.
LEAST_PROBABILITY = 0.55  # of the chosen orientation, where the header says the same
LEAST_AGAINST_HEADER = 0.71  # where it says otherwise
LEAST_GIVEN = 0.3  # of the one that a tracked initial transform gives: of the pairs to fit on, 95 % have 0.39 or more
MOST_NONE = 0.1  # that these are other scans
OTHER_ORGAN = "for another organ or another kind of scan take --method mind-best or mi, and --recognition off"


@dataclass(frozen=True, eq=False)
class Orientation:
    """Where the axes of two scans point, and how sure that is.

    `fixed_code` and `moving_code` say where the voxel axes point; `fixed_to_patient` and `moving_to_patient` (3, 3)
    rotate each image's axes, each taken for the one of L, P and S that it is nearest to, to the patient's. `chosen`
    says how they came about. Probabilities are those of the recognition network, None where it was not asked:
    `probability` that of this orientation, `runner_up` the moving image's next best code, `none_probability` that these
    are no prostate's MR and transrectal ultrasound. `reasons` say why a registration by it is not to be trusted;
    `doubts` do so for methods that do not weigh the probability against what else they know of their error.
    """

    fixed_code: str
    moving_code: str
    fixed_to_patient: Float[Tensor, "3 3"]
    moving_to_patient: Float[Tensor, "3 3"]
    chosen: str
    probability: float | None = None
    runner_up: str = ""
    runner_up_probability: float | None = None
    none_probability: float | None = None
    reasons: tuple[str, ...] = field(default=())
    doubts: tuple[str, ...] = field(default=())

    def rotated(self, initial: Rigid, fixed: Grid, moving: Grid, center_mm: Vector) -> Rigid:
        """Return the initial transform that brings `center_mm` where `initial` does, and the axes to one another."""
        to_patient = self.fixed_to_patient @ rotation_to_axes(fixed)
        rotation = (self.moving_to_patient @ rotation_to_axes(moving)).mT @ to_patient
        target = initial.to("cpu", torch.float64).apply(center_mm[None])[0]
        return Rigid(rotation, target - rotation @ center_mm)

    def reasons_beside(self, weighed: bool) -> tuple[str, ...]:
        """Return why a method's answer is not to be trusted; `weighed` where it accounts for the probability itself."""
        return self.reasons if weighed else (*self.reasons, *self.doubts)

    def text(self) -> str:
        """Say in words which orientation it is, and how sure."""
        parts = [f"fixed {self.fixed_code}, moving {self.moving_code} ({self.chosen})"]
        if self.probability is not None:
            parts.append(f"probability {self.probability:.2f}")
        if self.runner_up_probability is not None:
            parts.append(f"next {self.runner_up} {self.runner_up_probability:.2f}")
        if self.none_probability is not None:
            parts.append(f"neither MR and transrectal ultrasound of a prostate {self.none_probability:.2f}")
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class OrientationRequest:
    """Two scans, their structure's masks where known, and what is said of their axes.

    Each of `fixed_orientation` and `moving_orientation` is `header`, `auto` or a code. `initial` is the transform of a
    tracker, or None where the rotation between the scans is unknown.
    """

    fixed: Image
    moving: Image
    fixed_mask: LabelMap | None = None
    moving_mask: LabelMap | None = None
    fixed_orientation: str = HEADER
    moving_orientation: str = AUTO
    initial: Rigid | None = None


def find_orientation(request: OrientationRequest, recognizer: Recognizer | None) -> Orientation:
    """Find where the axes of two scans point; without a recognition network they are what was said.

    With a tracked initial transform the moving image's axes follow from it, and the network only judges them.
    Raises InputError for a code that is none or that would mirror the patient, and for `auto` without a network.
    """
    if request.initial is not None and request.moving_orientation != HEADER:
        raise InputError(
            f"the moving orientation '{request.moving_orientation}' is for an initialisation without a tracker: a "
            "transform says how the moving image lies; begin at --initial center or mask-center"
        )
    fixed, moving = _candidates(request)
    if recognizer is not None:
        return _recognised(request, recognizer)
    if len(fixed) > 1 or len(moving) > 1:
        raise InputError(
            "the orientation 'auto' needs the recognition network, which was switched off (--recognition off) or not "
            "installed: name the orientation (header, or a code such as LPS)"
        )
    return _orientation(request, fixed[0], _given(request, fixed[0]))


def _candidates(request: OrientationRequest) -> tuple[Tensor, Tensor]:
    """Return the rotations (n, 3, 3) of either image that what was said leaves to choose from."""
    every = orientation_rotations()
    spelled = (request.fixed_orientation, request.fixed.grid), (request.moving_orientation, request.moving.grid)
    fixed, moving = (
        every if text == AUTO else every[:1] if text == HEADER else rotation_of_code(text, grid)[None]
        for text, grid in spelled
    )
    return fixed, moving


def _given(request: OrientationRequest, fixed_to_patient: Tensor) -> Tensor:
    """Return the rotation (3, 3) of the moving image that was said, or that follows from a tracked transform."""
    if request.initial is None:
        return _candidates(request)[1][0]
    to_patient = fixed_to_patient @ rotation_to_axes(request.fixed.grid)
    return to_patient @ request.initial.rotation.to("cpu", torch.float64).mT @ rotation_to_axes(request.moving.grid).mT


def _orientation(request: OrientationRequest, fixed: Tensor, moving: Tensor) -> Orientation:
    said = {request.fixed_orientation, request.moving_orientation}
    chosen = "recognised" if AUTO in said else "as the headers say" if said == {HEADER} else "as given"
    if request.initial is not None:
        chosen += ", the moving image by the initial transform"
    return Orientation(_code(fixed, request.fixed), _code(moving, request.moving), fixed, moving, chosen)


def _code(rotation: Tensor, image: Image) -> str:
    """Return the code of an image's axes, rotated; of a tracker's oblique rotation, the nearest."""
    return codes_like(image.grid)[_index(orientation_rotations(), rotation)]


def _recognised(request: OrientationRequest, recognizer: Recognizer) -> Orientation:
    """Take the likeliest orientation of those to choose from, and judge it beside all others of the moving image."""
    found = recognizer.recognize(*_views(request))
    probability, every = found.probability, found.moving_rotations
    free = request.moving_orientation == AUTO
    if free:
        row, column = divmod(int(probability.argmax()), len(every))
    else:  # with a tracker both images turn alike
        tracked = request.initial is not None
        columns = [_index(every, one if tracked else _given(request, one)) for one in found.fixed_rotations]
        row = int(probability[torch.arange(len(columns)), columns].argmax())
        column = columns[row]
    fixed = found.fixed_rotations[row]
    others = probability[row].clone()
    others[column] = -1.0
    second = int(others.argmax())
    orientation = replace(
        _orientation(request, fixed, every[column] if free else _given(request, fixed)),
        probability=float(probability[row, column]),
        runner_up=_code(every[second], request.moving),
        runner_up_probability=float(others[second]),
        none_probability=found.none_probability,
    )
    return replace(orientation, reasons=_reasons(request, orientation), doubts=_doubts(request, orientation))


def _views(request: OrientationRequest) -> tuple[ScanView, ScanView]:
    """Return what the network is to score: every rotation of the moving image, whatever was said of it."""
    fixed_axes, moving_axes = (rotation_to_axes(image.grid) for image in (request.fixed, request.moving))
    if request.initial is not None:  # the moving crop lies along the fixed image's axes, as the tracker says
        moving_axes = fixed_axes @ request.initial.rotation.to("cpu", torch.float64).mT
    return (
        ScanView(request.fixed, request.fixed_mask, fixed_axes, _candidates(request)[0]),
        ScanView(request.moving, request.moving_mask, moving_axes, orientation_rotations()),
    )


def _index(rotations: Rotations, rotation: Tensor) -> int:
    return int((rotations * rotation).sum((-1, -2)).argmax())


def _reasons(request: OrientationRequest, found: Orientation) -> tuple[str, ...]:
    """Say why a registration by an orientation is not to be trusted, and what to try next."""
    probability, none = found.probability or 0.0, found.none_probability or 0.0
    second = found.runner_up_probability or 0.0
    if none > MOST_NONE:
        header = "" if request.fixed_orientation == AUTO else "if the fixed header is wrong, --fixed-orientation auto; "
        text = "these scans do not look like the MR and the transrectal ultrasound of a prostate in any orientation"
        return (f"{text} (probability {none:.0%}): {header}{OTHER_ORGAN}",)
    if request.initial is not None:
        return ()
    header_code = orientation_code(request.moving.grid)
    differs = request.moving_orientation == AUTO and found.moving_code != header_code
    if probability >= (LEAST_AGAINST_HEADER if differs else LEAST_PROBABILITY):
        return ()
    against = f", where its header says {header_code}" if differs else ""
    text = f"the moving image's orientation is not sure: {found.moving_code} with {probability:.0%}{against}"
    advice = "look at the overlay, and try --moving-orientation"
    return (f"{text}, then {found.runner_up} with {second:.0%}: {advice} {found.runner_up}",)


def _doubts(request: OrientationRequest, found: Orientation) -> tuple[str, ...]:
    """Say that a tracked transform looks wrong, unless the scans look like others in any orientation."""
    probability = found.probability or 0.0
    if request.initial is None or probability >= LEAST_GIVEN or (found.none_probability or 0.0) > MOST_NONE:
        return ()
    text = "the moving image does not look as it does where the initial transform is right"
    return (f"{text} (probability {probability:.0%}): check the transform, or begin at --initial mask-center",)
