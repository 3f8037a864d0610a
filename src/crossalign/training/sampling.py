"""Training batches: crops cut from a dataset at perturbed initialisations, varied by augmentation."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.geometry import Rigid, draw_perturbation, euler_to_rotation, sample
from crossalign.models import StageSettings
from crossalign.networks import crop_lattice
from crossalign.training.dataset import PairDataset
from crossalign.training.settings import NO_AUGMENTATION, Augmentation
from crossalign.types import Map, PointLattice, Points, Volume

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


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops (b, 1, z, y, x), the correction that mends each start, and surface points, in mm from the crop's centre.

    The glands, where they were asked for, are at half the crops' size, 0 to 1; -1 where a case has none.
    """

    fixed: Volume
    moving: Volume
    correction: Rigid
    surface_mm: Points
    fixed_gland: Map | None = None
    moving_gland: Map | None = None


def draw_batch(  # noqa: PLR0913 (what is drawn, from what, and how far: none of them goes with another)
    dataset: PairDataset,
    index: torch.Tensor,
    stage: StageSettings,
    start_sre_mm: tuple[float, float],
    augmentation: Augmentation,
    generator: torch.Generator,
    glands: bool = False,
) -> Batch:
    """Cut one crop pair for each case in `index` (b,), at a start of SRE U[start_sre_mm].

    In the crop's frame the fixed image is F(q) = fixed(warp(q)) and the moving one, seen through the start E, is
    M(q) = moving(reference(warp(E(q)))): the correction to find is E^-1 whatever the warp. The generator lives on the
    CPU, so that a seed gives the same pairs on every device, but for the augmentation's noise.
    """
    device, count = dataset.fixed.device, len(index)
    warp = draw_warp(count, stage.extent_mm(), augmentation, generator, device)
    center = dataset.center_mm[index]
    surface = warp.undo_affine(dataset.surface_mm[index] - center[:, None])
    low, high = start_sre_mm
    target = low + (high - low) * torch.rand(count, generator=generator).to(device)
    start = draw_perturbation(surface, surface.mean(1), target, generator, tolerance_mm=0.01)
    points = _crop_points(dataset, index, stage, warp, start)
    fixed = dataset.fixed_at(index, points[0], label=stage.fixed_input == "label")
    moving = dataset.moving_at(index, points[1])
    if augmentation != NO_AUGMENTATION:
        if stage.fixed_input == "image":
            fixed = vary_intensity(fixed, augmentation, generator)
        moving = vary_intensity(moving, augmentation, generator)
    marked: tuple[Volume | None, Volume | None] = (None, None)
    if glands:
        points = _crop_points(dataset, index, stage, warp, start, coarser=2)
        marked = dataset.fixed_at(index, points[0], label=True), dataset.moving_mask_at(index, points[1])
    return Batch(fixed, moving, start.inverse(), surface, *marked)


def _crop_points(
    dataset: PairDataset, index: torch.Tensor, stage: StageSettings, warp: Warp, start: Rigid, coarser: int = 1
) -> tuple[PointLattice, PointLattice]:
    """Where the crops' voxels lie in the fixed and in the moving space, mm; `coarser` takes fewer, larger voxels."""
    depth, height, width = (size // coarser for size in stage.crop_shape)
    lattice = crop_lattice((depth, height, width), stage.crop_spacing_mm * coarser).float().to(dataset.fixed.device)
    lattice = lattice.expand(len(index), -1, -1, -1, -1)
    place = dataset.center_mm[index][:, None, None, None]
    seen = start.apply(lattice.flatten(1, 3)).reshape(lattice.shape)
    target_points = (warp(seen, moving=True) + place).flatten(1, 3)
    moving = dataset.reference(index).apply(target_points).reshape(lattice.shape)
    return warp(lattice, moving=False) + place, moving


def validation_batches(
    dataset: PairDataset, stage: StageSettings, start_sre_mm: tuple[float, float], starts: int, seed: int
) -> list[Batch]:
    """Cut `starts` fixed crop pairs for every case of the bank, without augmentation; one batch for each round."""
    index = torch.arange(len(dataset), device=dataset.fixed.device)
    generator = torch.Generator().manual_seed(seed)
    return [draw_batch(dataset, index, stage, start_sre_mm, NO_AUGMENTATION, generator) for _ in range(starts)]
