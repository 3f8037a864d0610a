"""Cascade: trained stages one after another, each correcting what the one before left."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from crossalign.errors import InputError
from crossalign.geometry import Rigid, sample
from crossalign.images import Image, scale_intensity, to_working_spacing
from crossalign.models import Stage, crop_lattice, load_stage
from crossalign.registration.problem import Method, Problem, Solution, Step
from crossalign.types import PointLattice, Vector, Volume


@dataclass(frozen=True, eq=False)
class Cascade(Method):
    """Stages in the order in which they run. Each sees the fixed crop and, through the transform so far, the moving.

    A stage predicts a correction D about the crop's centre (the gland's centroid, or the middle of the fixed grid
    without a mask): the next transform is `fixed_to_moving @ D`. A stage trained in label mode needs the mask.
    """

    stages: tuple[Stage, ...]
    device: torch.device
    label: str = "cascade"

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("a cascade needs one trained stage or more")

    @property
    def name(self) -> str:
        """Name given when it was loaded."""
        return self.label

    def settings(self) -> dict[str, str]:
        """Each stage's network, crop and input."""
        return {f"stage {number}": _described(stage) for number, stage in enumerate(self.stages, start=1)}

    @torch.no_grad()
    def solve(self, problem: Problem) -> Solution:
        """Run the stages; raises InputError where a stage needs the fixed mask and there is none."""
        warnings = self._mask_warnings(problem)
        center_mm, current = problem.center_mm(), problem.initial
        canvases = _Canvases(problem, self.device)
        steps: list[Step] = []
        for number, stage in enumerate(self.stages, start=1):
            began = time.perf_counter()
            fixed, moving = canvases.crops(stage, center_mm, current)
            parameters = stage.model(fixed, moving)[0].double().cpu()
            current = current @ Rigid.from_parameters(parameters, center_mm)
            steps.append(Step(f"stage {number} ({stage.settings.model})", current, time.perf_counter() - began))
        return Solution(tuple(steps), warnings)

    def _mask_warnings(self, problem: Problem) -> tuple[str, ...]:
        if problem.fixed_mask is not None:
            return ()
        if any(stage.settings.fixed_input == "label" for stage in self.stages):
            raise InputError("these weights look at the gland's mask: give it as the fixed mask (--fixed-mask)")
        return ("no fixed mask: the crop is centred on the fixed image's middle, not on the gland",)


def _described(stage: Stage) -> str:
    settings = stage.settings
    crop = "x".join(str(size) for size in settings.crop_shape)
    return f"{settings.model}, crop {crop} at {settings.crop_spacing_mm:g} mm, fixed {settings.fixed_input}"


class _Canvases:
    """The prepared images of one problem, made once for each working spacing."""

    def __init__(self, problem: Problem, device: torch.device) -> None:
        self._problem, self._device = problem, device
        self._ready: dict[tuple[str, float], Image] = {}

    def crops(self, stage: Stage, center_mm: Vector, fixed_to_moving: Rigid) -> tuple[Volume, Volume]:
        """Cut both crops (1, 1, z, y, x) of a stage, on the device."""
        settings = stage.settings
        points = crop_lattice(settings.crop_shape, settings.crop_spacing_mm) + center_mm
        seen = fixed_to_moving.to("cpu", torch.float64).apply(points.flatten(0, 2)).reshape(points.shape)
        fixed = self._canvas(settings.fixed_input, settings.working_spacing_mm)
        moving = self._canvas("moving", settings.working_spacing_mm)
        return _cut(fixed, points).to(self._device), _cut(moving, seen).to(self._device)

    def _canvas(self, which: str, spacing_mm: float) -> Image:
        key = (which, spacing_mm)
        if key not in self._ready:
            self._ready[key] = to_working_spacing(self._source(which), spacing_mm)
        return self._ready[key]

    def _source(self, which: str) -> Image:
        problem = self._problem
        if which == "label" and problem.fixed_mask is not None:
            return problem.fixed_mask.foreground()
        return scale_intensity(problem.moving if which == "moving" else problem.fixed)


def _cut(canvas: Image, points_mm: PointLattice) -> Volume:
    voxels = canvas.grid.to_voxel(points_mm.flatten(0, 2)).reshape(points_mm.shape)
    return sample(canvas.voxels[None, None], voxels[None])


def load_cascade(paths: Sequence[Path], device: torch.device, label: str = "cascade") -> Cascade:
    """Load trained stages from files, in the order in which they are to run; raises WeightsError."""
    return Cascade(tuple(load_stage(path, device) for path in paths), device, label)
