"""Maps: one value for each voxel of a stage's crop, and their way back to the fixed and the moving image's grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.geometry import Grid, Rigid, sample
from crossalign.images import Image, LabelMap
from crossalign.types import Mask, Scan

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

    def share_inside(self, mask: Mask) -> float:
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
