"""Refinement passes: a part of a model is run again from its own answer, until the answer no longer changes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.models.arrangement import Answers, Arrangement
from crossalign.models.run_settings import RunSettings
from crossalign.registration.consensus import average_rigid, perturbed_initialisations, plain_average
from crossalign.registration.context import RegistrationContext
from crossalign.registration.problem import Application, Step

FIXED_PASSES = 3  # so few are a fixed number of corrections; more are meant to converge, and warn where they do not


@dataclass(frozen=True, eq=False)
class Refinement:
    """The passes of one part, the dispersion and the network's expected SRE (mm) of the last, and warnings."""

    steps: tuple[Step, ...]
    dispersion_mm: float | None
    network_sre_mm: float | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Pass:
    """Where the members' answers lead on average, their dispersion, and each answer's weight, (members, b)."""

    transform: Rigid
    dispersion_mm: float | None
    weight: Tensor


def refine(
    context: RegistrationContext, part: Arrangement, initial: Rigid, settings: RunSettings, title: str
) -> Refinement:
    """Run a part until a pass moves the points by less than the tolerance, or the passes are used up.

    In each pass all members of an ensemble run from the same initialisations, and their answers are averaged.
    """
    current, steps = initial, list[Step]()
    run, moved_mm = Refinement((), None, None), 0.0
    for number in range(1, settings.max_passes + 1):
        began = time.perf_counter()
        initials = perturbed_initialisations(
            current,
            context.points_mm,
            context.problem.center_mm,
            settings.initialisations,
            settings.perturbation_mm,
            settings.seed,
        )
        answers = [member.answer(context, initials) for member in part.averaged()]
        mean = _mean(context, [one.transforms for one in answers])
        found = mean.transform if number == 1 else _damped(context, current, mean.transform, settings)
        name = title if settings.max_passes == 1 else f"{title}, pass {number}"
        seconds = time.perf_counter() - began
        steps.append(Step(name, found, seconds, _applications(context, answers, mean.weight, number)))
        run = Refinement(tuple(steps), mean.dispersion_mm, expected_sre_mm(answers))
        moved_mm = float(mean_displacement_mm(current, found, context.points_mm))
        current = found
        if settings.max_passes > 1 and moved_mm < settings.tolerance_mm:
            return run
    if settings.max_passes <= FIXED_PASSES:
        return run
    warning = f"{title} did not converge in {settings.max_passes} passes: the last one still moved {moved_mm:.2f} mm"
    return Refinement(run.steps, run.dispersion_mm, run.network_sre_mm, (warning,))


def expected_sre_mm(answers: Sequence[Answers]) -> float | None:
    """Return the mean SRE that the members' networks expect, mm; None where one of them expects nothing."""
    expected = [one.expected_sre_mm for one in answers if one.expected_sre_mm is not None]
    return float(torch.cat(expected).mean()) if len(expected) == len(answers) else None


def _mean(context: RegistrationContext, members: Sequence[Rigid]) -> _Pass:
    """Average each member's answers robustly, and the members' means plainly."""
    transforms = Rigid.cat(members)
    uniform = torch.full((len(members), len(members[0])), 1 / len(transforms), dtype=torch.float64)
    broken = ~transforms.matrix().isfinite().flatten(1).all(1)
    if len(broken) == 1 or bool(broken.any()):  # what is not finite is the answer: `register` refuses it
        return _Pass(transforms[int(broken.long().argmax())], None, uniform)
    means = [average_rigid(one, context.points_mm) for one in members]
    if len(means) == 1:
        return _Pass(means[0].transform, means[0].dispersion_mm, means[0].weight[None])
    mean = plain_average(Rigid.stack([one.transform for one in means]), context.points_mm)
    dispersion = mean_displacement_mm(transforms, mean, context.points_mm.double()).mean()
    return _Pass(mean, float(dispersion), torch.stack([one.weight for one in means]) / len(means))


def _damped(context: RegistrationContext, current: Rigid, found: Rigid, settings: RunSettings) -> Rigid:
    """Apply a fraction of a later pass's correction, about the crop's centre and along the patient's axes.

    A network that was trained to be cautious far from the answer is not, where it refines its own: see docs/lab.
    """
    step, along = settings.refinement_step, settings.refinement_step_z
    if (step, along) == (1, 1):
        return found
    parameters = context.to_crop(current.inverse() @ found)
    return current @ context.from_crop(parameters * torch.tensor([step, step, along, step, step, step]))


def _applications(
    context: RegistrationContext, answers: Sequence[Answers], weight: Tensor, pass_number: int
) -> tuple[Application, ...]:
    """Record each network's answer from each initialisation; transforms in the images' own space."""
    return tuple(
        Application(
            stage_number=context.number_of(stage.stage),
            pass_number=pass_number,
            initialisation=index,
            initial=context.frame.to_world(stage.initial[index]),
            answer=context.frame.to_world(stage.answer[index]),
            weight=stage.weight * float(weight[member, index]),
            orientation_deg=context.orientation_deg,
            expected_sre_mm=None if stage.expected_sre_mm is None else float(stage.expected_sre_mm[index]),
        )
        for member, one in enumerate(answers)
        for stage in one.by_stage
        for index in range(len(stage.initial))
    )
