"""What a fusion's pictures show: three volumes on one display grid, and the values that are black and white there."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from crossalign.fusion import FusionResult, Scaling
from crossalign.fusion.preparation import foreground_box_mm
from crossalign.geometry import Grid
from crossalign.images import Image
from crossalign.report.display import display_grid
from crossalign.types import Points, Scan, Vector

TOP_PERCENTILE = 99.9
SHOWN = 0.05


@dataclass(frozen=True, eq=False)
class Shown:
    """MRI, PET and fused volume on the display grid, each from 0 (black) to 1 (its own brightest that is shown).

    `tops` says which scaled value that brightest is. `look_at_mm` is the middle of the head.
    """

    grid: Grid
    volumes: dict[str, Scan]
    tops: dict[str, float]
    look_at_mm: Vector


def show(result: FusionResult) -> Shown:
    """Bring a result onto the display grid (isotropic, axes along L, P and S)."""
    grid = display_grid(result.a.grid, result.b.grid, _head_corners(result.a))
    volumes: dict[str, Scan] = {}
    tops: dict[str, float] = {}
    for name, image in (("mri", result.a), ("pet", result.b), ("fused", result.fused)):
        tops[name] = _top(image.voxels)
        volumes[name] = (image.resampled(grid, fill=0.0).voxels / tops[name]).clamp(0, 1)
    low, high = foreground_box_mm(result.a)
    return Shown(grid, volumes, tops, (low + high) / 2)


def pet_range(result: FusionResult, shown: Shown) -> tuple[float, float, str]:
    """Return the PET's own values at the two ends of its colours, and their unit."""
    scaling: Scaling = result.b_scaling
    top = scaling.low + shown.tops["pet"] * (scaling.high - scaling.low)
    return scaling.low, top, scaling.unit or "units of the PET file"


def _top(voxels: Scan) -> float:
    values = voxels[voxels > SHOWN].sort().values
    return float(values[int((len(values) - 1) * TOP_PERCENTILE / 100)]) if len(values) else 1.0


def _head_corners(image: Image) -> Points:
    return torch.stack(foreground_box_mm(image))
