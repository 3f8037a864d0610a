"""Damped Gauss-Newton over six parameters for the squared difference of two feature maps, many runs at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossalign.geometry import Grid, Rigid
from crossalign.types import Distances, Points, Vector

DAMPING = 1e-2
CONVERGED_MM = 0.03
MOST_DAMPING = 1e6


@dataclass(frozen=True, eq=False)
class PyramidLevel:
    """What one level of the pyramid compares, in the fixed image's space (mm).

    The features (n, c) of fixed points (n, 3) against moving features (z, y, x, c) and where these are known
    (z, y, x), on `grid`; the moving image was resampled there through a motion B after the initial transform. The cost
    of a motion D is the mean over the points p of |moving(D p) - fixed(p)|^2 / c, where a point at which nothing of the
    moving image is known costs `unknown_cost`, plus `motion_penalty` (1/mm^2) times the mean squared motion from the
    initial transform, |B D p - p|^2 = |D p - B^-1 p|^2; `unmoved_mm` is B^-1 p.
    """

    points_mm: Float[Tensor, "n 3"]
    unmoved_mm: Float[Tensor, "n 3"]
    features: Float[Tensor, "n c"]
    moving: Float[Tensor, "z y x c"]
    known: Bool[Tensor, "z y x"]
    grid: Grid
    center_mm: Vector
    motion_penalty: float = 0.0
    unknown_cost: float = 0.0

    def residuals(self, motion: Rigid) -> tuple[Tensor, Tensor, Tensor]:
        """Sample at D p: differences (s, n, c), their gradients (s, n, 3, c) in 1/mm, which points are known (s, n)."""
        values, gradients, known = sample_with_gradient(
            self.moving, self.known, self.grid, motion.apply(self.points_mm)
        )
        return values - self.features, gradients, known

    def with_unknown_cost(self) -> PyramidLevel:
        """Return the level at which an unknown point costs as much as the known ones do on average, unmoved."""
        differences, _, known = self.residuals(Rigid.identity(self.points_mm.dtype)[None])
        costs = differences.square().mean(-1)
        return replace(self, unknown_cost=float((costs * known).sum() / known.sum()))

    def overlap(self) -> float:
        """Fraction of the points, 0 to 1, that are known where nothing has moved; 0 where there are no points."""
        if len(self.points_mm) == 0:
            return 0.0
        return float(self.residuals(Rigid.identity(self.points_mm.dtype)[None])[2].double().mean())


@dataclass(frozen=True, eq=False)
class OptimisationRuns:
    """Where runs (s) arrived: motions of the fixed points, their cost, iterations, and whether they converged."""

    motion: Rigid
    cost: Distances
    iterations: Tensor
    converged: Tensor


def minimise(level: PyramidLevel, initial: Rigid, iterations: int) -> OptimisationRuns:
    """Run Levenberg-Marquardt from every motion of a batch (s); each is independent of the others.

    A step is a small motion about the moved centre, applied after the motion so far; rotation counts in mm at the
    points' mean distance from the centre, so that one damping serves all six. A step that raises the cost is undone.
    A run has converged when its step is under 0.03 mm.
    """
    motion, system = initial, _linearised(level, initial)
    damping = torch.full_like(system.cost, DAMPING)
    done = torch.zeros_like(system.cost, dtype=torch.bool)
    used = torch.zeros_like(system.cost, dtype=torch.int64)
    for _ in range(iterations):
        step = system.solved(damping)
        trial = _moved(motion, step, level.center_mm, system.radius_mm)
        tried = _linearised(level, trial)
        better = (tried.cost < system.cost) & ~done
        used += (~done).long()
        motion, system = _where(better, trial, motion), system.updated(tried, better)
        damping = torch.where(better, damping / 3, damping * 4)
        done |= (step.norm(dim=-1) < CONVERGED_MM) | (damping > MOST_DAMPING)
        if bool(done.all()):
            break
    return OptimisationRuns(motion, system.cost, used, done)


def sample_with_gradient(
    volume: Float[Tensor, "z y x c"], known: Bool[Tensor, "z y x"], grid: Grid, points_mm: Points
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample features (z, y, x, c) at points (s, n, 3): values (s, n, c), gradients (s, n, 3, c) per mm, known (s, n).

    Trilinear, and the derivative of just that, so that the steps are those of the cost itself. A point is known where
    all eight voxels about it are.
    """
    depth, height, width = known.shape
    index = grid.to_voxel(points_mm)
    low = index.floor()
    size = torch.tensor((width, height, depth)).to(index)
    inside = ((low >= 0) & (low < size - 1)).all(-1)
    low = torch.minimum(low.clamp(min=0), size - 2)
    x, y, z = low.long().unbind(-1)
    corner = (z * height + y) * width + x
    steps = torch.tensor([dz * height * width + dy * width + dx for dz in (0, 1) for dy in (0, 1) for dx in (0, 1)])
    corners = (corner[..., None] + steps).flatten()
    eight = volume.flatten(0, 2)[corners].reshape(*corner.shape, 8, -1)
    all_known = known.flatten()[corners].reshape(*corner.shape, 8).all(-1)
    sampled = _weights((index - low).to(eight)) @ eight
    to_mm = grid.physical_to_voxel()[:3, :3].to(sampled).T
    return sampled[..., 0, :], to_mm @ sampled[..., 1:, :], all_known & inside


def _weights(fraction: Tensor) -> Tensor:
    """Trilinear weights of the eight corners and their derivatives along x, y, z: (..., 4, 8) from (..., 3)."""
    along = torch.stack((1 - fraction, fraction), dim=-1)  # (..., 3, 2)
    derivative = torch.tensor([-1.0, 1.0]).to(fraction).expand_as(along)
    rows = []
    for axis in (None, 0, 1, 2):
        x, y, z = (derivative[..., i, :] if i == axis else along[..., i, :] for i in range(3))
        rows.append((z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]).flatten(-3))
    return torch.stack(rows, dim=-2)


@dataclass(frozen=True, eq=False)
class _NormalEquations:
    """The cost (s) at some motions and its Gauss-Newton approximation: gradient (s, 6), Hessian (s, 6, 6)."""

    cost: Tensor
    gradient: Tensor
    hessian: Tensor
    radius_mm: float

    def solved(self, damping: Tensor) -> Tensor:
        """Damped step (s, 6), mm."""
        scale = self.hessian.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)
        damped = self.hessian + torch.diag_embed((damping * scale)[:, None].expand(-1, 6))
        return torch.linalg.solve(damped, -self.gradient)

    def updated(self, other: _NormalEquations, condition: Tensor) -> _NormalEquations:
        """Take the other's entries where the condition (s) holds."""
        return _NormalEquations(
            torch.where(condition, other.cost, self.cost),
            torch.where(condition[:, None], other.gradient, self.gradient),
            torch.where(condition[:, None, None], other.hessian, self.hessian),
            self.radius_mm,
        )


def _linearised(level: PyramidLevel, motion: Rigid) -> _NormalEquations:
    moved = motion.apply(level.points_mm).to(level.moving)
    unmoved = level.unmoved_mm.to(moved)
    differences, gradients, known = level.residuals(motion)
    count, channels = differences.shape[1:]
    costs = torch.where(known, differences.square().mean(-1), torch.full_like(differences[..., 0], level.unknown_cost))
    gradients = gradients * known[..., None, None]
    arms = moved - motion.apply(level.center_mm[None]).to(moved)
    radius = float((level.points_mm - level.center_mm).norm(dim=-1).mean())
    jacobian = _jacobian(arms, radius)
    penalty = level.motion_penalty
    slope = (gradients @ differences[..., None])[..., 0] / channels + penalty * (moved - unmoved)  # of each point
    curvature = gradients @ gradients.mT / channels + penalty * torch.eye(3).to(gradients)
    cost = costs.mean(-1) + penalty * (moved - unmoved).square().sum(-1).mean(-1)
    gradient = (jacobian.mT @ slope[..., None])[..., 0].sum(1) / count
    hessian = (jacobian.mT @ curvature @ jacobian).sum(1) / count
    return _NormalEquations(cost.double(), gradient.double(), hessian.double(), radius)


def _jacobian(arms: Tensor, radius_mm: float) -> Tensor:
    """Motion of points (s, n, 3) from the centre for a small shift and rotation (mm at the radius): (s, n, 3, 6)."""
    x, y, z = (arms / radius_mm).unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    rows = (
        torch.stack((one, zero, zero, zero, z, -y), dim=-1),
        torch.stack((zero, one, zero, -z, zero, x), dim=-1),
        torch.stack((zero, zero, one, y, -x, zero), dim=-1),
    )
    return torch.stack(rows, dim=-2)


def _moved(motion: Rigid, step: Tensor, center_mm: Vector, radius_mm: float) -> Rigid:
    """Follow the motion (s) by a step (s, 6) about the moved centre."""
    center = motion.apply(center_mm[None].to(step))[:, 0]
    rotation = torch.linalg.matrix_exp(_cross(step[:, 3:] / radius_mm))
    shift = center + step[:, :3] - (rotation @ center[..., None])[..., 0]
    return Rigid(rotation, shift) @ motion


def _cross(vector: Tensor) -> Tensor:
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).reshape(-1, 3, 3)


def _where(condition: Tensor, a: Rigid, b: Rigid) -> Rigid:
    rotation = torch.where(condition[:, None, None], a.rotation, b.rotation)
    return Rigid(rotation, torch.where(condition[:, None], a.translation_mm, b.translation_mm))
