"""The signed distance to a structure's surface, with its gradient, and points on that surface with their areas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.geometry import Grid
from crossalign.images.image import LabelMap
from crossalign.images.surface import surface_points
from crossalign.types import Triple, Vectors

PointDistances: TypeAlias = Float[Tensor, "n"]
MARGIN_MM = 20.0
SMOOTHING_MM = 0.7  # takes the steps between voxels off the surface
LONGEST_AXIS = 160  # voxels; a finer mask is thinned out


@dataclass(frozen=True, eq=False)
class SignedDistance:
    """Distance to a structure's surface, mm, negative inside, on a grid about the structure.

    A structure that the border of its image cuts off is taken to go on beyond it as it is at the border, so that no
    surface lies there.
    """

    distance_mm: Float[Tensor, "z y x"]
    grid: Grid

    @staticmethod
    def of(mask: LabelMap, margin_mm: float = MARGIN_MM) -> SignedDistance:
        """Compute it up to a margin about the structure; raises ImageError for an empty mask."""
        import numpy as np  # with scipy half a second that other methods should not cost
        from scipy import ndimage

        first, size = mask.foreground_box()
        spacing = mask.grid.spacing_mm[::-1]
        step = max(1, *(-(-n // LONGEST_AXIS) for n in size))
        margin = [round(margin_mm / (step * length)) + 1 for length in spacing]
        low = [start - step * m for start, m in zip(first, margin, strict=True)]
        shape = tuple(-(-n // step) + 2 * m for n, m in zip(size, margin, strict=True))
        part = mask.labels != 0
        for axis in range(3):
            index = low[axis] + step * torch.arange(shape[axis])
            part = part.index_select(axis, index.clamp(0, part.shape[axis] - 1))
        sampling = [step * length for length in spacing]
        inside = part.numpy()
        half = sum(sampling) / 6  # from a voxel's centre to its face
        outward = ndimage.distance_transform_edt(~inside, sampling=sampling) - half
        inward = ndimage.distance_transform_edt(inside, sampling=sampling) - half
        signed = np.where(inside, -inward, outward)
        smooth = ndimage.gaussian_filter(signed, [SMOOTHING_MM / length for length in sampling])
        return SignedDistance(torch.from_numpy(smooth), _grid(mask.grid, low, shape, step))

    def at(self, points_mm: Float[Tensor, "n 3"]) -> tuple[PointDistances, Float[Tensor, "n 3"]]:
        """Return the distance (n,), mm, at points (n, 3), and its gradient (n, 3) along the world's axes.

        Linear between voxels; beyond the grid the way to it is added.
        """
        shape = torch.tensor(self.distance_mm.shape)
        last = (shape.flip(0) - 1).double()
        index = self.grid.to_voxel(points_mm)
        nearest = torch.minimum(index.clamp(min=0), last - 1e-6)
        low = nearest.floor()
        fraction = (nearest - low)[:, None, :]
        corners = torch.cartesian_prod(*[torch.tensor([0, 1])] * 3)  # (8, 3), x y z
        weights = torch.where(corners.bool(), fraction, 1 - fraction)  # (n, 8, 3)
        x, y, z = (low[:, None, :].long() + corners).unbind(-1)
        values = self.distance_mm[z, y, x]
        signs = (2 * corners - 1).double()
        spacing = torch.tensor(self.grid.spacing_mm, dtype=torch.float64)
        slopes = [
            (values * signs[:, axis] * weights[..., [one for one in range(3) if one != axis]].prod(-1)).sum(1)
            for axis in range(3)
        ]
        direction = torch.tensor(self.grid.direction, dtype=torch.float64)
        gradient = (torch.stack(slopes, -1) / spacing) @ direction.T
        beyond = ((index - nearest) * spacing).norm(dim=-1)
        return (values * weights.prod(-1)).sum(1) + beyond, gradient


@dataclass(frozen=True, eq=False)
class Surface:
    """Points (n, 3), mm, on a structure's surface, and the fraction (n,) of its area that each stands for."""

    points_mm: Float[Tensor, "n 3"]
    area: Float[Tensor, " n"]

    @staticmethod
    def of(mask: LabelMap, distance: SignedDistance, count: int) -> Surface:
        """Take up to `count` points evenly over the faces of voxels, and move each to where the distance is 0.

        A surface that runs aslant to the voxels has more faces for its area; the points' areas make up for it.
        """
        points = surface_points(mask, count)
        for _ in range(2):
            values, gradient = distance.at(points)
            points = points - values[:, None] * _unit(gradient)
        direction = torch.tensor(mask.grid.direction, dtype=torch.float64)
        spacing = torch.tensor(mask.grid.spacing_mm, dtype=torch.float64)
        faces = spacing.prod() / spacing  # the area of a face across each axis
        normal = _unit(distance.at(points)[1])
        area = 1 / ((normal @ direction).abs() / faces).sum(-1)
        return Surface(points, area / area.sum())


def _unit(vectors: Vectors) -> Vectors:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def _grid(grid: Grid, low: list[int], shape: tuple[int, ...], step: int) -> Grid:
    depth, height, width = shape
    part = grid.part((low[0], low[1], low[2]), (depth, height, width))
    x, y, z = (step * length for length in grid.spacing_mm)
    spacing: Triple = (x, y, z)
    return Grid(part.shape, spacing, part.origin_mm, part.direction)
