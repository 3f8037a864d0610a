"""Gradient transfer (Qabf of Xydeas and Petrovic 2000) in 3-D, differentiable."""

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.similarity.ranges import check_unit_range
from crossalign.types import Map, Volume

# As published: strength (g) and orientation (a).
GAIN_G, SLOPE_G, MIDDLE_G = 0.9994, -15.0, 0.5
GAIN_A, SLOPE_A, MIDDLE_A = 0.9879, -22.0, 0.8
TINY = 1e-20


def gradient_transfer_score(fused: Volume, a: Volume, b: Volume) -> Tensor:
    """Share of both inputs' gradients that the fused volume keeps, weighed by their strength; a scalar, 0 to 1.

    NaN where neither input has a gradient. Volumes have one channel. Raises InputError where `a` or `b` leaves [0, 1].
    """
    check_unit_range(a, b)
    gradient = sobel(fused)
    kept_a, strength_a = _kept(gradient, sobel(a))
    kept_b, strength_b = _kept(gradient, sobel(b))
    return (kept_a * strength_a + kept_b * strength_b).sum() / (strength_a + strength_b).sum()


def gradient_transfer_loss(fused: Volume, a: Volume, b: Volume) -> Tensor:
    """1 - `gradient_transfer_score`."""
    return 1 - gradient_transfer_score(fused, a, b)


def sobel(volume: Volume) -> Map:
    """Gradient (b, 3, z, y, x), along z, y, x, of a volume of one channel: 3^3 Sobel, the border repeated."""
    if 0 in volume.shape:
        raise InputError(f"gradients need volumes of 1 voxel or more on each axis, got {tuple(volume.shape)}")
    padded = volume
    for axis in (2, 3, 4):  # by far faster than torch's own padding of one channel
        first, last = padded.narrow(axis, 0, 1), padded.narrow(axis, padded.shape[axis] - 1, 1)
        padded = torch.cat((first, padded, last), dim=axis)
    smooth_x, slope_x = _smooth(padded, 4), _slope(padded, 4)
    smooth_xy = _smooth(smooth_x, 3)
    return torch.cat((_slope(smooth_xy, 2), _smooth(_slope(smooth_x, 3), 2), _smooth(_smooth(slope_x, 3), 2)), dim=1)


def sobel_back(gradient: Map) -> Map:
    """Bring values (b, 3, z, y, x) of gradients back to the voxels they were made of: the transpose of `sobel`."""
    along_z, along_y, along_x = gradient.chunk(3, dim=1)
    along_zy = _smooth_back(_slope_back(along_z, 2), 3) + _slope_back(_smooth_back(along_y, 2), 3)
    return _smooth_back(along_zy, 4) + _slope_back(_smooth_back(_smooth_back(along_x, 2), 3), 4)


def _smooth_back(volume: Tensor, axis: int) -> Tensor:
    return _folded(_smooth(_widened(volume, axis), axis), axis)


def _slope_back(volume: Tensor, axis: int) -> Tensor:
    return _folded(-_slope(_widened(volume, axis), axis), axis)


def _widened(volume: Tensor, axis: int) -> Tensor:
    """Two voxels of 0 at both ends of an axis."""
    shape = list(volume.shape)
    shape[axis] = 2
    none = volume.new_zeros(shape)
    return torch.cat((none, volume, none), dim=axis)


def _folded(volume: Tensor, axis: int) -> Tensor:
    """Add the outermost voxels, which stood for the repeated border, to the next ones."""
    inner = volume.shape[axis] - 2
    result = volume.narrow(axis, 1, inner).clone()
    result.narrow(axis, 0, 1).add_(volume.narrow(axis, 0, 1))
    result.narrow(axis, inner - 1, 1).add_(volume.narrow(axis, inner + 1, 1))
    return result


def _smooth(volume: Tensor, axis: int) -> Tensor:
    inner = volume.shape[axis] - 2
    return volume.narrow(axis, 0, inner) + 2 * volume.narrow(axis, 1, inner) + volume.narrow(axis, 2, inner)


def _slope(volume: Tensor, axis: int) -> Tensor:
    inner = volume.shape[axis] - 2
    return volume.narrow(axis, 2, inner) - volume.narrow(axis, 0, inner)


def _kept(fused: Volume, source: Volume) -> tuple[Tensor, Tensor]:
    """How well gradients `fused` keep gradients `source` (0 to 1), and the strength of the latter: (b, z, y, x)."""
    square_f, square_s = fused.square().sum(1), source.square().sum(1)
    strength_f, strength_s = _root(square_f), _root(square_s)
    larger, smaller = torch.maximum(strength_f, strength_s), torch.minimum(strength_f, strength_s)
    ratio = smaller / larger.clamp(min=TINY)
    along = (fused * source).sum(1).abs()
    across = (square_f * square_s - along**2).clamp(min=TINY).sqrt()
    alignment = 1 - torch.atan2(across, along) / (torch.pi / 2)
    quality_g = GAIN_G * torch.sigmoid(-SLOPE_G * (ratio - MIDDLE_G))
    quality_a = GAIN_A * torch.sigmoid(-SLOPE_A * (alignment - MIDDLE_A))
    return torch.where(smaller > 0, quality_g * quality_a, torch.zeros_like(ratio)), strength_s


def _root(square: Tensor) -> Tensor:
    """Square root whose derivative at 0 is 0, not infinite."""
    return torch.where(square > 0, square.clamp(min=1e-30).sqrt(), torch.zeros_like(square))
