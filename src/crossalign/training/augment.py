"""Variations of a training pair: drawn first, then applied as a pure function of what was drawn."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.geometry import euler_to_rotation, sample
from crossalign.training.settings import Augmentation
from crossalign.types import PointLattice, Volume

KNOTS = 5  # of the lattice on which the bend is drawn, along each axis


@dataclass(frozen=True, eq=False)
class Warp:
    """A smooth change of shape: offsets q from the crop's centre to offsets from the gland's centroid, mm.

    q -> A q + shift + bend(q), with the bend interpolated between knots (b, 3, 5, 5, 5) spread over `reach_mm`.
    """

    matrix: Tensor  # (b, 3, 3)
    shift_mm: Tensor  # (b, 3)
    bend_mm: Tensor  # (b, 3, k, k, k)
    part_mm: Tensor  # (b, 3, k, k, k), added for the moving image only
    reach_mm: float

    def __call__(self, offsets_mm: PointLattice, moving: bool) -> PointLattice:
        """Map offsets (b, z, y, x, 3)."""
        knots = self.bend_mm + self.part_mm if moving else self.bend_mm
        unit = (offsets_mm / self.reach_mm + 0.5).clamp(0, 1)
        bend = sample(knots, unit * (KNOTS - 1)).movedim(1, -1)
        flat = offsets_mm.flatten(1, 3) @ self.matrix.mT
        return flat.reshape(offsets_mm.shape) + self.shift_mm[:, None, None, None] + bend

    def undo_affine(self, offsets_mm: Tensor) -> Tensor:
        """Map offsets (b, n, 3) from the gland's centroid back to the crop; the bend is left out."""
        return torch.linalg.solve(self.matrix, (offsets_mm - self.shift_mm[:, None]).mT).mT


def draw_warp(
    count: int, extent_mm: float, settings: Augmentation, generator: torch.Generator, device: torch.device
) -> Warp:
    """Draw `count` warps for a crop of this extent."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * 2 - 1

    def knots(sd_mm: float) -> Tensor:
        return torch.randn(count, 3, KNOTS, KNOTS, KNOTS, generator=generator) * sd_mm

    rotation = euler_to_rotation(uniform(3) * torch.deg2rad(torch.tensor(settings.turn_deg)))
    stretch = 1 + uniform(1) * settings.scale + uniform(3) * settings.scale / 3
    for axis in settings.mirror:
        flipped = torch.rand(count, generator=generator) < 0.5
        stretch[:, "xyz".index(axis)] *= torch.where(flipped, -1.0, 1.0)
    matrix = rotation * stretch[:, None, :]
    shift_mm, bend_mm, part_mm = uniform(3) * settings.shift_mm, knots(settings.bend_mm), knots(settings.part_mm)
    return Warp(
        matrix.to(device), shift_mm.to(device), bend_mm.to(device), part_mm.to(device), reach_mm=extent_mm * 1.5
    )


def vary_intensity(volume: Volume, settings: Augmentation, generator: torch.Generator) -> Volume:
    """Change an image's gamma, gain over space, noise, and blank out a box; the empty background (0) stays empty."""
    count, device = len(volume), volume.device

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1).to(device)

    empty = volume <= 0
    gamma = torch.exp(uniform(1, 1, 1, 1) * settings.gamma)
    varied = volume.clamp(min=1e-4) ** gamma
    coarse = uniform(1, 3, 3, 3) * settings.bias
    field = F.interpolate(coarse, size=volume.shape[2:], mode="trilinear", align_corners=True)
    noise_seed = int(torch.randint(2**62, (1,), generator=generator))
    noise = torch.randn(volume.shape, generator=torch.Generator(device).manual_seed(noise_seed), device=device)
    amount = (uniform(1, 1, 1, 1) + 1) / 2 * settings.noise
    varied = varied * torch.exp(field) + noise * amount
    dark = empty | _boxes(volume, settings.blank, generator)
    return torch.where(dark, torch.zeros_like(varied), varied.clamp(0, 1.5))


def _boxes(volume: Volume, chance: float, generator: torch.Generator) -> Tensor:
    """Mark in a share `chance` of the images a box of up to half the crop along each axis."""
    count = len(volume)
    chosen = torch.rand(count, generator=generator) < chance
    inside = chosen[:, None, None, None, None].to(volume.device)
    for axis, size in enumerate(volume.shape[2:], start=2):
        length = torch.rand(count, generator=generator) * 0.4 + 0.1
        first = torch.rand(count, generator=generator) * (1 - length)
        place = (torch.arange(size) + 0.5) / size
        along = (place >= first[:, None]) & (place < (first + length)[:, None])
        shape = [count, 1, 1, 1, 1]
        shape[axis] = size
        inside = inside & along.reshape(shape).to(volume.device)
    return inside
