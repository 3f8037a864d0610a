"""Rigid transforms of physical space, their Euler angles, and perturbations of a stated size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import InputError
from crossalign.types import Distances, Matrix4, Points, Rotations, Vectors


def euler_to_rotation(angle_rad: Vectors) -> Rotations:
    """Turn angles (*b, 3) about the static x, y and z axes, applied in that order, into matrices (*b, 3, 3)."""
    (sx, sy, sz), (cx, cy, cz) = angle_rad.sin().unbind(-1), angle_rad.cos().unbind(-1)
    rows = (
        torch.stack((cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz), dim=-1),
        torch.stack((cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz), dim=-1),
        torch.stack((-sy, sx * cy, cx * cy), dim=-1),
    )
    return torch.stack(rows, dim=-2)


def rotation_to_euler(rotation: Rotations) -> Vectors:
    """Recover the angles (*b, 3), rad, of `euler_to_rotation`; y lies in [-pi/2, pi/2], and x is 0 in gimbal lock."""
    cos_y = torch.hypot(rotation[..., 0, 0], rotation[..., 1, 0])
    y = torch.atan2(-rotation[..., 2, 0], cos_y)
    locked = cos_y < 1e-7
    x = torch.where(locked, torch.zeros_like(y), torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2]))
    # z from R Rx^T = Rz Ry rather than from its own two entries, which near gimbal lock are rounding noise as x's are:
    # so z always makes up for x, and the three angles together give the rotation back.
    sin_z = x.sin() * rotation[..., 0, 2] - x.cos() * rotation[..., 0, 1]
    cos_z = x.cos() * rotation[..., 1, 1] - x.sin() * rotation[..., 1, 2]
    return torch.stack((x, y, torch.atan2(sin_z, cos_z)), dim=-1)


def quarter_turn(quarters: int) -> Tensor:
    """Return the rotation (3, 3), float64, of so many quarter turns about z, from x to y; its entries are exact."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters % 4]
    return torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)


def axis_orientations() -> Rotations:
    """Return the matrices that bring axes to axes, (48, 3, 3): 24 rotations, the identity first, and 24 that mirror."""
    rows = torch.eye(3)[torch.tensor(list(permutations(range(3))))]
    signs = torch.tensor(list(product((1.0, -1.0), repeat=3)))
    return (rows[:, None] * signs[:, :, None]).flatten(0, 1)


# Where two batches meet they broadcast (#): one transform serves many sets of points, one centre many transforms.
BroadPoints: TypeAlias = Float[Tensor, "*#b n 3"]
BroadVectors: TypeAlias = Float[Tensor, "*#b 3"]
BroadParameters: TypeAlias = Float[Tensor, "*#b 6"]
BroadDistances: TypeAlias = Float[Tensor, "*#b"]


@dataclass(frozen=True, eq=False)
class Rigid:
    """A rigid transform p -> R p + t of points in mm, or a batch (*b) of them.

    Name a value by its direction, `fixed_to_moving`: it maps points of the fixed image to points of the moving one.
    `(a @ b).apply(p) == a.apply(b.apply(p))`.
    """

    rotation: Rotations
    translation_mm: Vectors

    @staticmethod
    def identity(dtype: torch.dtype = torch.float64) -> Rigid:
        """Make the transform that moves nothing."""
        return Rigid(torch.eye(3, dtype=dtype), torch.zeros(3, dtype=dtype))

    @staticmethod
    def from_translation(translation_mm: Vectors) -> Rigid:
        """Make the shift by a vector, or a batch of them."""
        identity = torch.eye(3).to(translation_mm)
        return Rigid(identity.expand(*translation_mm.shape[:-1], 3, 3), translation_mm)

    @staticmethod
    def stack(transforms: Sequence[Rigid]) -> Rigid:
        """Make a batch of transforms that are alike in shape, along a new first axis."""
        return Rigid(
            torch.stack([one.rotation for one in transforms]), torch.stack([one.translation_mm for one in transforms])
        )

    @staticmethod
    def cat(batches: Sequence[Rigid]) -> Rigid:
        """Put batches one after another along their first axis."""
        return Rigid(torch.cat([one.rotation for one in batches]), torch.cat([one.translation_mm for one in batches]))

    @staticmethod
    def from_parameters(parameters: BroadParameters, center_mm: BroadVectors) -> Rigid:
        """Build from (tx, ty, tz in mm, rx, ry, rz in degrees): p -> R (p - center) + center + t, R = Rz Ry Rx."""
        rotation = euler_to_rotation(parameters[..., 3:] * (math.pi / 180))
        center = center_mm.to(parameters)
        rotated_center = (rotation @ center[..., None])[..., 0]
        return Rigid(rotation, center - rotated_center + parameters[..., :3])

    @staticmethod
    def from_matrix(matrix: Matrix4, tolerance: float = 1e-4) -> Rigid:
        """Read a homogeneous matrix (*b, 4, 4); raises InputError where it scales, shears, mirrors or is not finite."""
        rotation = matrix[..., :3, :3]
        advice = "give a rotation and a translation"
        if not bool(matrix.isfinite().all()):
            raise InputError(f"the matrix holds a value that is not finite: {advice}")
        last_row = torch.tensor([0.0, 0.0, 0.0, 1.0]).to(matrix)
        if bool(((matrix[..., 3, :] - last_row).abs() > tolerance).any()):
            raise InputError(f"the matrix is not rigid (its last row is not 0 0 0 1): {advice}")
        error = (rotation @ rotation.mT - torch.eye(3).to(matrix)).abs().max()
        if bool(error > tolerance):
            raise InputError(f"the matrix is not rigid (R R^T differs from I by {float(error):.2g}): {advice}")
        if bool((torch.linalg.det(rotation) <= 0).any()):
            raise InputError(f"the matrix is not rigid (it mirrors): {advice}")
        return Rigid(rotation, matrix[..., :3, 3])

    def to_parameters(self, center_mm: BroadVectors) -> BroadParameters:
        """Return the six parameters (mm, degrees) about this centre: the inverse of `from_parameters`."""
        center = center_mm.to(self.rotation)
        translation = self.apply(center[..., None, :])[..., 0, :] - center
        return torch.cat((translation, rotation_to_euler(self.rotation) * (180 / math.pi)), dim=-1)

    def matrix(self) -> Matrix4:
        """Return the homogeneous matrix, (*b, 4, 4)."""
        top = torch.cat((self.rotation, self.translation_mm[..., None]), dim=-1)
        bottom = torch.tensor([0.0, 0.0, 0.0, 1.0]).to(top).expand(*top.shape[:-2], 1, 4)
        return torch.cat((top, bottom), dim=-2)

    def inverse(self) -> Rigid:
        """Return the transform of the opposite direction."""
        transposed = self.rotation.mT
        return Rigid(transposed, -(transposed @ self.translation_mm[..., None])[..., 0])

    def __matmul__(self, other: Rigid) -> Rigid:
        """Compose: the other transform first, then this one."""
        return Rigid(self.rotation @ other.rotation, self.apply(other.translation_mm[..., None, :])[..., 0, :])

    def apply(self, points_mm: BroadPoints) -> BroadPoints:
        """Map points (*b, n, 3), in their own precision."""
        return points_mm @ self.rotation.mT.to(points_mm) + self.translation_mm[..., None, :].to(points_mm)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Rigid:
        """Return the same transform on another device and in another precision."""
        return Rigid(self.rotation.to(device, dtype), self.translation_mm.to(device, dtype))

    def __getitem__(self, index: int | slice | Tensor | None) -> Rigid:
        """Pick from a batch; `[None]` makes a batch of one."""
        return Rigid(self.rotation[index], self.translation_mm[index])

    def __len__(self) -> int:
        if self.rotation.dim() == 2:
            raise TypeError("one transform has no length: make a batch of it with transform[None]")
        return len(self.rotation)

    def __iter__(self) -> Iterator[Rigid]:
        return (self[index] for index in range(len(self)))

    def angle_deg(self) -> Distances:
        """Return the angle of the rotation about its own axis, in degrees."""
        trace = self.rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
        skew = self.rotation - self.rotation.mT
        sine = torch.stack((skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]), dim=-1).norm(dim=-1)
        return torch.atan2(sine, trace - 1) * (180 / math.pi)


def mean_displacement_mm(a: Rigid, b: Rigid, points_mm: BroadPoints) -> BroadDistances:
    """Return the mean over the points of |a(p) - b(p)|, (*b), mm, differentiable.

    On points of a structure's surface, a predicted and b true, this is the papers' surface registration error (SRE).
    """
    return (a.apply(points_mm) - b.apply(points_mm)).norm(dim=-1).mean(dim=-1)


RANGE_MM = 5.0
RANGE_DEG = 6.0


def draw_perturbation(
    points_mm: Points,
    center_mm: Vectors,
    target_sre_mm: Distances,
    generator: torch.Generator,
    tolerance_mm: float = 1e-3,
) -> Rigid:
    """Draw one rigid motion for each target that moves the points (b, n, 3) by that mean distance (b,).

    Each of the six parameters is U(-5, 5) mm or U(-6, 6) degrees (the MICCAI paper) about `center_mm` (b, 3); then all
    six are scaled together until the mean displacement is the target, which one scaling misses by about 0.6 mm.
    An initial transform is `truth @ draw_perturbation(...)`. Drawn on the generator's device; raises InputError for a
    target below 0 or not finite, and where 40 scalings do not reach it (200 mm on a prostate is reached).
    """
    if not bool(((target_sre_mm >= 0) & target_sre_mm.isfinite()).all()):
        raise InputError(f"a perturbation must be 0 mm or more and finite, got {target_sre_mm.tolist()} mm")
    unit = torch.rand(len(target_sre_mm), 6, generator=generator, device=generator.device, dtype=torch.float64) * 2 - 1
    ranges = torch.tensor([RANGE_MM] * 3 + [RANGE_DEG] * 3, dtype=torch.float64)
    drawn = (unit * ranges.to(unit)).to(points_mm)
    identity = Rigid.identity(points_mm.dtype).to(points_mm.device, points_mm.dtype)
    scale = torch.ones_like(target_sre_mm)
    for _ in range(40):
        motion = Rigid.from_parameters(drawn * scale[:, None], center_mm)
        reached = mean_displacement_mm(motion, identity, points_mm)
        done = (reached - target_sre_mm).abs() <= tolerance_mm
        if bool(done.all()):
            return motion
        scale = torch.where(done, scale, scale * target_sre_mm / reached)  # not where done: a target of 0 may be
    worst = float(target_sre_mm[~done].max())
    raise InputError(f"no perturbation of these points reaches {worst:.1f} mm: ask for a smaller initial SRE")
