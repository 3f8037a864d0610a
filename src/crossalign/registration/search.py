"""What networks that predict their own error choose by it: an initialisation, and the orientation of the headers."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from crossalign.errors import InputError
from crossalign.geometry import Rigid, inside_fraction
from crossalign.models.arrangement import Arrangement, Stage
from crossalign.models.run_settings import RunSettings
from crossalign.registration.context import RegistrationContext
from crossalign.registration.overlap import LOW_OVERLAP
from crossalign.registration.problem import Step


def candidate_motions(shift_mm: float, rotation_deg: float) -> torch.Tensor:
    """Return the motions as parameters (27 or 189, 6), mm and degrees; the first moves nothing.

    Shifts are -shift_mm, 0 or shift_mm along each axis, each without rotation and with one of `rotation_deg` either way
    about each axis (0: without).
    """
    shifts = torch.tensor(list(itertools.product((0.0, -1.0, 1.0), repeat=3)), dtype=torch.float64) * shift_mm
    axes = torch.eye(3, dtype=torch.float64)
    rotations = torch.cat((torch.zeros(1, 3, dtype=torch.float64), axes, -axes)) * rotation_deg
    used = rotations if rotation_deg > 0 else rotations[:1]
    return torch.cat((shifts.repeat(len(used), 1), used.repeat_interleave(len(shifts), 0)), dim=1)


def search_initialisation(context: RegistrationContext, stage: Stage, initial: Rigid, settings: RunSettings) -> Step:
    """Run a stage from a grid of initialisations about one, and return its answer where it expects the smallest error.

    Those that bring less than a quarter of the structure into the moving image are left out, unless all do. Raises
    InputError where the network does not predict its own error.
    """
    began = time.perf_counter()
    motions = candidate_motions(settings.search_shift_mm, settings.search_rotation_deg)
    candidates = initial @ Rigid.from_parameters(motions, context.problem.center_mm)
    grid = context.problem.moving.grid
    fractions = [inside_fraction(candidate.apply(context.points_mm), grid) for candidate in candidates]
    overlapping = torch.tensor([fraction >= LOW_OVERLAP for fraction in fractions])
    candidates = candidates[overlapping] if bool(overlapping.any()) else candidates
    answers = context.apply(stage, candidates)
    if answers.expected_sre_mm is None:
        raise InputError("a search needs a network that predicts its own error, and this one does not")
    best = answers.transforms[int(answers.expected_sre_mm.nan_to_num(torch.inf).argmin())]
    return Step(f"search ({len(candidates)} initialisations)", best, time.perf_counter() - began)


def choose_orientation(
    context: RegistrationContext, part: Arrangement, orientations_deg: Sequence[int]
) -> tuple[RegistrationContext, tuple[str, ...]]:
    """Choose the orientation correction at which a part expects the smallest error, and warn where it is not 0."""
    contexts = [replace(context, orientation_deg=degrees) for degrees in orientations_deg]
    if len(contexts) == 1:
        return contexts[0], ()
    expected = [part.answer(one, context.problem.initial[None]).expected_sre_mm for one in contexts]
    errors = [math.inf if error is None else float(error.mean().nan_to_num(math.inf)) for error in expected]
    best = contexts[errors.index(min(errors))]
    if best.orientation_deg == 0:
        return best, ()
    warning = (
        f"the headers seem wrong: rotated by {best.orientation_deg} degrees about z the images agree with a "
        "patient's axes. They were registered so; the transform still belongs to the files as they are"
    )
    return best, (warning,)
