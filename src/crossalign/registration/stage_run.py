"""Running a stage, or several together: from several starts as one batch, again until the answer stands still."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.models import Stage
from crossalign.models.cascade_settings import CascadeSettings, ExpectsError
from crossalign.registration.ensemble import average_rigid, perturbed_initialisations, plain_average
from crossalign.registration.preprocessed_pair import PreprocessedPair
from crossalign.registration.problem import Problem, Step
from crossalign.types import Distances, Parameters, Points, Vector, Volume

FIXED_PASSES = 3  # so few are a fixed number of corrections; more are meant to settle, and warn where they do not
BATCH_VOXELS = 2**20  # of one crop each: 32 starts at 32^3 voxels; attention on larger crops needs the memory


@dataclass(frozen=True, eq=False)
class RegistrationContext:
    """One problem as stages see it: its crops, the crops' centre (3,), and the points (n, 3) distances are told at.

    `turn` (3, 3) is the rotation about the centre that brings the headers' axes to the patient's.
    """

    problem: Problem
    preprocessed: PreprocessedPair
    center_mm: Vector
    points_mm: Points
    turn: Tensor = field(default_factory=lambda: torch.eye(3, dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Answers:
    """Where a stage arrived from each of b starts, fixed to moving, and the SRE (b,), mm, that it expects there."""

    transforms: Rigid
    network_sre_mm: Distances | None


@dataclass(frozen=True, eq=False)
class StageRun:
    """The passes of one stage, the scatter and the network's expectation (mm) of the last, and what to warn of."""

    steps: tuple[Step, ...]
    dispersion_mm: float | None
    network_sre_mm: float | None
    warnings: tuple[str, ...]


def run_stages(
    context: RegistrationContext, stages: Sequence[Stage], start: Rigid, settings: CascadeSettings, title: str
) -> StageRun:
    """Run stages from `start` until they move the points by less than the tolerance, or their passes are used up.

    All see the same start, and their answers are averaged.
    """
    current, steps, run = start, [], StageRun((), None, None, ())
    moved_mm = 0.0
    for number in range(1, settings.max_passes + 1):
        began = time.perf_counter()
        answers, found, dispersion = _pass(context, stages, current, settings)
        found = found if number == 1 else _part_of_the_way(context, current, found, settings)
        network = answers.network_sre_mm
        name = title if settings.max_passes == 1 else f"{title}, pass {number}"
        steps.append(Step(name, found, time.perf_counter() - began))
        run = StageRun(tuple(steps), dispersion, None if network is None else float(network.mean()), ())
        moved_mm = float(mean_displacement_mm(current, found, context.points_mm))
        current = found
        if settings.max_passes > 1 and moved_mm < settings.tolerance_mm:
            return run
    if settings.max_passes <= FIXED_PASSES:
        return run
    warning = f"{title} did not settle in {settings.max_passes} passes: the last one still moved {moved_mm:.2f} mm"
    return StageRun(run.steps, run.dispersion_mm, run.network_sre_mm, (warning,))


def answers_from(context: RegistrationContext, stage: Stage, starts: Rigid) -> Answers:
    """Run a stage once from each of a batch of starts; raises no error for what the network answers."""
    settings = stage.settings
    depth, height, width = settings.crop_shape
    size = max(1, BATCH_VOXELS // (depth * height * width))
    parameters: list[Parameters] = []
    expected: list[Distances] = []
    for first in range(0, len(starts), size):
        fixed, moving = context.preprocessed.crops(stage, context.center_mm, starts[first : first + size], context.turn)
        found, doubt = _forward(stage, fixed, moving)
        parameters.append(found.double().cpu())
        if doubt is not None:
            expected.append(doubt.double().cpu())
    corrections = _in_header_axes(Rigid.from_parameters(torch.cat(parameters), torch.zeros(3)), context)
    return Answers(starts @ corrections, torch.cat(expected) if expected else None)


def answers_together(context: RegistrationContext, stages: Sequence[Stage], starts: Rigid) -> Answers:
    """Run each of several stages once from each of a batch of starts, and put their answers one after another.

    The expected SRE is there where every stage has one.
    """
    answers = [answers_from(context, stage, starts) for stage in stages]
    expected = [one.network_sre_mm for one in answers if one.network_sre_mm is not None]
    transforms = [one.transforms for one in answers]
    return Answers(
        Rigid.cat(transforms),
        torch.cat(expected) if len(expected) == len(answers) else None,
    )


def _in_header_axes(corrections: Rigid, context: RegistrationContext) -> Rigid:
    """Bring corrections, told about the crops' centre along the crops' axes, to the images' own space."""
    rotation = context.turn.mT @ corrections.rotation @ context.turn
    shift = corrections.translation_mm @ context.turn
    return Rigid(rotation, context.center_mm + shift - (rotation @ context.center_mm))


def _part_of_the_way(context: RegistrationContext, current: Rigid, found: Rigid, settings: CascadeSettings) -> Rigid:
    """Take a later pass's share of its correction about the crops' centre, told along the patient's axes."""
    share, along = settings.later_share, settings.later_share_z
    if (share, along) == (1, 1):
        return found
    correction = _about_crop(current.inverse() @ found, context)
    parameters = correction.to_parameters(torch.zeros(3)) * torch.tensor([share, share, along, share, share, share])
    return current @ _in_header_axes(Rigid.from_parameters(parameters, torch.zeros(3)), context)


def _about_crop(correction: Rigid, context: RegistrationContext) -> Rigid:
    """Bring a correction of the images' own space to the crops' axes, about their centre: undoes `_in_header_axes`."""
    shift = correction.apply(context.center_mm[None])[0] - context.center_mm
    return Rigid(context.turn @ correction.rotation @ context.turn.mT, context.turn @ shift)


def _forward(stage: Stage, fixed: Volume, moving: Volume) -> tuple[Parameters, Distances | None]:
    if isinstance(stage.network, ExpectsError):
        return stage.network.forward_with_error(fixed, moving)
    return stage.network(fixed, moving), None


def _pass(
    context: RegistrationContext, stages: Sequence[Stage], current: Rigid, settings: CascadeSettings
) -> tuple[Answers, Rigid, float | None]:
    starts = perturbed_initialisations(
        current, context.points_mm, context.center_mm, settings.starts, settings.spread_mm, settings.seed
    )
    answers = answers_together(context, stages, starts)
    broken = ~answers.transforms.matrix().isfinite().flatten(1).all(1)
    if len(broken) == 1 or bool(broken.any()):  # what is not finite is the answer: `register` refuses it
        return answers, answers.transforms[int(broken.long().argmax())], None
    if len(stages) == 1:
        consensus = average_rigid(answers.transforms, context.points_mm)
        return answers, consensus.transform, consensus.dispersion_mm
    count = settings.starts  # the answers lie stage by stage
    means = [
        average_rigid(answers.transforms[n * count : (n + 1) * count], context.points_mm) for n in range(len(stages))
    ]
    mean = plain_average(Rigid.stack([one.transform for one in means]), context.points_mm).transform
    return answers, mean, float(mean_displacement_mm(answers.transforms, mean, context.points_mm.double()).mean())
