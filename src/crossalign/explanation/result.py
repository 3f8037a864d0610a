"""explain: one pair, one cascade, and what each of its stages looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from crossalign.errors import InputError
from crossalign.explanation.attention import (
    ATTENTION_NETWORKS,
    AttendedPoint,
    attended_point,
    attention_blocks,
    check_in_crop,
)
from crossalign.explanation.gradients import STEPS, ParameterShare, grad_cams, parameter_shares
from crossalign.explanation.maps import CropMap, View, mask_on_crop, stage_views
from crossalign.models.cascade_settings import CascadeSettings
from crossalign.registration import Cascade, Problem, RegistrationResult, register
from crossalign.registration.frame import is_oblique
from crossalign.types import Vector


@dataclass(frozen=True, eq=False)
class StageExplanation:
    """What one stage looked at. `cams` and `looks` are empty for a network without attention."""

    view: View
    cams: tuple[CropMap, ...]
    attended_points: tuple[AttendedPoint, ...]
    parameters: tuple[ParameterShare, ...]
    cams_inside: tuple[float, ...]
    mask_share: float

    def maps(self) -> tuple[CropMap, ...]:
        """Every map of the stage: the attention blocks', the points', the parameters'."""
        return (*self.cams, *(look.map for look in self.attended_points), *(one.map for one in self.parameters))


@dataclass(frozen=True, eq=False)
class Explanation:
    """A pair, the registration that is explained, and its stages in order."""

    problem: Problem
    result: RegistrationResult
    stages: tuple[StageExplanation, ...]
    warnings: tuple[str, ...]


def explain(
    problem: Problem, cascade: Cascade, points_mm: Mapping[str, Vector] | None = None, steps: int = STEPS
) -> Explanation:
    """Say what each stage of a cascade looked at on its way from `problem.initial`.

    `points_mm` are named points (3,) of the fixed image, LPS, mm. Each stage is run once, from where the stage before
    it arrived, whatever `cascade.run` says of searches, several starts and passes. A stage without attention gets its
    parameters' attribution alone, and a warning. Raises what `register` raises, and InputError for a point outside a
    stage's crop or where no stage has attention for it.
    """
    once = Cascade(cascade.stages, cascade.device, cascade.label)
    result = register(problem.fixed, problem.moving, once, problem.initial, problem.fixed_mask)
    points = {} if points_mm is None else dict(points_mm)
    views = stage_views(cascade, problem)
    attending = [view for view in views if attention_blocks(view.stage.network)]
    if points and not attending:
        raise InputError(
            f"no stage of '{cascade.name}' has attention, so no point can be followed: leave the points out "
            f"(what each parameter rests on can be explained), or give the weights of {ATTENTION_NETWORKS}"
        )
    for view in attending:
        for name, point in points.items():
            check_in_crop(view, name, point)
    stages = tuple(_explained(view, problem, points, steps) for view in views)
    return Explanation(
        problem,
        result,
        stages,
        (*result.warnings, *_run_otherwise(cascade), *_oblique(problem), *_without_attention(views)),
    )


def lever_mm(problem: Problem, view: View) -> float:
    """Return the mean lever (mm) of a rotation on the fixed mask, or on half of the crop without one.

    The root of two thirds of the mean square distance from the centre: the distance from an axis, over all axes.
    """
    if problem.fixed_mask is None:
        return view.stage.settings.extent_mm() / 4
    distance = problem.fixed_mask.points_mm() - view.center_mm
    return float((distance.square().sum(-1).mean() * 2 / 3).sqrt())


def _explained(view: View, problem: Problem, points: Mapping[str, Vector], steps: int) -> StageExplanation:
    attends = bool(attention_blocks(view.stage.network))
    mask = mask_on_crop(problem.fixed_mask, view.grid)
    cams = grad_cams(view, lever_mm(problem, view))
    return StageExplanation(
        view=view,
        cams=cams,
        attended_points=tuple(attended_point(view, name, point) for name, point in points.items()) if attends else (),
        parameters=parameter_shares(view, problem.fixed_mask, steps),
        cams_inside=tuple(float("nan") if mask is None else cam.fraction_inside(mask) for cam in cams),
        mask_share=float("nan") if mask is None else float(mask.to(torch.float64).mean()),
    )


def _run_otherwise(cascade: Cascade) -> tuple[str, ...]:
    usual = cascade.run.text()
    if usual == CascadeSettings().text():
        return ()
    return (f"these weights run with {usual}; explained is one pass of each stage from the start that was given",)


def _oblique(problem: Problem) -> tuple[str, ...]:
    """Warn where `register` cuts its crops otherwise: along the axes of an oblique fixed scan, not along L, P and S."""
    warning = (
        f"{problem.fixed.name} is oblique: `register` looks along its axes, and what is explained are crops along the "
        "patient's; the two answers may differ (resample it along L, P and S to explain what registers it)"
    )
    return (warning,) if is_oblique(problem.fixed.grid) else ()


def _without_attention(views: tuple[View, ...]) -> tuple[str, ...]:
    return tuple(
        f"{view.name} has no attention: only what each parameter rests on is shown; "
        f"attention can be shown for {ATTENTION_NETWORKS}"
        for view in views
        if not attention_blocks(view.stage.network)
    )
