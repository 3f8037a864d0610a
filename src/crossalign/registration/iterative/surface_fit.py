"""Two surfaces and a rigid transform between them: the maximum a posteriori fit, and what it is uncertain by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.geometry import Grid, Rigid
from crossalign.images import LabelMap
from crossalign.images.signed_distance import SignedDistance, Surface
from crossalign.registration.iterative.method_settings import SurfaceSettings
from crossalign.types import Distances, Vector

CONVERGED_MM, CONVERGED_RAD = 1e-2, 3e-4
DAMPING = 1e-6  # of the normal equations' mean: a sphere says nothing of the rotation
BEYOND_MM = 5.0  # past the border of the other scan, over which points lose their weight


@dataclass(frozen=True, eq=False)
class Side:
    """One scan's structure: its surface, the signed distance to it, its centre, and the grid of the scan."""

    surface: Surface
    distance: SignedDistance
    center_mm: Vector
    grid: Grid

    @staticmethod
    def of(mask: LabelMap, points: int) -> Side:
        """Prepare a mask."""
        distance = SignedDistance.of(mask)
        return Side(Surface.of(mask, distance, points), distance, mask.centroid_mm(), mask.grid)

    def thinned(self, step: int) -> Side:
        """Return the same structure with every so many points of its surface."""
        area = self.surface.area[::step]
        return replace(self, surface=Surface(self.surface.points_mm[::step], area / area.sum()))


@dataclass(frozen=True, eq=False)
class RotationTerm:
    """A mean rotation (3, 3), fixed to moving, and the weight (3, 3), mm2 / rad2, of what deviates from it."""

    rotation: Tensor
    weight_mm2: Tensor


@dataclass(frozen=True, eq=False)
class SurfaceFit:
    """Where the surfaces lie on each other: a transform, and how well and how certainly they do.

    `normal` (6, 6) is the curvature, mm2, of the mean square distance for motions D of the fixed structure about its
    centre, transform @ D: rotation vector (rad), then translation (mm), along the fixed world's axes. `residual_mm` is
    the root mean square distance of the surfaces, `seen` the fraction of them that lies in both fields of view.
    """

    fixed_to_moving: Rigid
    normal: Float[Tensor, "6 6"]
    residual_mm: float
    seen: float
    converged: bool


@dataclass(frozen=True, eq=False)
class _Distances:
    """Signed distances (n,), mm, of both sides' points to the other surface, their slopes (n, 6), and areas (n,)."""

    distance_mm: Distances
    slope: Float[Tensor, "n 6"]
    area: Distances


def fit_surfaces(
    fixed: Side, moving: Side, rotation: Tensor, prior: RotationTerm | None, settings: SurfaceSettings
) -> SurfaceFit:
    """Fit by Gauss-Newton, from centre on centre with a rotation (3, 3), fixed to moving.

    Minimised is the mean over both surfaces of the Huber loss of the distance to the other one, and the prior's
    term. Points that fall beyond the border of the other scan count less, and not at all from 5 mm on.
    """
    center, position, converged = fixed.center_mm, moving.center_mm.clone(), False
    normal = torch.eye(6, dtype=torch.float64)
    for _ in range(settings.iterations):
        terms = _distances(fixed, moving, _transform(rotation, center, position))
        weight = terms.area * (settings.robust_mm / terms.distance_mm.abs().clamp(min=settings.robust_mm))
        normal = terms.slope.T @ (weight[:, None] * terms.slope)
        gradient = terms.slope.T @ (weight * terms.distance_mm)
        if prior is not None:
            normal[:3, :3] += prior.weight_mm2
            gradient[:3] += prior.weight_mm2 @ _rotation_vector(prior.rotation.mT @ rotation)
        damping = DAMPING * torch.diag(normal.diagonal().mean().expand(6).clamp(min=1e-9))
        step = torch.linalg.solve(normal + damping, -gradient)
        position = position + rotation @ step[3:]
        rotation = rotation @ torch.linalg.matrix_exp(_skew(step[:3]))
        converged = bool(step[:3].abs().max() < CONVERGED_RAD and step[3:].abs().max() < CONVERGED_MM)
        if converged:
            break
    found = _transform(rotation, center, position)
    terms = _distances(fixed, moving, found)
    seen = float(terms.area.sum())
    square = (terms.area * terms.distance_mm.square()).sum() / terms.area.sum().clamp(min=1e-9)
    return SurfaceFit(found, normal, float(square.sqrt()), seen, converged)


def rivals(
    fixed: Side, moving: Side, rotations: Sequence[Tensor], settings: SurfaceSettings, thinning: int = 4
) -> list[SurfaceFit]:
    """Fit few points in few iterations from each of several rotations, without a prior."""
    few = replace(settings, iterations=6)
    small = fixed.thinned(thinning), moving.thinned(thinning)
    return [fit_surfaces(*small, rotation, None, few) for rotation in rotations]


def _distances(fixed: Side, moving: Side, fixed_to_moving: Rigid) -> _Distances:
    """Measure both surfaces against each other, each weighing one half where all of it is seen."""
    arm = fixed.surface.points_mm - fixed.center_mm
    there = fixed_to_moving.apply(fixed.surface.points_mm)
    forward, gradient = moving.distance.at(there)
    gradient = gradient @ fixed_to_moving.rotation
    back = fixed_to_moving.inverse().apply(moving.surface.points_mm)
    backward, slope = fixed.distance.at(back)
    slopes = (
        torch.cat((torch.linalg.cross(arm, gradient), gradient), 1),
        -torch.cat((torch.linalg.cross(back - fixed.center_mm, slope), slope), 1),
    )
    areas = (
        fixed.surface.area * _seen(moving.grid, there),
        moving.surface.area * _seen(fixed.grid, back),
    )
    return _Distances(torch.cat((forward, backward)), torch.cat(slopes), torch.cat(areas) / 2)


def _seen(grid: Grid, points_mm: Tensor) -> Tensor:
    """Return 1 for points (n, 3) inside a grid, less beyond its outermost voxels' centres, 0 from 5 mm on, (n,)."""
    index = grid.to_voxel(points_mm)
    last = torch.tensor(grid.shape[::-1], dtype=torch.float64) - 1
    depth = torch.minimum(index, last - index) * torch.tensor(grid.spacing_mm, dtype=torch.float64)
    return (1 + depth.amin(-1) / BEYOND_MM).clamp(0, 1)


def _transform(rotation: Tensor, center: Vector, position: Vector) -> Rigid:
    return Rigid(rotation, position - rotation @ center)


def _skew(vector: Vector) -> Tensor:
    x, y, z = vector.tolist()
    return torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)


def _rotation_vector(rotation: Tensor) -> Vector:
    """Return the rotation vector (3,), rad, of a rotation (3, 3) under half a turn."""
    skew = rotation - rotation.mT
    axis = torch.stack((skew[2, 1], skew[0, 2], skew[1, 0])) / 2
    sine = axis.norm()
    angle = torch.atan2(sine, (rotation.diagonal().sum() - 1) / 2)
    return axis if float(sine) < 1e-9 else axis * (angle / sine)
