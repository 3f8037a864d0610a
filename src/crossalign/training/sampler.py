"""Training pairs: crops cut from a bank at perturbed starts, batched on the training device."""

from dataclasses import dataclass

import torch

from crossalign.geometry import Rigid, draw_perturbation
from crossalign.models import StageSettings, crop_lattice
from crossalign.training.augment import Warp, draw_warp, vary_intensity
from crossalign.training.bank import Bank
from crossalign.training.settings import NO_AUGMENTATION, Augmentation
from crossalign.types import Map, PointLattice, Points, Volume


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
    bank: Bank,
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
    device, count = bank.fixed.device, len(index)
    warp = draw_warp(count, stage.extent_mm(), augmentation, generator, device)
    center = bank.center_mm[index]
    surface = warp.undo_affine(bank.surface_mm[index] - center[:, None])
    low, high = start_sre_mm
    target = low + (high - low) * torch.rand(count, generator=generator).to(device)
    start = draw_perturbation(surface, surface.mean(1), target, generator, tolerance_mm=0.01)
    points = _crop_points(bank, index, stage, warp, start)
    fixed = bank.fixed_at(index, points[0], label=stage.fixed_input == "label")
    moving = bank.moving_at(index, points[1])
    if augmentation != NO_AUGMENTATION:
        if stage.fixed_input == "image":
            fixed = vary_intensity(fixed, augmentation, generator)
        moving = vary_intensity(moving, augmentation, generator)
    marked: tuple[Volume | None, Volume | None] = (None, None)
    if glands:
        points = _crop_points(bank, index, stage, warp, start, coarser=2)
        marked = bank.fixed_at(index, points[0], label=True), bank.moving_gland_at(index, points[1])
    return Batch(fixed, moving, start.inverse(), surface, *marked)


def _crop_points(
    bank: Bank, index: torch.Tensor, stage: StageSettings, warp: Warp, start: Rigid, coarser: int = 1
) -> tuple[PointLattice, PointLattice]:
    """Where the crops' voxels lie in the fixed and in the moving space, mm; `coarser` takes fewer, larger voxels."""
    depth, height, width = (size // coarser for size in stage.crop_shape)
    lattice = crop_lattice((depth, height, width), stage.crop_spacing_mm * coarser).float().to(bank.fixed.device)
    lattice = lattice.expand(len(index), -1, -1, -1, -1)
    place = bank.center_mm[index][:, None, None, None]
    seen = start.apply(lattice.flatten(1, 3)).reshape(lattice.shape)
    target_points = (warp(seen, moving=True) + place).flatten(1, 3)
    moving = bank.reference(index).apply(target_points).reshape(lattice.shape)
    return warp(lattice, moving=False) + place, moving


def validation_batches(
    bank: Bank, stage: StageSettings, start_sre_mm: tuple[float, float], starts: int, seed: int
) -> list[Batch]:
    """Cut `starts` fixed crop pairs for every case of the bank, without augmentation; one batch for each round."""
    index = torch.arange(len(bank), device=bank.fixed.device)
    generator = torch.Generator().manual_seed(seed)
    return [draw_batch(bank, index, stage, start_sre_mm, NO_AUGMENTATION, generator) for _ in range(starts)]
