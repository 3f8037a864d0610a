"""Scores over windows, in batches and differentiable: structural similarity and local normalised cross-correlation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.similarity.windows import SSIM_RADIUS_VOXEL, SSIM_WEIGHTS, Fields, slabs_of, window_means
from crossalign.types import Volume

# Wang et al. 2004: (K1 L)^2 and (K2 L)^2 for values in [0, 1], as K1 and K2: what counts as dark, and as flat.
SSIM_K1, SSIM_K2 = 0.01, 0.03
SSIM_C1, SSIM_C2 = SSIM_K1**2, SSIM_K2**2
TOLERANCE = 1e-4  # rounding of values that were scaled to [0, 1]


def check_alike(*volumes: Tensor) -> None:
    """Raise InputError where volumes are not finite floating-point numbers, all of one shape."""
    for volume in volumes:
        if not volume.is_floating_point():
            raise InputError(f"a score needs floating-point values, got {volume.dtype}: convert them with .float()")
        if volume.shape != volumes[0].shape:
            shapes = " and ".join(str(tuple(one.shape)) for one in volumes)
            raise InputError(f"a score compares volumes of one shape, got {shapes}: resample them to one grid")
        if volume.numel() == 0:
            raise InputError("a score needs voxels, got an empty volume")
        if not bool(torch.isfinite(volume.detach()).all()):
            raise InputError("a score needs finite values, got NaN or infinite ones: replace them first")


def check_unit_range(*volumes: Tensor) -> None:
    """Raise InputError where a value lies outside [0, 1], by more than rounding.

    The constants of structural similarity, the bins of mutual information and the peak of PSNR are those of that range:
    other values give another number, and no sign of it.
    """
    for volume in volumes:
        low, high = (float(value) for value in torch.aminmax(volume.detach()))
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
            raise InputError(
                f"this score is for values in [0, 1], got {low:g} to {high:g}: scale all images to [0, 1] first, "
                "those of one range alike (8-bit images: divide each by 255)"
            )


def check_scored(*volumes: Tensor) -> None:
    """Raise InputError where volumes are not of one shape, finite, and in [0, 1]."""
    check_alike(*volumes)
    check_unit_range(*volumes)


LNCC_WIDTH = 9
LNCC_FLAT = 1e-5  # variance of a window under which it counts as flat, for values in [0, 1]: an sd of 0.003


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of each window."""

    mean: Fields
    variance: Fields


def ssim_score(x: Fields, y: Fields) -> Tensor:
    """Mean structural similarity over all windows of planes or volumes, a scalar.

    Gaussian windows of sd 1.5, 11 voxels wide, that lie inside; population covariance: MONAI's SSIMMetric, and
    scikit-image's structural_similarity(gaussian_weights, no sample covariance). `x` may leave [0, 1], as the output of
    a network does while it learns; raises InputError where `y` does, and for fewer than 11 voxels on an axis. Large
    volumes are scored slab by slab, unless gradients are asked for.
    """
    check_unit_range(y)
    window_planes = y.shape[2] - 2 * SSIM_RADIUS_VOXEL
    slabs = slabs_of((window_planes, *y.shape[3:])) if y.ndim == 5 and window_planes > 0 else []
    if len(slabs) < 2 or x.requires_grad or y.requires_grad:
        return _ssim_map(x, y, _moments(x), _moments(y)).mean()
    total, count = 0.0, 0
    for slab in slabs:
        planes = slice(slab.first, slab.last + 2 * SSIM_RADIUS_VOXEL)
        part_x, part_y = x[:, :, planes], y[:, :, planes]
        part = _ssim_map(part_x, part_y, _moments(part_x), _moments(part_y))
        total, count = total + float(part.sum(dtype=torch.float64)), count + part.numel()
    return x.new_tensor(total / count)


def ssim_pair_score(fused: Fields, a: Fields, b: Fields) -> tuple[Tensor, Tensor]:
    """`ssim_score` of one volume with two others, its own moments computed once."""
    check_unit_range(a, b)
    of_fused = _moments(fused)
    with_a, with_b = (_ssim_map(fused, other, of_fused, _moments(other)).mean() for other in (a, b))
    return with_a, with_b


def lncc_score(x: Volume, reference: Volume, width: int = LNCC_WIDTH) -> Tensor:
    """Mean squared correlation over windows of `width` voxels, a scalar from 0 to 1.

    Windows where the reference is flat have no correlation and are left out (NaN where there is no other); where only
    `x` is flat it is 0. Raises InputError where the reference leaves [0, 1].
    """
    check_unit_range(reference)
    parts = torch.cat((x, reference, x * x, reference * reference, x * reference), dim=1)
    mean_x, mean_y, square_x, square_y, product = window_means(parts, (1 / max(width, 1),) * width).chunk(5, dim=1)
    variance_x, variance_y = square_x - mean_x**2, square_y - mean_y**2
    covariance = product - mean_x * mean_y
    correlation = covariance**2 / (variance_x.clamp(min=LNCC_FLAT) * variance_y.clamp(min=LNCC_FLAT))
    varies = variance_y > LNCC_FLAT
    return torch.where(varies, correlation, torch.zeros_like(correlation)).sum() / varies.sum()


def _moments(fields: Fields) -> Moments:
    mean, square = window_means(torch.cat((fields, fields * fields), dim=1), SSIM_WEIGHTS).chunk(2, dim=1)
    return Moments(mean, square - mean**2)


def _ssim_map(x: Fields, y: Fields, of_x: Moments, of_y: Moments) -> Fields:
    return ssim_of_moments(of_x, of_y, window_means(x * y, SSIM_WEIGHTS) - of_x.mean * of_y.mean)


def ssim_of_moments(of_x: Moments, of_y: Moments, covariance: Fields) -> Fields:
    """Structural similarity of each window, from its moments."""
    luminance = (2 * of_x.mean * of_y.mean + SSIM_C1) / (of_x.mean**2 + of_y.mean**2 + SSIM_C1)
    return luminance * (2 * covariance + SSIM_C2) / (of_x.variance + of_y.variance + SSIM_C2)
