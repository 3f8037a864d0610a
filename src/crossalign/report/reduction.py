"""Images and masks made smaller for a page of a cohort: cropped, averaged in blocks, and in 256 levels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap
from crossalign.report.embedding import EmbeddedVolume, embed, embed_levels, value_window
from crossalign.types import Points, Scan, Shape, Triple

MOST_VOXELS = 600_000  # of one image: noise of one byte takes 0.8 MB in a page
LEVELS = 255
LOW, HIGH = 0.0005, 0.9995  # quantiles of the values between which the levels lie
SAMPLES = 2_000_000
ALIKE = 1.05  # spacings of one axis and another


def cropped_grid(grid: Grid, points_mm: Points) -> tuple[Grid, Shape]:
    """Return the part of a grid about points (n, 3), a voxel more on each side, and its first voxel (z, y, x).

    Where no point is near the grid it is the whole grid.
    """
    voxels = grid.to_voxel(points_mm).flip(-1)
    size = torch.tensor(grid.shape)
    low = torch.maximum(voxels.amin(0).floor().long() - 1, torch.zeros(3, dtype=torch.int64))
    high = torch.minimum(voxels.amax(0).ceil().long() + 2, size)
    if bool((high - low < 1).any()):
        return grid, (0, 0, 0)
    first, shape = _shape(low), _shape(high - low)
    return grid.part(first, shape), first


def block_of(grid: Grid, most_voxels: int = MOST_VOXELS) -> Shape:
    """Return how many voxels (z, y, x) become one, so that few enough are left, the finest axes first."""
    block, spacing = [1, 1, 1], grid.spacing_mm[::-1]
    while math.prod(n // k for n, k in zip(grid.shape, block, strict=True)) > most_voxels:
        sizes = [s * k if k < n else math.inf for s, k, n in zip(spacing, block, grid.shape, strict=True)]
        block = [k + (size < ALIKE * min(sizes)) for k, size in zip(block, sizes, strict=True)]
    return (block[0], block[1], block[2])


def coarser_grid(grid: Grid, block: Shape) -> Grid:
    """Return the grid of whole blocks of voxels; what is left over at the ends makes none."""
    depth, height, width = (n // k for n, k in zip(grid.shape, block, strict=True))
    middle = torch.tensor([[(k - 1) / 2 for k in block[::-1]]], dtype=torch.float64)
    x, y, z = grid.to_physical(middle)[0].tolist()
    sx, sy, sz = (s * k for s, k in zip(grid.spacing_mm, block[::-1], strict=True))
    spacing: Triple = (sx, sy, sz)
    return Grid((depth, height, width), spacing, (x, y, z), grid.direction)


@dataclass(frozen=True, eq=False)
class ShownImage:
    """An image of a page; `levels` are the ends of its 256 levels (None: its own values), `done` says what was done."""

    image: Image
    levels: tuple[float, float] | None = None
    done: str = ""

    def embedded(self, to_fixed: Rigid | None = None) -> EmbeddedVolume:
        """Embed it; `to_fixed` (LPS, mm) places it in the fixed image's space."""
        if self.levels is None:
            return embed(self.image, to_fixed)
        low, high = self.levels
        scaled = replace(self.image, voxels=(self.image.voxels - low) / (high - low))
        return embed_levels(scaled, self.levels, value_window(self.image.voxels), to_fixed)


def reduce_image(image: Image, points_mm: Points) -> ShownImage:
    """Return an image about points (n, 3) of its space, in few voxels and in 256 levels."""
    part, first = cropped_grid(image.grid, points_mm)
    voxels = _crop(image.voxels, first, part.shape)
    block = block_of(part)
    done = ["cropped"] if part.shape != image.grid.shape else []
    if block != (1, 1, 1):
        voxels = F.avg_pool3d(voxels.float()[None, None], block)[0, 0]
        part = coarser_grid(part, block)
        done.append("means of {} x {} x {} voxels".format(*block[::-1]))
    levels = levels_of(voxels)
    if levels is not None:
        done.append("256 levels from {:.4g} to {:.4g}".format(*levels))
    return ShownImage(replace(image, voxels=voxels, grid=part), levels, ", ".join(done))


def reduce_mask(mask: LabelMap, points_mm: Points) -> LabelMap:
    """Return a mask about points (n, 3) of its space, as 0 and 1; of a block that is averaged, the middle voxel."""
    part, first = cropped_grid(mask.grid, points_mm)
    labels = (_crop(mask.labels, first, part.shape) != 0).long()
    block = block_of(part)
    if block == (1, 1, 1):
        return replace(mask, labels=labels, grid=part)
    share = F.avg_pool3d(labels.float()[None, None], block)[0, 0]
    return replace(mask, labels=(share >= 0.5).long(), grid=coarser_grid(part, block))


def levels_of(voxels: Scan) -> tuple[float, float] | None:
    """Return the ends of 256 levels: all but 0.1 % of the values; None where a byte holds the values anyway."""
    whole = voxels.round()
    if float(voxels.min()) >= 0 and float(voxels.max()) <= LEVELS and torch.equal(whole, voxels):
        return None
    values = voxels.flatten()
    values = values[:: max(1, len(values) // SAMPLES)].sort().values
    last = len(values) - 1
    low, high = float(values[round(LOW * last)]), float(values[round(HIGH * last)])
    return (low, high) if high > low else None


def _crop(values: Tensor, first: Shape, shape: Shape) -> Tensor:
    z, y, x = (slice(start, start + size) for start, size in zip(first, shape, strict=True))
    return values[z, y, x]


def _shape(values: Tensor) -> Shape:
    z, y, x = values.tolist()
    return (z, y, x)
