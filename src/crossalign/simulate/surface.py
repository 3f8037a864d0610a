"""Points on the gland's surface, and the rigid transform that fits moved points best."""

from functools import lru_cache

import torch
from torch import Tensor

from crossalign.geometry import Rigid
from crossalign.simulate.anatomy import Anatomy

SURFACE_POINTS = 256


@lru_cache(maxsize=8)
def even_directions(count: int) -> Tensor:
    """Make unit vectors (count, 3) spread evenly over the sphere (a Fibonacci lattice)."""
    k = torch.arange(count, dtype=torch.float64) + 0.5
    z, turn = 1 - 2 * k / count, k * (torch.pi * (5**0.5 - 1))
    ring = (1 - z.square()).sqrt()
    return torch.stack((ring * turn.cos(), ring * turn.sin(), z), -1).float()


def gland_surface(anatomy: Anatomy, count: int = SURFACE_POINTS) -> Tensor:
    """Find points (b, count, 3) on each gland's surface, mm in the patient frame, by bisection along rays."""
    rays = even_directions(count)[None] * anatomy.half_axes_mm[:, None]
    low, high = torch.full(rays.shape[:2], 0.3), torch.full(rays.shape[:2], 2.2)
    for _ in range(22):
        middle = (low + high) / 2
        at = anatomy.shape.apply(rays * middle[..., None])
        inside = anatomy.shape.radius(at.mT) < 1
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return rays * ((low + high) / 2)[..., None]


def fit_rigid(points_mm: Tensor, moved_mm: Tensor) -> Rigid:
    """Fit rigid transforms of least squares distance from points (b, n, 3) to moved points (Kabsch, in float64)."""
    points, moved = points_mm.double(), moved_mm.double()
    center, moved_center = points.mean(1, keepdim=True), moved.mean(1, keepdim=True)
    u, _, vh = torch.linalg.svd((moved - moved_center).mT @ (points - center))
    sign = torch.ones(len(points), 3, dtype=torch.float64)
    sign[:, 2] = torch.linalg.det(u @ vh).sign()
    rotation = (u * sign[:, None]) @ vh
    return Rigid(rotation, (moved_center - center @ rotation.mT)[:, 0]).to("cpu", torch.float32)
