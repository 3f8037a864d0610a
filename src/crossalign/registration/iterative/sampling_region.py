"""Where an iterative method samples a pair, and the initial motions that it tries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from jaxtyping import Bool
from torch import Tensor

from crossalign.geometry import Grid, Rigid, draw_perturbation
from crossalign.geometry.grid import inside
from crossalign.geometry.resampling import voxel_slabs
from crossalign.images import Image, LabelMap
from crossalign.images.files.images import to_sitk
from crossalign.registration.problem import Problem
from crossalign.types import Mask, Shape


def near_structure(mask: LabelMap, margin_mm: float) -> Mask:
    """Mark the voxels (z, y, x) that lie within `margin_mm` of the structure's surface or inside it."""
    structure = mask.labels != 0
    box = box_of(structure, mask.grid, margin_mm + max(mask.grid.spacing_mm))  # no voxel further out can be near
    part = to_sitk(box.of_mask(structure).numpy().astype(np.uint8), box.of_grid(mask.grid))
    distance = sitk.SignedMaurerDistanceMap(part, squaredDistance=False, useImageSpacing=True)
    near = torch.zeros_like(structure)
    box.of_mask(near).copy_(torch.from_numpy(sitk.GetArrayViewFromImage(distance) <= margin_mm))
    return near


def sampled_region(problem: Problem, margin_mm: float, reach_mm: float) -> Mask:
    """Mark the fixed voxels (z, y, x) that an iterative method compares.

    They are foreground, lie within `margin_mm` of the fixed mask (anywhere without one), and within `reach_mm` of where
    the initial transform puts the moving image: of a slab or block, the rest can never be compared.
    """
    region = problem.fixed_foreground
    if problem.fixed_mask is not None:
        region = region & near_structure(problem.fixed_mask, margin_mm)
    near = region & _near_moving(problem, reach_mm)
    return near if bool(near.any()) else region


def _near_moving(problem: Problem, reach_mm: float) -> Mask:
    fixed, moving = problem.fixed.grid, problem.moving.grid
    reach = reach_mm / torch.tensor(moving.spacing_mm, dtype=torch.float64)
    slabs = voxel_slabs(moving, fixed, problem.initial, torch.device("cpu"))
    return torch.cat([inside(points, moving.shape, reach) for _, points in slabs])


@dataclass(frozen=True)
class Box:
    """A part of a grid: its first voxel and its shape, (z, y, x)."""

    first: Shape
    shape: Shape

    def of_grid(self, grid: Grid) -> Grid:
        """Return the part's own grid; its voxels lie where they were."""
        return grid.part(self.first, self.shape)

    def of_mask(self, mask: Mask) -> Bool[Tensor, "zo yo xo"]:
        """Cut the part out of a mask."""
        return mask[self._slices()]

    def of_image(self, image: Image) -> Image:
        """Cut the part out of an image, as a copy: the whole need not be kept."""
        return Image(image.voxels[self._slices()].clone(), self.of_grid(image.grid), image.name)

    def _slices(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(first, first + size) for first, size in zip(self.first, self.shape, strict=True))
        return z, y, x


def box_of(region: Mask, grid: Grid, margin_mm: float) -> Box:
    """Return the box about a region that is not empty, `margin_mm` wider on each side where the grid is."""
    ranges = []
    for axis, step in zip(range(3), grid.spacing_mm[::-1], strict=True):
        others = [other for other in range(3) if other != axis]
        used = region.any(others[1]).any(others[0]).nonzero()
        margin = math.ceil(margin_mm / step)
        ranges.append((max(0, int(used.min()) - margin), min(grid.shape[axis], int(used.max()) + 1 + margin)))
    return _box(ranges)


def box_about(grid: Grid, reach_mm: float) -> Box:
    """Return the part of a grid within `reach_mm` of the world's origin, along its axes; all of it where none is."""
    origin = grid.to_voxel(torch.zeros(1, 3, dtype=torch.float64))[0].tolist()[::-1]
    ranges = []
    for size, middle, step in zip(grid.shape, origin, grid.spacing_mm[::-1], strict=True):
        first = min(size, max(0, math.floor(middle - reach_mm / step)))
        last = min(size, max(0, math.ceil(middle + reach_mm / step) + 1))
        ranges.append((first, last) if last > first else (0, size))
    return _box(ranges)


def _box(ranges: list[tuple[int, int]]) -> Box:
    """Make a box from the first voxel and the one after the last along z, y and x."""
    (z, z_end), (y, y_end), (x, x_end) = ranges
    return Box((z, y, x), (z_end - z, y_end - y, x_end - x))


def draw_motions(problem: Problem, count: int, perturbation_mm: float, seed: int) -> Rigid:
    """Draw motions (count) of the fixed points ahead of the initial transform; the first moves nothing.

    Each moves the structure's points by a mean distance of U(0, perturbation_mm), about the structure's centre.
    """
    generator = torch.Generator().manual_seed(seed)
    distances = perturbation_mm * torch.rand(count, generator=generator, dtype=torch.float64)
    distances[0] = 0
    points, center = problem.structure_mm.expand(count, -1, 3), problem.center_mm.expand(count, 3)
    return draw_perturbation(points, center, distances, generator)
