"""Banks of simulated pairs: made on the very canvases that crops are cut from."""

from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Grid
from crossalign.images import Image, scale_intensity
from crossalign.models import StageSettings
from crossalign.simulate import SimulatedPairs, SimulationSettings, simulate_pairs, simulate_shapes
from crossalign.training.bank import Bank
from crossalign.training.mixing import joined
from crossalign.types import Shape

MOST_SIMULATED = 100_000  # their volumes are held in memory
CANVAS_SPACING = 0.76  # of a crop's voxel: finer costs time and shows no more after cutting
CANVAS_REACH = 1.52  # of a crop: room for turning, stretching and shifting it
LEAST_REACH_MM = 66.0  # pelves need some room
Simulate = Callable[[int, torch.Generator, Shape, float], SimulatedPairs]


def banks_from_simulation(
    count: int, seed: int, stage: StageSettings, shapes_share: float = 0.0, settings: SimulationSettings | None = None
) -> tuple[Bank, Bank]:
    """Simulate `count` training pairs and a tenth as many (8 at least) to validate on, from unrelated seeds.

    `shapes_share` of either are of shapes in any two modalities instead of pelves.
    """
    train = bank_from_simulation(count, 2 * seed, stage, shapes_share=shapes_share, settings=settings)
    val = bank_from_simulation(max(8, count // 10), 2 * seed + 1, stage, shapes_share=shapes_share, settings=settings)
    return train, val


def simulation_record(count: int) -> dict[str, object]:
    """Record what simulated pairs follow from, beside what is among the settings: seed and share of shapes."""
    return {"simulated": {"pairs": count, "simulator": asdict(SimulationSettings())}}


def canvas_lattice(stage: StageSettings) -> tuple[int, float]:
    """Return the voxels along each axis and the spacing, mm, of canvases that a stage's crops are cut from."""
    spacing_mm = stage.crop_spacing_mm * CANVAS_SPACING
    return round(max(stage.extent_mm() * CANVAS_REACH, LEAST_REACH_MM) / spacing_mm), spacing_mm


def bank_from_simulation(
    count: int,
    seed: int,
    stage: StageSettings,
    chunk: int = 16,
    shapes_share: float = 0.0,
    settings: SimulationSettings | None = None,
) -> Bank:
    """Simulate `count` pairs from one seed, `shapes_share` of them (the last ones) of shapes in any two modalities.

    The same seed gives the same bank. `settings` None takes the simulator's own. Raises InputError for a share outside
    0..1.
    """
    if not 0 <= shapes_share <= 1:
        raise InputError(f"the share of shapes among simulated pairs must lie in 0..1, got {shapes_share}")
    if count < 1:
        raise InputError("there are no cases to train on")
    if count > MOST_SIMULATED:
        raise InputError(f"at most {MOST_SIMULATED} pairs can be simulated to train on, got {count}")
    chosen = SimulationSettings() if settings is None else settings
    generator = torch.Generator().manual_seed(seed)
    shapes = round(count * shapes_share)
    size, spacing_mm = canvas_lattice(stage)

    def pelves(wanted: int) -> SimulatedPairs:
        return simulate_pairs(wanted, generator, chosen, (size, size, size), spacing_mm)

    def others(wanted: int) -> SimulatedPairs:
        return simulate_shapes(wanted, generator, shape=(size, size, size), spacing_mm=spacing_mm)

    parts: list[Bank] = []
    for simulate, total in ((pelves, count - shapes), (others, shapes)):
        parts += [_bank(simulate(min(chunk, total - first)), spacing_mm) for first in range(0, total, chunk)]
    return joined(parts)


def _bank(pairs: SimulatedPairs, spacing_mm: float) -> Bank:
    count = len(pairs.fixed)
    gland = pairs.fixed_gland.float()
    lattice = pairs.fixed_grid.points_mm().float()
    weight = gland[:, 0, ..., None]
    return Bank(
        fixed=_scaled(pairs.fixed, pairs.fixed_grid),
        fixed_mask=gland.half(),
        moving=_scaled(pairs.moving, pairs.moving_grid),
        fixed_origin_mm=torch.tensor(pairs.fixed_grid.origin_mm).expand(count, 3).clone(),
        moving_origin_mm=torch.tensor(pairs.moving_grid.origin_mm).expand(count, 3).clone(),
        center_mm=(weight * lattice).sum((1, 2, 3)) / weight.sum((1, 2, 3)),
        rotation=pairs.fixed_to_moving.rotation.float(),
        translation_mm=pairs.fixed_to_moving.translation_mm.float(),
        surface_mm=pairs.surface_mm.float(),
        spacing_mm=torch.tensor(spacing_mm),
        moving_mask=pairs.moving_gland.half(),
    )


def _scaled(volumes: Tensor, grid: Grid) -> Tensor:
    """Prepare each image as registration prepares it; (b, 1, z, y, x), float16."""
    return torch.stack([scale_intensity(Image(volume[0], grid)).voxels for volume in volumes])[:, None].half()
