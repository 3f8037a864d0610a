"""Views: what each stage of a cascade is shown of a pair, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from crossalign.geometry import Grid, Rigid
from crossalign.models import Stage
from crossalign.registration import Cascade, Problem
from crossalign.registration.crops import Canvases, mask_warnings
from crossalign.types import Parameters, Vector, Volume


@dataclass(frozen=True, eq=False)
class View:
    """One stage at work: the two crops (1, 1, z, y, x) that it saw and the six numbers (6,) that it answered.

    `grid` is where the crop's voxels lie in the fixed image's space (LPS, mm). Both crops show the same place voxel
    for voxel: the moving one was cut through `start`, which maps fixed points to moving points.
    """

    number: int
    stage: Stage
    grid: Grid
    start: Rigid
    center_mm: Vector
    fixed: Volume
    moving: Volume
    parameters: Parameters

    @property
    def name(self) -> str:
        """The stage as a registration's steps name it."""
        return f"stage {self.number} ({self.stage.settings.model})"

    def found(self) -> Rigid:
        """Return the stage's answer, from fixed to moving points: its start after its correction."""
        return self.start @ Rigid.from_parameters(self.parameters, self.center_mm)


@torch.no_grad()
def stage_views(cascade: Cascade, problem: Problem) -> tuple[View, ...]:
    """Run the stages once, each from where the one before arrived; raises InputError where a mask is needed."""
    mask_warnings(cascade.stages, problem)
    center_mm, current = problem.center_mm(), problem.initial
    canvases = Canvases(problem, cascade.device)
    views: list[View] = []
    for number, stage in enumerate(cascade.stages, start=1):
        fixed, moving = canvases.crops(stage, center_mm, current)
        parameters = stage.model(fixed, moving)[0].double().cpu()
        views.append(View(number, stage, crop_grid(stage, center_mm), current, center_mm, fixed, moving, parameters))
        current = views[-1].found()
    return tuple(views)


def crop_grid(stage: Stage, center_mm: Vector) -> Grid:
    """Return the grid of a stage's crop about a point of the fixed image (3,); axes along L, P and S."""
    spacing = stage.settings.crop_spacing_mm
    x, y, z = center_mm.tolist()
    return Grid.centered((x, y, z), stage.settings.crop_shape, (spacing, spacing, spacing))
