"""Rigid: a rotation and a translation of physical space, or a batch of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry.rotations import euler_to_rotation, rotation_to_euler
from crossalign.types import Distances, Matrix4, Rotations, Vectors

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

    def __getitem__(self, index: int | slice | torch.Tensor) -> Rigid:
        """Pick from a batch."""
        return Rigid(self.rotation[index], self.translation_mm[index])

    def angle_deg(self) -> Distances:
        """Return the angle of the rotation about its own axis, in degrees."""
        trace = self.rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
        skew = self.rotation - self.rotation.mT
        sine = torch.stack((skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]), dim=-1).norm(dim=-1)
        return torch.atan2(sine, trace - 1) * (180 / math.pi)


def mean_displacement_mm(a: Rigid, b: Rigid, points_mm: BroadPoints) -> BroadDistances:
    """Return the mean over the points of |a(p) - b(p)|, (*b), mm, differentiable.

    On surface points of the gland, with a predicted and b true, this is the papers' surface registration error (SRE).
    """
    return (a.apply(points_mm) - b.apply(points_mm)).norm(dim=-1).mean(dim=-1)
