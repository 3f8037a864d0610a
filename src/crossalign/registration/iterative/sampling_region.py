"""Where an iterative method samples a pair, and the initial transforms that it tries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from jaxtyping import Bool
from torch import Tensor

from crossalign.geometry import Grid, Rigid, draw_perturbation
from crossalign.images import Image, LabelMap, foreground, marked_voxels
from crossalign.images.files.images import to_sitk
from crossalign.registration.problem import Problem
from crossalign.types import Mask, Points


def near_structure(mask: LabelMap, margin_mm: float) -> Mask:
    """Say which voxels lie within `margin_mm` of the structure's surface or inside it, (z, y, x)."""
    inside = mask.labels != 0
    box = box_of(inside, mask.grid, margin_mm + max(mask.grid.spacing_mm))  # no voxel further out can be near
    part = to_sitk(box.of_mask(inside).numpy().astype(np.uint8), box.of_grid(mask.grid))
    distance = sitk.SignedMaurerDistanceMap(part, squaredDistance=False, useImageSpacing=True)
    near = torch.zeros_like(inside)
    box.of_mask(near).copy_(torch.from_numpy(sitk.GetArrayViewFromImage(distance) <= margin_mm))
    return near


def sampled_region(problem: Problem, margin_mm: float, reach_mm: float) -> Mask:
    """Say which fixed voxels an iterative method compares, (z, y, x).

    They show something, lie within `margin_mm` of the fixed mask (anywhere without one), and within `reach_mm` of where
    the start puts the moving image: of a slab or block, the rest can never be compared.
    """
    region = foreground(problem.fixed.voxels)
    if problem.fixed_mask is not None:
        region &= near_structure(problem.fixed_mask, margin_mm)
    near = region & _near_moving(problem, reach_mm)
    return near if bool(near.any()) else region


def _near_moving(problem: Problem, reach_mm: float) -> Mask:
    fixed, moving = problem.fixed.grid, problem.moving.grid
    chain = moving.physical_to_voxel() @ problem.initial.matrix() @ fixed.voxel_to_physical()
    reach = torch.tensor([reach_mm / step for step in moving.spacing_mm], dtype=torch.float64)
    size = torch.tensor(moving.shape[::-1], dtype=torch.float64)
    depth, height, width = fixed.shape
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    plane = x[..., None] * chain[:3, 0] + y[..., None] * chain[:3, 1] + chain[:3, 3]
    near = torch.empty(fixed.shape, dtype=torch.bool)
    for z in range(depth):  # one at a time: memory stays that of a slice
        index = plane + z * chain[:3, 2]
        near[z] = ((index >= -0.5 - reach) & (index < size - 0.5 + reach)).all(-1)
    return near


@dataclass(frozen=True)
class Box:
    """A part of a grid: the first voxel and the one after the last, along each axis (z, y, x)."""

    low: tuple[int, int, int]
    high: tuple[int, int, int]

    def of_grid(self, grid: Grid) -> Grid:
        """Return the part's own grid; its voxels lie where they were."""
        first = torch.tensor([self.low[::-1]], dtype=torch.float64)
        x, y, z = grid.to_physical(first)[0].tolist()
        depth, height, width = (high - low for low, high in zip(self.low, self.high, strict=True))
        return Grid((depth, height, width), grid.spacing_mm, (x, y, z), grid.direction)

    def of_mask(self, mask: Mask) -> Bool[Tensor, "zo yo xo"]:
        """Cut the part out of a mask."""
        return mask[self._slices()]

    def of_image(self, image: Image) -> Image:
        """Cut the part out of an image, as a copy: the whole need not be kept."""
        return Image(image.voxels[self._slices()].clone(), self.of_grid(image.grid), image.name)

    def _slices(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(low, high) for low, high in zip(self.low, self.high, strict=True))
        return z, y, x


def box_of(region: Mask, grid: Grid, margin_mm: float) -> Box:
    """Return the box about a region that is not empty, `margin_mm` wider on each side where the grid is."""
    low, high = [], []
    for axis, step in zip(range(3), grid.spacing_mm[::-1], strict=True):
        others = [other for other in range(3) if other != axis]
        used = region.any(others[1]).any(others[0]).nonzero()
        margin = math.ceil(margin_mm / step)
        low.append(max(0, int(used.min()) - margin))
        high.append(min(grid.shape[axis], int(used.max()) + 1 + margin))
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def box_about(grid: Grid, reach_mm: float) -> Box:
    """Return the part of a grid within `reach_mm` of the world's origin, along its axes; all of it where none is."""
    origin = grid.to_voxel(torch.zeros(1, 3, dtype=torch.float64))[0].tolist()[::-1]
    low, high = [], []
    for size, middle, step in zip(grid.shape, origin, grid.spacing_mm[::-1], strict=True):
        first = min(size, max(0, math.floor(middle - reach_mm / step)))
        last = min(size, max(0, math.ceil(middle + reach_mm / step) + 1))
        low.append(first if last > first else 0)
        high.append(last if last > first else size)
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


STRUCTURE_POINTS = 500


def structure_points(problem: Problem) -> Points:
    """Return about 500 points (n, 3), mm, spread over the structure, or over what the fixed image shows without one."""
    if problem.fixed_mask is not None:
        count = problem.fixed_mask.foreground_count()
        return problem.fixed_mask.points_mm(torch.arange(0, count, max(1, count // STRUCTURE_POINTS)))
    shown = foreground(problem.fixed.voxels)
    count = int(torch.count_nonzero(shown))
    places = marked_voxels(shown, torch.arange(0, count, max(1, count // STRUCTURE_POINTS)))
    return problem.fixed.grid.to_physical(places.flip(-1).double())


def draw_motions(problem: Problem, points_mm: Points, count: int, range_mm: float, seed: int) -> Rigid:
    """Draw motions (count) of the fixed points ahead of the given start; the first moves nothing.

    Each moves the points (n, 3) by a mean distance of U(0, range_mm), about the structure's centre.
    """
    generator = torch.Generator().manual_seed(seed)
    distances = range_mm * torch.rand(count, generator=generator, dtype=torch.float64)
    distances[0] = 0
    return draw_perturbation(points_mm.expand(count, -1, 3), problem.center_mm().expand(count, 3), distances, generator)
