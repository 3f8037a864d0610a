"""Crops: what a stage's network is shown of a problem, through the transform so far."""

from collections.abc import Sequence

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, sample
from crossalign.images import Image, scale_intensity, to_working_spacing
from crossalign.models import Stage, crop_lattice
from crossalign.registration.problem import Problem
from crossalign.types import PointLattice, Vector, Volume


class Canvases:
    """The prepared images of one problem, made once for each working spacing."""

    def __init__(self, problem: Problem, device: torch.device) -> None:
        self._problem, self._device = problem, device
        self._ready: dict[tuple[str, float], Image] = {}

    def crops(
        self, stage: Stage, center_mm: Vector, fixed_to_moving: Rigid, turn: Tensor | None = None
    ) -> tuple[Volume, Volume]:
        """Cut both crops (1, 1, z, y, x) of a stage, on the device; for a batch of b transforms (b, 1, z, y, x).

        Voxel for voxel both show one place: a fixed point about `center_mm`, and where the transform puts it. `turn`
        (3, 3) brings the headers' axes to those that the crops have; None leaves them.
        """
        settings = stage.settings
        points = crop_lattice(settings.crop_shape, settings.crop_spacing_mm)
        points = (points if turn is None else points @ turn) + center_mm
        seen = fixed_to_moving.to("cpu", torch.float64).apply(points.flatten(0, 2)).reshape(-1, *points.shape)
        fixed = self._canvas(settings.fixed_input, settings.working_spacing_mm)
        moving = self._canvas("moving", settings.working_spacing_mm)
        fixed_crop = _cut(fixed, points[None]).to(self._device)
        return fixed_crop.expand(len(seen), -1, -1, -1, -1), _cut(moving, seen).to(self._device)

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
    """Sample one canvas at (b, z, y, x, 3) points; the batch is laid along z, so that the canvas is not copied."""
    voxels = canvas.grid.to_voxel(points_mm.flatten(0, 3)).reshape(points_mm.flatten(0, 1).shape)
    return sample(canvas.voxels[None, None], voxels[None]).reshape(-1, 1, *points_mm.shape[1:4])


def mask_warnings(stages: Sequence[Stage], problem: Problem) -> tuple[str, ...]:
    """Return what to tell a user who gave no fixed mask; raises InputError where a stage needs one."""
    if problem.fixed_mask is not None:
        return ()
    if any(stage.settings.fixed_input == "label" for stage in stages):
        raise InputError("these weights look at the gland's mask: give it as the fixed mask (--fixed-mask)")
    return ("no fixed mask: the crop is centred on the fixed image's middle, not on the gland",)
