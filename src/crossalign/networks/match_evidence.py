"""What a matching shows of its own success: numbers that go with the error of its fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

from crossalign.networks.correspondence import Matching
from crossalign.networks.crop import crop_points
from crossalign.types import Distances, Volume

LEAST_VOXELS = 1.0  # of a segmented structure: with fewer it has no centre


@runtime_checkable
class ShowsMatching(Protocol):
    """A network that matches points of two crops, segments the structure in both, and expects an error."""

    def match(self, fixed: Volume, moving: Volume) -> Matching:
        """Match two crops (b, 1, z, y, x) and fit the motion."""
        ...

    def expected_sre_mm(self, found: Matching) -> Distances:
        """Return the expected SRE (b,), mm."""
        ...


@dataclass(frozen=True, eq=False)
class StructureCrops:
    """Where the structure is by its mask, 0 to 1, in a fixed and in a moving crop (1, 1, z, y, x) of `spacing_mm`.

    In the moving crop it lies where the answer under examination puts it.
    """

    fixed: Volume
    moving: Volume
    spacing_mm: float


def matching_evidence(found: Matching, structure: StructureCrops) -> dict[str, float]:
    """Return numbers by name for one pair.

    `fit_residual_mm`: root mean square distance that the fit leaves between matches, weighted. `fixed_dice`,
    `moving_dice`: overlap, 0 to 1, of the structure that the network segments with where its mask is, or where the
    answer puts it. `center_gap_mm`: distance of the two centres in the moving crop. `volume_ratio`: absolute natural
    logarithm of the ratio of both volumes. `blur`: mean of 4 p (1 - p) where the network sees the structure in the
    moving crop, 0 (sharp) to 1.
    """
    weight = found.weight
    squares = (found.motion.apply(found.positions_mm) - found.matches_mm).square().sum(-1)
    seen_fixed, seen_moving = (one.float().sigmoid() for one in (found.fixed_structure, found.moving_structure))
    fixed, moving = (F.avg_pool3d(one.to(seen_fixed), 2) for one in (structure.fixed, structure.moving))
    gap = _center_mm(seen_moving, structure.spacing_mm) - _center_mm(moving, structure.spacing_mm)
    sizes = seen_moving.sum().clamp(min=LEAST_VOXELS) / moving.sum().clamp(min=LEAST_VOXELS)
    spread = 4 * (seen_moving * seen_moving * (1 - seen_moving)).sum() / seen_moving.sum().clamp(min=LEAST_VOXELS)
    numbers = {
        "fit_residual_mm": (weight * squares).sum(-1).sqrt(),
        "fixed_dice": _dice(seen_fixed, fixed),
        "moving_dice": _dice(seen_moving, moving),
        "center_gap_mm": gap.norm(),
        "volume_ratio": sizes.log().abs(),
        "blur": spread,
    }
    return {name: float(value) for name, value in numbers.items()}


def _dice(a: Volume, b: Volume) -> Tensor:
    return 2 * (a * b).sum() / (a.square().sum() + b.square().sum()).clamp(min=LEAST_VOXELS)


def _center_mm(volume: Volume, spacing_mm: float) -> Tensor:
    depth, height, width = volume.shape[2:]
    points = crop_points((depth, height, width), 2 * spacing_mm).to(volume)
    return (volume[0, 0, ..., None] * points).sum((0, 1, 2)) / volume.sum().clamp(min=LEAST_VOXELS)
