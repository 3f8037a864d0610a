"""explain: one pair, one run of networks, and what each application of a network attended to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from crossalign.arguments import checked
from crossalign.errors import InputError
from crossalign.explanation.attention import ADVICE, AttendedPoint, attended_point, check_in_crop
from crossalign.explanation.crops import CropMap, StageCrop, mask_on_crop
from crossalign.explanation.gradients import STEPS, ParameterAttribution, attribute_parameters, grad_cams
from crossalign.networks.capabilities import shown_attention
from crossalign.registration import NetworkRegistration, Problem, RegistrationResult, register
from crossalign.types import Mask, Vector


@dataclass(frozen=True, eq=False)
class StageExplanation:
    """What one application of a stage attended to; `cams` and `attended_points` are empty without attention.

    `mask` are the crop's voxels in the fixed mask; None without one.
    """

    crop: StageCrop
    mask: Mask | None
    cams: tuple[CropMap, ...]
    attended_points: tuple[AttendedPoint, ...]
    parameters: tuple[ParameterAttribution, ...]

    @property
    def mask_fraction(self) -> float:
        """The mask's fraction of the crop; NaN without one."""
        return float("nan") if self.mask is None else float(self.mask.double().mean())

    def maps(self) -> tuple[CropMap, ...]:
        """Every map: the attention blocks', the points', the parameters'."""
        return (*self.cams, *(point.map for point in self.attended_points), *(one.map for one in self.parameters))


@dataclass(frozen=True, eq=False)
class Explanation:
    """A pair, its registration, and what each application of a network attended to, in order."""

    problem: Problem
    result: RegistrationResult
    stages: tuple[StageExplanation, ...]
    warnings: tuple[str, ...]


@checked("problem", "method", "points_mm", "steps")
def explain(
    problem: Problem, method: NetworkRegistration, points_mm: Mapping[str, Vector] | None = None, steps: int = STEPS
) -> Explanation:
    """Register a pair from `problem.initial`, and say what each application of a network attended to.

    Cascades, ensembles and refinement passes are explained as `register` runs them, from where a search or the
    orientation correction leads; of several initialisations the one without perturbation. `points_mm` are named points
    (3,) of the fixed image, LPS, mm. A network without attention gets its parameters' attributions alone, and a
    warning. Raises what `register` raises, and InputError for a point outside a crop or where no network has attention
    for it.
    """
    given = problem.initial, problem.fixed_mask, problem.moving_mask, problem.prior
    result = register(problem.fixed, problem.moving, method, *given)
    crops = stage_crops(problem, method, result)
    points = dict(points_mm or {})
    attending = [crop for crop in crops if shown_attention(crop.stage.network) is not None]
    if points and not attending:
        raise InputError(
            f"no stage of '{method.name}' has attention, so no point can be followed: leave the points out "
            f"(what each parameter depends on can be explained), or {ADVICE}"
        )
    for crop in attending:
        for name, point in points.items():
            check_in_crop(crop, name, point)
    stages = tuple(_explained(crop, problem, points if crop in attending else {}, steps) for crop in crops)
    warnings = (*result.warnings, *_initialisation_warning(result), *_attention_warnings(crops, attending))
    return Explanation(problem, result, stages, warnings)


@torch.no_grad()
def stage_crops(problem: Problem, method: NetworkRegistration, result: RegistrationResult) -> tuple[StageCrop, ...]:
    """Cut again the crops of each application of a network in a result of `register`, in order."""
    context, stages = method.context(problem), method.model.stages
    used = [one for step in result.steps for one in step.applications if one.initialisation == 0]
    passes = max((one.pass_number for one in used), default=1)
    crops: list[StageCrop] = []
    for one in used:
        stage, (fixed, moving) = stages[one.stage_number - 1], context.crops(one)
        parameters = stage.network(fixed, moving)[0].double().cpu()
        crops.append(StageCrop(stage, context.crop_grid(one), fixed, moving, parameters, one, passes))
    return tuple(crops)


def lever_mm(problem: Problem, crop: StageCrop) -> float:
    """Return the mean lever (mm) of a rotation on the fixed mask, or on half of the crop without one.

    The root of two thirds of the mean square distance from the centre: the distance from an axis, over all axes.
    """
    if problem.fixed_mask is None:
        return crop.stage.settings.extent_mm() / 4
    distance = problem.fixed_mask.points_mm() - crop.grid.center_mm()
    return float((distance.square().sum(-1).mean() * 2 / 3).sqrt())


def _explained(crop: StageCrop, problem: Problem, points: Mapping[str, Vector], steps: int) -> StageExplanation:
    return StageExplanation(
        crop=crop,
        mask=mask_on_crop(problem.fixed_mask, crop.grid),
        cams=grad_cams(crop, lever_mm(problem, crop)),
        attended_points=tuple(attended_point(crop, name, point) for name, point in points.items()),
        parameters=attribute_parameters(crop, steps),
    )


def _initialisation_warning(result: RegistrationResult) -> tuple[str, ...]:
    most = max((one.initialisation + 1 for step in result.steps for one in step.applications), default=1)
    warning = f"each stage runs from {most} initialisations: explained is the one without perturbation"
    return (warning,) if most > 1 else ()


def _attention_warnings(crops: tuple[StageCrop, ...], attending: list[StageCrop]) -> tuple[str, ...]:
    return tuple(
        f"{crop.name} has no attention: only what each parameter depends on can be explained; to see attention {ADVICE}"
        for crop in crops
        if crop not in attending
    )
