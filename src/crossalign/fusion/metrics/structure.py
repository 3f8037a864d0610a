"""Structural similarity and gradient transfer of a fused volume: differentiable, in torch, in 3-D and on one plane.

Both count voxels, not millimetres, as their definitions do.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import InputError
from crossalign.similarity.ranges import check_alike, check_scored

# A volume (z, y, x) or a plane (y, x), float, in [0, 1].
Field: TypeAlias = Float[Tensor, "*space"]

SSIM_SIGMA_VOXEL = 1.5
SSIM_RADIUS_VOXEL = 5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # K1, K2 of Wang et al. 2004, for values in [0, 1]

SLAB_VOXELS = 2**20

# Xydeas and Petrovic 2000: strength (g) and orientation (a), as published.
GAIN_G, SLOPE_G, MIDDLE_G = 0.9994, -15.0, 0.5
GAIN_A, SLOPE_A, MIDDLE_A = 0.9879, -22.0, 0.8


def ssim_score(fused: Field, reference: Field) -> Tensor:
    """Mean structural similarity (Wang et al. 2004), a scalar; values in [0, 1].

    Gaussian window of sd 1.5 cut at 5 voxels (11 wide), population covariance, only windows that lie inside: the same
    number as MONAI's SSIMMetric and scikit-image's structural_similarity(gaussian_weights, no sample covariance).
    Raises InputError for values outside [0, 1].
    """
    check_scored(fused, reference)
    if _whole(fused, reference):
        return ssim_map(fused, reference, fused.ndim).mean()
    total, count = fused.new_zeros((), dtype=torch.float64), 0
    for first, last in _steps(fused, len(fused) - 2 * SSIM_RADIUS_VOXEL):
        planes = slice(first, last + 2 * SSIM_RADIUS_VOXEL)
        part = ssim_map(fused[planes], reference[planes], fused.ndim)
        total, count = total + part.sum(dtype=torch.float64), count + part.numel()
    return (total / count).to(fused)


def ssim_map(x: Tensor, y: Tensor, space: int = 3) -> Tensor:
    """Structural similarity of each window, over the last `space` axes (any batch before them), 10 smaller on each.

    Values in [0, 1]. Raises InputError where an axis is shorter than the window.
    """
    if min(x.shape[-space:]) <= 2 * SSIM_RADIUS_VOXEL:
        raise InputError(f"SSIM needs {2 * SSIM_RADIUS_VOXEL + 1} voxels or more on each axis, got {tuple(x.shape)}")
    offsets = torch.arange(-SSIM_RADIUS_VOXEL, SSIM_RADIUS_VOXEL + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / SSIM_SIGMA_VOXEL) ** 2)
    kernels = [(weights / weights.sum()).tolist()] * space
    mean_x, mean_y = filtered(x, kernels), filtered(y, kernels)
    variance_x = filtered(x * x, kernels) - mean_x**2
    variance_y = filtered(y * y, kernels) - mean_y**2
    covariance = filtered(x * y, kernels) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    return luminance * (2 * covariance + SSIM_C2) / (variance_x + variance_y + SSIM_C2)


def qabf_score(fused: Field, a: Field, b: Field) -> Tensor:
    """Share of both inputs' gradients that the fused image keeps (Xydeas and Petrovic 2000), a scalar, 0 to 1.

    Sobel gradients (3 x 3, or 3 x 3 x 3: smoothed over both other axes) with the border repeated. In the plane
    two orientations differ by an acute angle between lines; in 3-D the angle between the two gradients' lines takes its
    place. NaN where neither input has a gradient. All three scaled alike give the same number.
    """
    check_alike(fused, a, b)
    fused, a, b = _near_one(fused, a, b)
    (kept_a, total_a), (kept_b, total_b) = qabf_sums(fused, a), qabf_sums(fused, b)
    return (kept_a + kept_b) / (total_a + total_b)


def qabf_sums(fused: Field, source: Field) -> tuple[Tensor, Tensor]:
    """Return how much of the source's gradients the fused image keeps, summed over voxels, and how much there is."""
    if _whole(fused, source):
        quality, strength = qabf_map(fused, source)
        return (quality * strength).sum(), strength.sum()
    kept = total = fused.new_zeros((), dtype=torch.float64)
    for first, last in _steps(fused, len(fused)):
        near = slice(max(0, first - 1), min(len(fused), last + 1))
        own = slice(first - near.start, last - near.start)
        quality, strength = (part[own] for part in qabf_map(fused[near], source[near]))
        kept = kept + (quality * strength).sum(dtype=torch.float64)
        total = total + strength.sum(dtype=torch.float64)
    return kept.to(fused), total.to(fused)


def _whole(*fields: Field) -> bool:
    """Say whether to score all at once: a plane, one slab, and where gradients are asked for."""
    first = fields[0]
    return first.ndim != 3 or first.numel() <= SLAB_VOXELS or any(field.requires_grad for field in fields)


def _steps(field: Field, planes: int) -> list[tuple[int, int]]:
    """Cut so many planes into slabs of about a million voxels: (first, before which the next begins)."""
    if planes < 1:
        return [(0, 0)]  # too thin for a window: ssim_map says so
    step = max(1, SLAB_VOXELS * len(field) // field.numel())
    return [(first, min(planes, first + step)) for first in range(0, planes, step)]


def _near_one(*fields: Field) -> tuple[Field, ...]:
    """Multiply all by one power of two, so that squares of gradients neither overflow nor vanish."""
    peak = max(float(field.detach().abs().max()) for field in fields)
    factor = 2.0 ** -math.floor(math.log2(peak)) if peak > 0 else 1.0
    return tuple(field * factor for field in fields)


def qabf_map(fused: Field, source: Field) -> tuple[Field, Field]:
    """How well the fused image keeps the source's gradient at each voxel, and that gradient's strength, its weight."""
    gradient_f, gradient_s = _sobel(fused), _sobel(source)
    strength_f, strength_s = _norm(gradient_f), _norm(gradient_s)
    larger, smaller = torch.maximum(strength_f, strength_s), torch.minimum(strength_f, strength_s)
    kept = torch.where(larger > 0, smaller / larger.clamp(min=1e-20), torch.zeros_like(larger))
    quality_g = GAIN_G / (1 + torch.exp(SLOPE_G * (kept - MIDDLE_G)))
    quality_a = GAIN_A / (1 + torch.exp(SLOPE_A * (_alignment(gradient_f, gradient_s) - MIDDLE_A)))
    # A flat place in one of the two keeps nothing of the other, as in the authors' program.
    return torch.where(smaller > 0, quality_g * quality_a, torch.zeros_like(kept)), strength_s


def _alignment(gradients_f: Tensor, gradients_s: Tensor) -> Tensor:
    """1 where two gradients lie along one line, 0 where they are at right angles, linear in the angle between."""
    along = (gradients_f * gradients_s).sum(0).abs()
    across = (_square_norm(gradients_f) * _square_norm(gradients_s) - along**2).clamp(min=1e-20).sqrt()
    return 1 - torch.atan2(across, along) / (torch.pi / 2)


def _sobel(field: Tensor) -> Tensor:
    """Return the gradient along each axis, (axes, *space)."""
    space = field.ndim
    padded = F.pad(field[None, None], [1] * (2 * space), mode="replicate")[0, 0]
    smooth, slope = (1.0, 2.0, 1.0), (-1.0, 0.0, 1.0)
    parts = [[slope if axis == along else smooth for axis in range(space)] for along in range(space)]
    return torch.stack([filtered(padded, kernels) for kernels in parts])


def _square_norm(gradient: Tensor) -> Tensor:
    return (gradient**2).sum(0)


def _norm(gradient: Tensor) -> Tensor:
    """Length whose derivative at 0 is 0, not NaN."""
    square = _square_norm(gradient)
    return torch.where(square > 0, square.clamp(min=1e-30).sqrt(), torch.zeros_like(square))


def filtered(field: Tensor, kernels: Sequence[Sequence[float]]) -> Tensor:
    """Correlate the last axes with one kernel each; only where the kernel lies inside.

    A product with a banded matrix takes a fraction of the time of the convolution that it equals.
    """
    for axis, kernel in enumerate(kernels, start=field.ndim - len(kernels)):
        band = _band(field.shape[axis], kernel).to(field)
        field = (field.movedim(axis, -1) @ band.T).movedim(-1, axis)
    return field


def _band(size: int, kernel: Sequence[float]) -> Tensor:
    band = torch.zeros(size - len(kernel) + 1, size, dtype=torch.float64)
    for offset, weight in enumerate(kernel):
        band.diagonal(offset).fill_(weight)
    return band
