"""What a network is given and answers, and maps on its crop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.geometry import Grid, Rigid, sample
from crossalign.images import Image, LabelMap
from crossalign.models import Stage
from crossalign.registration import Application
from crossalign.types import Map, Mask, Parameters, Scan, Volume

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

    @staticmethod
    def of(values: Scan, crop: Grid, naming: tuple[str, str, str], unit: str) -> CropMap:
        """Make a map of values (z, y, x), 0 or more, on the crop; `naming` is its name, title and scan."""
        name, title, scan = naming
        values = values.detach().cpu().float()
        peak = float(values.max())
        scaled = values / peak if peak > 0 else torch.zeros_like(values)
        return CropMap(name, title, scan, Image(scaled, crop, name), peak, unit)

    def on_fixed(self, fixed: Grid) -> Image:
        """Resample it to the fixed image's grid, trilinear; 0 outside the crop."""
        return _clamped(self.image.resampled(fixed, fill=0.0))

    def on_moving(self, moving: Grid, initial: Rigid) -> Image:
        """Resample it to the moving image's grid through the stage's initial transform, from fixed to moving points."""
        return _clamped(self.image.resampled(moving, initial.inverse(), fill=0.0))

    def fraction_inside(self, mask: Mask | None) -> float:
        """Return the fraction of the map's sum in a mask (z, y, x) of the crop; NaN without one, or for all zeros."""
        if mask is None:
            return float("nan")
        return float(self.image.voxels[mask].double().sum() / self.image.voxels.double().sum())


def _clamped(image: Image) -> Image:
    """Interpolation's weights sum to one but for rounding: hold the values to 0 to 1."""
    return Image(image.voxels.clamp(0, 1), image.grid, image.name)


def interpolate_tokens(values: Scan, tokens: Grid, crop: Grid) -> OnCrop:
    """Interpolate values (z, y, x) at a network's tokens to the crop's voxels; the outer ones extend to its border."""
    index = tokens.to_voxel(crop.points_mm().flatten(0, 2)).clamp(min=0)
    last = torch.tensor(tokens.shape[::-1], dtype=index.dtype) - 1
    index = torch.minimum(index, last).reshape(*crop.shape, 3)
    return sample(values.detach().cpu().float()[None, None], index[None])[0, 0]


def mask_on_crop(mask: LabelMap | None, crop: Grid) -> Mask | None:
    """Say which voxels of the crop lie in the fixed mask; None without one."""
    return None if mask is None else mask.resampled(crop).labels != 0


@dataclass(frozen=True, eq=False)
class StageCrop:
    """One application of a stage's network: the two crops (1, 1, z, y, x) that it was given and what it answered.

    The moving crop has a second channel where the stage is given the moving mask.

    `grid` is where the crops' voxels lie in the fixed image's space (LPS, mm). Both crops show the same position voxel
    for voxel: the moving one was sampled through `initial`. `parameters` (6,) are mm and degrees about the crop's
    centre, along the crop's axes. `passes` is how many passes the run has.
    """

    stage: Stage
    grid: Grid
    fixed: Volume
    moving: Map
    parameters: Parameters
    application: Application
    passes: int = 1

    @property
    def initial(self) -> Rigid:
        """The transform through which the moving crop was sampled, from fixed to moving points."""
        return self.application.initial

    @property
    def name(self) -> str:
        """The application in words."""
        return f"stage {self.application.stage_number} ({self.stage.settings.network})" + self._of_pass(", pass ")

    @property
    def label(self) -> str:
        """The application as part of a file's name."""
        return f"stage{self.application.stage_number}" + self._of_pass("-pass")

    def _of_pass(self, words: str) -> str:
        return "" if self.passes == 1 else f"{words}{self.application.pass_number}"
