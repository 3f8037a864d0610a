"""Grid: where the voxels of an image lie in the patient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from crossalign.errors import InputError
from crossalign.types import Matrix4, PointGrid, Points, Shape, Triple, Vector

LONGEST_AXIS = 2**31  # voxels
Direction = tuple[Triple, Triple, Triple]
LPS_AXES: Direction = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels in physical space (LPS, mm), oblique and flipped axes included.

    `shape` counts voxels (z, y, x) as tensors do; every other triple is (x, y, z) as points are. `origin_mm` is the
    centre of voxel (0, 0, 0); column j of `direction` is the unit vector along voxel axis j (ITK's convention).
    Raises InputError for an empty shape, a spacing that is not positive, or a direction that is not orthonormal.
    """

    shape: Shape
    spacing_mm: Triple
    origin_mm: Triple
    direction: Direction = LPS_AXES

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or any(size < 1 for size in self.shape):
            raise InputError(f"a grid needs three sizes of 1 or more (z, y, x), got {self.shape}")
        if not all(math.isfinite(value) and value > 0 for value in self.spacing_mm):
            raise InputError(f"a grid needs a positive spacing on each axis, got {self.spacing_mm} mm")
        if not all(math.isfinite(value) for value in self.origin_mm):
            raise InputError(f"a grid needs a finite origin, got {self.origin_mm} mm")
        axes = torch.tensor(self.direction, dtype=torch.float64)
        if not torch.allclose(axes @ axes.T, torch.eye(3, dtype=torch.float64), atol=1e-3):
            raise InputError(f"a grid needs an orthonormal direction matrix, got {self.direction}")

    @staticmethod
    def centered(center_mm: Triple, shape: Shape, spacing_mm: Triple) -> Grid:
        """Make the grid of this shape (z, y, x) and spacing (x, y, z) about a point, its axes along L, P and S."""
        size = shape[::-1]
        x, y, z = (c - s * (n - 1) / 2 for c, s, n in zip(center_mm, spacing_mm, size, strict=True))
        return Grid(shape, spacing_mm, (x, y, z))

    def covering(self, spacing_mm: Triple, margin_mm: float = 0.0) -> Grid:
        """Make the grid with axes along L, P and S and this spacing that holds every voxel centre of this one.

        Raises InputError where that takes more than 2^31 voxels along an axis.
        """
        corners = self.corners_mm()
        low, high = corners.amin(0) - margin_mm, corners.amax(0) + margin_mm
        steps = ((high - low) / torch.tensor(spacing_mm, dtype=torch.float64)).tolist()
        if not all(count < LONGEST_AXIS for count in steps):  # NaN included
            extent = " x ".join(f"{length:.4g}" for length in (high - low).tolist())
            raise InputError(
                f"{extent} mm at a spacing of {spacing_mm[0]:g} x {spacing_mm[1]:g} x {spacing_mm[2]:g} mm are more "
                "voxels than can be counted: check the spacing in the header and its unit (mm)"
            )
        width, height, depth = (math.ceil(count - 1e-6) + 1 for count in steps)  # an exact fit gets no spare voxel
        x, y, z = ((low + high) / 2).tolist()
        return Grid.centered((x, y, z), (depth, height, width), spacing_mm)

    def part(self, first: Shape, shape: Shape) -> Grid:
        """Return the grid of a part of this one: of `shape`, from voxel `first` on, both (z, y, x)."""
        x, y, z = self.to_physical(torch.tensor([first[::-1]], dtype=torch.float64))[0].tolist()
        return Grid(shape, self.spacing_mm, (x, y, z), self.direction)

    def voxel_to_physical(self) -> Matrix4:
        """Matrix (4, 4), float64, from voxel indices (x, y, z, 1) to points (mm)."""
        matrix = torch.eye(4, dtype=torch.float64)
        spacing = torch.tensor(self.spacing_mm, dtype=torch.float64)
        matrix[:3, :3] = torch.tensor(self.direction, dtype=torch.float64) * spacing
        matrix[:3, 3] = torch.tensor(self.origin_mm, dtype=torch.float64)
        return matrix

    def physical_to_voxel(self) -> Matrix4:
        """Matrix (4, 4), float64, from points (mm) to continuous voxel indices (x, y, z, 1)."""
        return torch.linalg.inv(self.voxel_to_physical())

    def to_physical(self, points_voxel: Points) -> Points:
        """Map continuous voxel indices (x, y, z) to points in mm, in the dtype given."""
        matrix = self.voxel_to_physical().to(points_voxel)
        return points_voxel @ matrix[:3, :3].T + matrix[:3, 3]

    def to_voxel(self, points_mm: Points) -> Points:
        """Map points in mm to continuous voxel indices (x, y, z), in the dtype given."""
        matrix = self.physical_to_voxel().to(points_mm)
        return points_mm @ matrix[:3, :3].T + matrix[:3, 3]

    def contains(self, points_mm: Points) -> Bool[Tensor, "*b n"]:
        """Say which points (*b, n, 3), mm, lie inside, to the outer faces of the voxels."""
        return inside(self.to_voxel(points_mm), self.shape)

    def points_voxel(self) -> PointGrid:
        """Voxel indices (x, y, z) of every voxel, (z, y, x, 3), float64."""
        axes = [torch.arange(size, dtype=torch.float64) for size in self.shape]
        z, y, x = torch.meshgrid(*axes, indexing="ij")
        return torch.stack((x, y, z), dim=-1)

    def points_mm(self) -> PointGrid:
        """Centre of every voxel in mm, (z, y, x, 3), float64."""
        matrix = self.voxel_to_physical()
        return self.points_voxel() @ matrix[:3, :3].T + matrix[:3, 3]

    def corners_mm(self) -> Points:
        """Centres of the eight corner voxels, (8, 3), float64."""
        last = torch.tensor(self.shape[::-1], dtype=torch.float64) - 1
        unit = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
        return self.to_physical(unit * last)

    def center_mm(self) -> Vector:
        """Middle of the grid, (3,), float64."""
        return self.corners_mm().mean(0)

    def extent_mm(self) -> Triple:
        """Length of each axis (x, y, z) from the outer face of the first voxel to that of the last."""
        x, y, z = (n * s for n, s in zip(self.shape[::-1], self.spacing_mm, strict=True))
        return (x, y, z)

    def agrees_with(self, other: Grid, tolerance_mm: float = 1e-2) -> bool:
        """Say whether the other grid has the same shape and its corner voxels within the tolerance of this one's."""
        if self.shape != other.shape:
            return False
        return bool((self.corners_mm() - other.corners_mm()).abs().max() <= tolerance_mm)


def inside(points_voxel: Tensor, shape: Sequence[int], reach_voxel: Tensor | float = 0.0) -> Tensor:
    """Say which continuous voxel indices (..., 3), (x, y, z), lie in a volume (z, y, x), to its voxels' outer faces.

    `reach_voxel` (3,) widens the volume on each side.
    """
    size = torch.tensor(shape[::-1]).to(points_voxel)
    return ((points_voxel >= -0.5 - reach_voxel) & (points_voxel < size - 0.5 + reach_voxel)).all(dim=-1)
