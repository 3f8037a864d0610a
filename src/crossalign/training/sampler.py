"""Training pairs: crops cut from a bank at perturbed starts, batched on the training device."""

from dataclasses import dataclass

import torch

from crossalign.geometry import Rigid, draw_perturbation
from crossalign.models import StageSettings, crop_lattice
from crossalign.training.augment import draw_warp, vary_intensity
from crossalign.training.bank import Bank
from crossalign.training.settings import NO_AUGMENTATION, Augmentation
from crossalign.types import Points, Volume


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops (b, 1, z, y, x), the correction that mends each start, and surface points, in mm from the crop's centre."""

    fixed: Volume
    moving: Volume
    correction: Rigid
    surface_mm: Points


def draw_batch(
    bank: Bank,
    index: torch.Tensor,
    stage: StageSettings,
    start_sre_mm: tuple[float, float],
    augmentation: Augmentation,
    generator: torch.Generator,
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
    lattice = crop_lattice(stage.crop_shape, stage.crop_spacing_mm).float().to(device).expand(count, -1, -1, -1, -1)
    place = center[:, None, None, None]
    fixed = bank.fixed_at(index, warp(lattice, moving=False) + place, label=stage.fixed_input == "label")
    seen = start.apply(lattice.flatten(1, 3)).reshape(lattice.shape)
    target_points = (warp(seen, moving=True) + place).flatten(1, 3)
    moving = bank.moving_at(index, bank.reference(index).apply(target_points).reshape(lattice.shape))
    if augmentation != NO_AUGMENTATION:
        if stage.fixed_input == "image":
            fixed = vary_intensity(fixed, augmentation, generator)
        moving = vary_intensity(moving, augmentation, generator)
    return Batch(fixed, moving, start.inverse(), surface)


def validation_batches(
    bank: Bank, stage: StageSettings, start_sre_mm: tuple[float, float], starts: int, seed: int
) -> list[Batch]:
    """Cut `starts` fixed crop pairs for every case of the bank, without augmentation; one batch for each round."""
    index = torch.arange(len(bank), device=bank.fixed.device)
    generator = torch.Generator().manual_seed(seed)
    return [draw_batch(bank, index, stage, start_sre_mm, NO_AUGMENTATION, generator) for _ in range(starts)]
