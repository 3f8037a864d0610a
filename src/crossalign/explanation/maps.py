"""Maps on a stage's crop, and what each stage of a cascade is given and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.geometry import Grid, Rigid, sample
from crossalign.images import Image, LabelMap
from crossalign.models import Stage
from crossalign.registration import Cascade, Problem
from crossalign.registration.preprocessed_pair import PreprocessedPair, mask_warnings
from crossalign.types import Mask, Parameters, Scan, Vector, Volume

# Its axes are not those of the values that it was made from.
OnCrop: TypeAlias = Float[Tensor, "zo yo xo"]


@dataclass(frozen=True, eq=False)
class CropMap:
    """A map on a stage's crop, 0 to 1, in the fixed image's space (LPS, mm).

    `name` is part of its file's name, `title` is for people, `scan` says over which image it is to be read (`fixed`
    or `moving`). A value of 1 stands for `peak` of `unit`.
    """

    name: str
    title: str
    scan: str
    image: Image
    peak: float
    unit: str

    def on_fixed(self, fixed: Grid) -> Image:
        """Bring it onto the fixed image's grid, trilinear; 0 outside the crop."""
        return _clamped(self.image.resampled(fixed, fill=0.0))

    def on_moving(self, moving: Grid, start: Rigid) -> Image:
        """Bring it onto the moving image's grid through the stage's start, which maps fixed to moving points."""
        return _clamped(self.image.resampled(moving, start.inverse(), fill=0.0))

    def fraction_inside(self, mask: Mask) -> float:
        """Return the share of the map's sum that lies in a mask (z, y, x) of the crop; NaN for a map of zeros."""
        total = self.image.voxels.double().sum()
        return float(self.image.voxels[mask].double().sum() / total) if bool(total > 0) else float("nan")


def _clamped(image: Image) -> Image:
    """Interpolation's weights sum to one but for rounding: keep the promise of 0 to 1."""
    return Image(image.voxels.clamp(0, 1), image.grid, image.name)


def crop_map(naming: tuple[str, str, str], values: Scan, crop: Grid, unit: str) -> CropMap:
    """Make a map of values (z, y, x), 0 or more, on the crop; `naming` is its name, title and scan."""
    name, title, scan = naming
    values = values.detach().cpu().float()
    peak = float(values.max())
    scaled = values / peak if peak > 0 else torch.zeros_like(values)
    return CropMap(name, title, scan, Image(scaled, crop, name), peak, unit)


def spread(values: Scan, positions: Grid, crop: Grid) -> OnCrop:
    """Interpolate values (z, y, x) at a network's positions to the crop's voxels; the outer ones reach to its rim."""
    index = positions.to_voxel(crop.points_mm().flatten(0, 2)).clamp(min=0)
    last = torch.tensor(positions.shape[::-1], dtype=index.dtype) - 1
    index = torch.minimum(index, last).reshape(*crop.shape, 3)
    return sample(values.detach().cpu().float()[None, None], index[None])[0, 0]


def mask_on_crop(mask: LabelMap | None, crop: Grid) -> Mask | None:
    """Say which voxels of the crop lie in the fixed mask; None without one."""
    return None if mask is None else mask.resampled(crop).labels != 0


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
        return f"stage {self.number} ({self.stage.settings.network})"

    def found(self) -> Rigid:
        """Return the stage's answer, from fixed to moving points: its start after its correction."""
        return self.start @ Rigid.from_parameters(self.parameters, self.center_mm)


@torch.no_grad()
def stage_views(cascade: Cascade, problem: Problem) -> tuple[View, ...]:
    """Run the stages once, each from where the one before arrived; raises InputError where a mask is needed."""
    mask_warnings(cascade.stages, problem)
    center_mm, current = problem.center_mm, problem.initial
    canvases = PreprocessedPair(problem, cascade.device)
    views: list[View] = []
    for number, stage in enumerate(cascade.stages, start=1):
        fixed, moving = canvases.crops(stage, center_mm, current)
        parameters = stage.network(fixed, moving)[0].double().cpu()
        views.append(View(number, stage, crop_grid(stage, center_mm), current, center_mm, fixed, moving, parameters))
        current = views[-1].found()
    return tuple(views)


def crop_grid(stage: Stage, center_mm: Vector) -> Grid:
    """Return the grid of a stage's crop about a point of the fixed image (3,); axes along L, P and S."""
    spacing = stage.settings.crop_spacing_mm
    x, y, z = center_mm.tolist()
    return Grid.centered((x, y, z), stage.settings.crop_shape, (spacing, spacing, spacing))
