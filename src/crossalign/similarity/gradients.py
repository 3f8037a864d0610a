"""Image gradients, and how well a fused volume preserves those of its inputs (Qabf), in 3-D and differentiable."""

import math

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.similarity.windows import slabs_of
from crossalign.types import Map, Volume

# Xydeas and Petrovic 2000, as published: strength (g) and orientation (a).
GAIN_G, SLOPE_G, MIDDLE_G = 0.9994, -15.0, 0.5
GAIN_A, SLOPE_A, MIDDLE_A = 0.9879, -22.0, 0.8
TINY = 1e-20
NEAR_ONE = 1e-2, 1e2  # largest values for which no square needs scaling


def qabf_score(fused: Volume, *sources: Volume) -> Tensor:
    """Fraction of the sources' gradients that the fused volume preserves, weighted by their strength: 0 to 1, a scalar.

    Sobel gradients, the border repeated. In the plane (a volume of one slice) two orientations differ by the acute
    angle between two lines; in 3-D the angle between the two gradients' lines takes its place. NaN where no source has
    a gradient. All volumes scaled alike give the same number. Volumes have one channel; large ones are scored slab by
    slab, unless gradients are asked for.
    """
    preserved, _, strength = _sums(fused, *sources)
    return preserved / strength


def nabf_score(fused: Volume, *sources: Volume) -> Tensor:
    """Fraction of the sources' gradients where the fused volume has stronger ones of its own: 0 to 1, a scalar.

    It measures artefacts (Petrovic and Xydeas 2005): over voxels where the fused gradient is stronger than that of each
    source, what Qabf lacks there. What is added where no source has a gradient does not count. Otherwise as
    `qabf_score`.
    """
    _, added, strength = _sums(fused, *sources)
    return added / strength


def _sums(fused: Volume, *sources: Volume) -> Tensor:
    """Return the sums over all voxels of what `_preservation` returns, (3,)."""
    volumes = _near_one(fused, *sources)
    slabs = slabs_of(fused.shape[2:]) if len(fused) == 1 else []
    if len(slabs) < 2 or any(volume.requires_grad for volume in volumes):
        return torch.stack([part.sum() for part in _preservation(*volumes)])
    total = torch.zeros(3, dtype=torch.float64, device=fused.device)
    for slab in slabs:
        wider = slab.widened(1)
        own = slab.inside(wider)
        parts = _preservation(*(volume[:, :, wider.planes] for volume in volumes))
        total += torch.stack([part[:, own].sum(dtype=torch.float64) for part in parts])
    return total.to(fused.dtype)


def sobel(volume: Volume) -> Map:
    """Gradient (b, 3, z, y, x), along z, y, x, of a volume of one channel: 3^3 Sobel, the border repeated."""
    if 0 in volume.shape:
        raise InputError(f"gradients need volumes of 1 voxel or more on each axis, got {tuple(volume.shape)}")
    padded = volume
    for axis in (2, 3, 4):  # by far faster than torch's own padding of one channel
        first, last = padded.narrow(axis, 0, 1), padded.narrow(axis, padded.shape[axis] - 1, 1)
        padded = torch.cat((first, padded, last), dim=axis)
    smooth_x, difference_x = _smooth(padded, 4), _difference(padded, 4)
    smooth_xy = _smooth(smooth_x, 3)
    along_z, along_y = _difference(smooth_xy, 2), _smooth(_difference(smooth_x, 3), 2)
    return torch.cat((along_z, along_y, _smooth(_smooth(difference_x, 3), 2)), dim=1)


def sobel_adjoint(gradient: Map) -> Map:
    """Distribute values (b, 3, z, y, x) of gradients to the voxels that they are made of: the transpose of `sobel`."""
    along_z, along_y, along_x = gradient.chunk(3, dim=1)
    along_zy = _smooth_adjoint(_difference_adjoint(along_z, 2), 3) + _difference_adjoint(_smooth_adjoint(along_y, 2), 3)
    return _smooth_adjoint(along_zy, 4) + _difference_adjoint(_smooth_adjoint(_smooth_adjoint(along_x, 2), 3), 4)


def _smooth(volume: Tensor, axis: int) -> Tensor:
    inner = volume.shape[axis] - 2
    return volume.narrow(axis, 0, inner) + 2 * volume.narrow(axis, 1, inner) + volume.narrow(axis, 2, inner)


def _difference(volume: Tensor, axis: int) -> Tensor:
    inner = volume.shape[axis] - 2
    return volume.narrow(axis, 2, inner) - volume.narrow(axis, 0, inner)


def _smooth_adjoint(volume: Tensor, axis: int) -> Tensor:
    return _folded(_smooth(_zero_padded(volume, axis), axis), axis)


def _difference_adjoint(volume: Tensor, axis: int) -> Tensor:
    return _folded(-_difference(_zero_padded(volume, axis), axis), axis)


def _zero_padded(volume: Tensor, axis: int) -> Tensor:
    """Two voxels of 0 at both ends of an axis."""
    shape = list(volume.shape)
    shape[axis] = 2
    zeros = volume.new_zeros(shape)
    return torch.cat((zeros, volume, zeros), dim=axis)


def _folded(volume: Tensor, axis: int) -> Tensor:
    """Add the outermost voxels, which stood for the repeated border, to the next ones."""
    size = volume.shape[axis]
    if size == 3:
        return volume.sum(axis, keepdim=True)
    first, inner, last = torch.split(volume, [2, size - 4, 2], dim=axis)
    return torch.cat((first.sum(axis, keepdim=True), inner, last.sum(axis, keepdim=True)), dim=axis)


def _near_one(*volumes: Volume) -> tuple[Volume, ...]:
    """Multiply all by one power of two where squares of their gradients could overflow or vanish."""
    peak = max(float(volume.detach().abs().max()) for volume in volumes)
    if peak == 0 or not math.isfinite(peak) or NEAR_ONE[0] <= peak <= NEAR_ONE[1]:
        return volumes
    return tuple(volume * 2.0 ** -math.floor(math.log2(peak)) for volume in volumes)


def _preservation(fused: Volume, *sources: Volume) -> tuple[Tensor, Tensor, Tensor]:
    """Strength of the sources' gradients at each voxel, (b, z, y, x): what is preserved, what is not, and all of it.

    What is not preserved counts only where the fused gradient is stronger than that of each source.
    """
    gradient = sobel(fused)
    qualities, strengths = zip(*(_preservation_of(gradient, sobel(source)) for source in sources), strict=True)
    preserved = sum(
        (quality * strength for quality, strength in zip(qualities, strengths, strict=True)), gradient[:, 0] * 0
    )
    strength = torch.stack(strengths).sum(0)
    stronger = _root(gradient.square().sum(1)) > torch.stack(strengths).amax(0)
    return preserved, torch.where(stronger, strength - preserved, torch.zeros_like(strength)), strength


def _preservation_of(fused: Map, source: Map) -> tuple[Tensor, Tensor]:
    """How well gradients of the fused volume preserve a source's (0 to 1), and the strength of the latter."""
    square_f, square_s = fused.square().sum(1), source.square().sum(1)
    strength_f, strength_s = _root(square_f), _root(square_s)
    larger, smaller = torch.maximum(strength_f, strength_s), torch.minimum(strength_f, strength_s)
    ratio = smaller / larger.clamp(min=TINY)
    along = (fused * source).sum(1).abs()
    across = (square_f * square_s - along**2).clamp(min=TINY).sqrt()
    alignment = 1 - torch.atan2(across, along) / (torch.pi / 2)
    quality_g = GAIN_G * torch.sigmoid(-SLOPE_G * (ratio - MIDDLE_G))
    quality_a = GAIN_A * torch.sigmoid(-SLOPE_A * (alignment - MIDDLE_A))
    # Where one of the two is flat nothing of the other is preserved, as in the authors' program.
    return torch.where(smaller > 0, quality_g * quality_a, torch.zeros_like(ratio)), strength_s


def _root(square: Tensor) -> Tensor:
    """Square root whose derivative at 0 is 0, not infinite."""
    return torch.where(square > 0, square.clamp(min=1e-30).sqrt(), torch.zeros_like(square))
