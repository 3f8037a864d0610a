"""The rigid transform that fits matched points best: closed form, differentiable, safe where the matches are poor."""

import torch
from torch import Tensor

from crossalign.geometry.rigid import Rigid
from crossalign.types import Points, Rotations


def fit_rigid(from_mm: Points, to_mm: Points, weight: Tensor | None = None, prior_mm2: float = 1.0) -> Rigid:
    """Find the rigid motions (b) that carry points (b, n, 3) onto points (b, n, 3) with least weighted square error.

    Kabsch (1976) in Arun's SVD form (1987). `weight` (b, n) is 0 or more and need not sum to 1; None: all alike.
    `prior_mm2` times the identity is added to the covariance: matches that say nothing about an axis leave the rotation
    about it at zero, and the derivative stays finite there. 0 is the plain fit.
    """
    weight = torch.ones_like(from_mm[..., 0]) if weight is None else weight
    weight = (weight / weight.sum(-1, keepdim=True).clamp(min=1e-12))[..., None]
    from_center, to_center = (weight * from_mm).sum(-2), (weight * to_mm).sum(-2)
    covariance = (weight * (to_mm - to_center[..., None, :])).mT @ (from_mm - from_center[..., None, :])
    rotation = nearest_rotation(covariance + prior_mm2 * torch.eye(3).to(covariance))
    return Rigid(rotation, to_center - (rotation @ from_center[..., None])[..., 0])


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
