"""The closed-form rigid fit in operators that ONNX has: it has no singular value decomposition."""

import torch
from torch import Tensor

from crossalign.geometry import Rigid
from crossalign.geometry.fit import MatchMoments

ROUNDS, SQUARINGS = 6, 4  # together 24: the largest eigenvalue must exceed the next by 1e-6 of it


def fit_by_quaternion(from_mm: Tensor, to_mm: Tensor, weight: Tensor, prior_mm2: float = 1.0) -> Rigid:
    """Find the motions (b) that `geometry.fit.fit_rigid` finds of points (b, n, 3), with weights (b, n)."""
    moments = MatchMoments.of(from_mm, to_mm, weight)
    return motion_of(moments, prior_mm2 * torch.eye(3).expand_as(moments.covariance))


def motion_of(moments: MatchMoments, attraction_mm2: Tensor) -> Rigid:
    """Find what `moments.fit` finds, with a matrix (b, 3, 3) added to the covariance."""
    rotation = rotation_of(moments.covariance + attraction_mm2)
    return Rigid(rotation, moments.to_center - (rotation @ moments.from_center[..., None])[..., 0])


def rotation_of(matrix: Tensor) -> Tensor:
    """Return the rotations nearest to matrices (b, 3, 3) in the Frobenius norm, by Horn's quaternions (1987).

    The rotation R that makes trace(R^T M) largest is that of the eigenvector q of a symmetric matrix (4, 4). Squaring
    that matrix again and again, shifted so that no eigenvalue is negative, leaves q q^T, of which the entries of R are
    sums. In double precision. Where the nearest rotation is not unique the result is none.
    """
    horn = _horn(matrix.double())
    shift = horn.square().sum((-1, -2), keepdim=True).sqrt()
    identity = torch.eye(4, dtype=torch.float64)
    power = _of_trace_one(horn + shift * identity, identity)
    for _ in range(ROUNDS):
        for _ in range(SQUARINGS):
            power = power @ power
        power = _of_trace_one(power, identity)
    return _from_products(power).to(matrix.dtype)


def _of_trace_one(matrix: Tensor, identity: Tensor) -> Tensor:
    return matrix / (matrix * identity).sum((-1, -2), keepdim=True)


def _horn(m: Tensor) -> Tensor:
    """Return Horn's matrix (b, 4, 4) of matrices whose rows belong to the points to reach."""
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = (m[..., row, :].unbind(-1) for row in range(3))  # xy: from x, to y
    rows = (
        (xx + yy + zz, yz - zy, zx - xz, xy - yx),
        (yz - zy, xx - yy - zz, xy + yx, zx + xz),
        (zx - xz, xy + yx, yy - xx - zz, yz + zy),
        (xy - yx, zx + xz, yz + zy, zz - xx - yy),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _from_products(q: Tensor) -> Tensor:
    """Return the rotations (b, 3, 3) of unit quaternions w, x, y, z, given the products (b, 4, 4) of their parts."""
    w, x, y, z = (q[..., row, :].unbind(-1) for row in range(4))
    rows = (
        (w[0] + x[1] - y[2] - z[3], 2 * (x[2] - w[3]), 2 * (x[3] + w[2])),
        (2 * (x[2] + w[3]), w[0] - x[1] + y[2] - z[3], 2 * (y[3] - w[1])),
        (2 * (x[3] - w[2]), 2 * (y[3] + w[1]), w[0] - x[1] - y[2] + z[3]),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
