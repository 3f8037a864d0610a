"""The rigid transform that fits matched points best: closed form, differentiable, safe where the matches are poor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.geometry.rigid import Rigid
from crossalign.types import Points, Rotations


@dataclass(frozen=True, eq=False)
class MatchMoments:
    """What the closed-form fit of weighted matches needs of them: their covariance (b, 3, 3), mm2, and both centres.

    `covariance` is that of the points to reach with those to move, `from_center` and `to_center` (b, 3) are mm.
    """

    covariance: Tensor
    from_center: Tensor
    to_center: Tensor

    @staticmethod
    def of(from_mm: Points, to_mm: Points, weight: Tensor | None = None) -> MatchMoments:
        """Compute them of points (b, n, 3) and weights (b, n), which are 0 or more and need not sum to 1."""
        weight = torch.ones_like(from_mm[..., 0]) if weight is None else weight
        weight = (weight / weight.sum(-1, keepdim=True).clamp(min=1e-12))[..., None]
        from_center, to_center = (weight * from_mm).sum(-2), (weight * to_mm).sum(-2)
        covariance = (weight * (to_mm - to_center[..., None, :])).mT @ (from_mm - from_center[..., None, :])
        return MatchMoments(covariance, from_center, to_center)

    def fit(self, attraction_mm2: Tensor) -> Rigid:
        """Return the best rigid motions (b), with a matrix (3, 3) or (b, 3, 3) added to the covariance."""
        rotation = nearest_rotation(self.covariance + attraction_mm2)
        return Rigid(rotation, self.to_center - (rotation @ self.from_center[..., None])[..., 0])


def fit_rigid(from_mm: Points, to_mm: Points, weight: Tensor | None = None, prior_mm2: float = 1.0) -> Rigid:
    """Find the rigid motions (b) that carry points (b, n, 3) onto points (b, n, 3) with least weighted square error.

    Kabsch (1976) in Arun's SVD form (1987). `weight` (b, n) is 0 or more and need not sum to 1; None: all alike.
    `prior_mm2` times the identity is added to the covariance: matches that say nothing about an axis leave the rotation
    about it at zero, and the derivative stays finite there. 0 is the plain fit.
    """
    moments = MatchMoments.of(from_mm, to_mm, weight)
    return moments.fit(prior_mm2 * torch.eye(3).to(moments.covariance))


def nearest_rotation(matrix: Tensor) -> Rotations:
    """Return the rotations nearest to matrices (*b, 3, 3) in the Frobenius norm.

    The derivative needs no distinct singular values; it is bounded where the smallest two nearly cancel.
    """
    return _NearestRotation.apply(matrix)  # type: ignore[no-untyped-call]


class _NearestRotation(torch.autograd.Function):
    """U D V^T of M = U S V^T. With P = U^T dM V its differential is U ((P - P^T) / (s_i + s_j)) V^T."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, matrix: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(matrix)
        sign = torch.ones_like(s)
        sign[..., 2] = torch.linalg.det(u) * torch.linalg.det(vh)
        u, s = u * sign[..., None, :], s * sign
        ctx.save_for_backward(u, s, vh)
        return u @ vh

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        u, s, vh = ctx.saved_tensors  # type: ignore[attr-defined]
        sums = s[..., :, None] + s[..., None, :]
        floor = 1e-4 * s[..., :1, None].clamp(min=1e-12)
        z = u.mT @ grads[0] @ vh.mT
        return u @ ((z - z.mT) / torch.maximum(sums, floor)) @ vh
