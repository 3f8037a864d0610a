"""Anatomies made of ellipsoids, in batches: how much of each lies at a point is one matrix product for all of them."""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from crossalign.geometry import euler_to_rotation
from crossalign.simulation.deformation import ShapeMap
from crossalign.simulation.random_fields import bernoulli, random_directions, uniform
from crossalign.simulation.settings import Range

ABSENT = -1e3  # a membership before clamping that no point reaches
ENDLESS_MM = 400.0  # the half axis of an ellipsoid without end, such as the rectum
SIMULATED_SURFACE_POINTS = 256
RangeXYZ = tuple[Range, Range, Range]
NO_ROTATION: RangeXYZ = ((0, 0), (0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """One ellipsoid for each of the batch: centre, half axes, angles about x, y, z (b, 3), edge and presence (b,)."""

    name: str
    center_mm: Tensor
    half_axes_mm: Tensor
    angle_deg: Tensor
    edge_mm: Tensor
    present: Tensor


@dataclass(frozen=True, eq=False)
class EllipsoidModel:
    """Anatomies (b): rows (b, k, 10) of the ellipsoids outside the structure, the structure, those inside; its shape.

    They cover one another in the order of `outer_names` and `inner_names`; left and right share a name, hence a tissue.
    """

    outer_names: tuple[str, ...]
    inner_names: tuple[str, ...]
    coefficients: Tensor
    half_axes_mm: Tensor
    shape: ShapeMap

    def surface_mm(self, count: int = SIMULATED_SURFACE_POINTS) -> Tensor:
        """Find points (b, count, 3) on each structure's surface, mm in the patient's frame, by bisection along rays."""
        rays = even_directions(count)[None] * self.half_axes_mm[:, None]
        low, high = torch.full(rays.shape[:2], 0.3), torch.full(rays.shape[:2], 2.2)
        for _ in range(22):
            middle = (low + high) / 2
            inside = self.shape.radius(self.shape.apply(rays * middle[..., None]).mT) < 1
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return rays * ((low + high) / 2)[..., None]


@lru_cache(maxsize=8)
def even_directions(count: int) -> Tensor:
    """Make unit vectors (count, 3) that are even over the sphere (a Fibonacci lattice)."""
    k = torch.arange(count, dtype=torch.float64) + 0.5
    z, angle = 1 - 2 * k / count, k * (torch.pi * (5**0.5 - 1))
    ring = (1 - z.square()).sqrt()
    return torch.stack((ring * angle.cos(), ring * angle.sin(), z), -1).float()


class EllipsoidSampler:
    """Draws ellipsoids about structures with these half axes (b, 3), mm."""

    def __init__(self, half_axes_mm: Tensor, generator: torch.Generator) -> None:
        self.half_axes_mm, self.generator, self.count = half_axes_mm, generator, len(half_axes_mm)

    def uniform(self, low: float | int, high: float | int) -> Tensor:
        """Draw (b,)."""
        return uniform((low, high), (self.count,), self.generator)

    def column(self, low: float | int, high: float | int) -> Tensor:
        """Draw (b, 1)."""
        return uniform((low, high), (self.count, 1), self.generator)

    def xyz(self, x: Range, y: Range, z: Range) -> Tensor:
        """Draw (b, 3), one range a column."""
        return torch.stack([self.uniform(*bounds) for bounds in (x, y, z)], -1)

    def directions(self) -> Tensor:
        """Draw unit vectors (b, 3)."""
        return random_directions((self.count,), self.generator)

    def ellipsoid(
        self,
        name: str,
        center_mm: Tensor | tuple[Tensor | float, Tensor | float, Tensor | float],
        half_axes_mm: Tensor,
        angle_deg: RangeXYZ = NO_ROTATION,
        probability: float = 1.0,
    ) -> Ellipsoid:
        """Make an ellipsoid that is there with a probability, its angles drawn from `angle_deg`."""
        if isinstance(center_mm, tuple):
            center_mm = torch.stack([torch.as_tensor(value).expand(self.count) for value in center_mm], -1)
        angle, edge = self.xyz(*angle_deg), self.uniform(0.5, 1.2)
        present = bernoulli(probability, (self.count,), self.generator)
        return Ellipsoid(name, center_mm, half_axes_mm.expand(self.count, 3), angle, edge, present)

    def with_mirror_image(self, left: Ellipsoid, probability: float = 1.0) -> list[Ellipsoid]:
        """Return an ellipsoid and its mirror image across the midline, slightly changed."""
        mirror, angles = torch.tensor([-1.0, 1.0, 1.0]), torch.tensor([1.0, -1.0, -1.0])
        center = left.center_mm * mirror + self.xyz(*[(-2, 2)] * 3)
        axes = left.half_axes_mm * self.xyz(*[(0.85, 1.15)] * 3)
        present = left.present & bernoulli(probability, (self.count,), self.generator)
        return [left, Ellipsoid(left.name, center, axes, left.angle_deg * angles, left.edge_mm, present)]


def absent(ellipsoid: Ellipsoid) -> Ellipsoid:
    """Leave an ellipsoid out of the whole batch."""
    return replace(ellipsoid, present=torch.zeros_like(ellipsoid.present))


def quadric_coefficients(ellipsoids: list[Ellipsoid]) -> Tensor:
    """Make rows (b, k, 10) over (x, y, z, xx, yy, zz, xy, xz, yz, 1) whose products are memberships before clamping.

    A membership is 1 inside, 0 outside and 1/2 on the surface, linear over twice `edge_mm` along the shortest axis.
    """
    center, axes, angle_deg, edge, present = (
        torch.stack([getattr(one, name) for one in ellipsoids], 1)
        for name in ("center_mm", "half_axes_mm", "angle_deg", "edge_mm", "present")
    )
    rotation = euler_to_rotation(angle_deg * (torch.pi / 180))
    form = (rotation / axes.square()[:, :, None]) @ rotation.mT
    linear = -2 * (form @ center[..., None])[..., 0]
    constant = (center * (form @ center[..., None])[..., 0]).sum(-1)
    squares = form.diagonal(dim1=-2, dim2=-1)
    cross = 2 * torch.stack((form[..., 0, 1], form[..., 0, 2], form[..., 1, 2]), -1)
    steepness = axes.amin(-1) / (4 * edge)
    rows = torch.cat((linear, squares, cross, constant[..., None] - 1), -1) * -steepness[..., None]
    rows[..., 9] += 0.5
    rows = torch.where(present[..., None], rows, torch.zeros_like(rows))
    rows[..., 9] = torch.where(present, rows[..., 9], torch.full_like(rows[..., 9], ABSENT))
    return rows


def memberships(coefficients: Tensor, points_mm: Tensor) -> Tensor:
    """Evaluate coefficients (b, k, 10) at points (b, 3, n): memberships before clamping (b, k, n)."""
    x, y, z = points_mm.unbind(1)
    basis = torch.stack((x, y, z, x * x, y * y, z * z, x * y, x * z, y * z, torch.ones_like(x)), 1)
    return torch.bmm(coefficients, basis)
