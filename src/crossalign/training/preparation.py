"""Datasets from image files and from the simulators."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from crossalign.data import LoadedCase, in_split, load_case, read_manifest
from crossalign.errors import InputError
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, scale_intensity, to_working_spacing
from crossalign.models import StageSettings
from crossalign.simulation import SimulatedPairs, SimulationSettings, simulate_pairs, simulate_shapes
from crossalign.training.data_record import cases_record
from crossalign.training.dataset import PairDataset, joined
from crossalign.types import Points, Shape, Triple

DATASET_POINTS = 256
FIXED_REACH = 1.6  # canvas over crop: room for turning, stretching and shifting the crop
MOVING_MARGIN_MM = 20.0  # and for the largest usual start


@dataclass(frozen=True, eq=False)
class _Row:
    fixed: Image
    mask: Image
    moving: Image
    moving_mask: Image | None
    center_mm: Tensor
    fixed_to_moving: Rigid
    surface_mm: Points


def datasets_from_manifest(
    manifest: str | os.PathLike[str], stage: StageSettings, patients: float = 1.0, seed: int = 0
) -> tuple[PairDataset, PairDataset]:
    """Read a manifest's train and val splits; raises ManifestError where one is missing, or a file's own error.

    With `patients` below 1 only that share of the training patients is read, drawn by `pick_patients` from the seed.
    """
    cases = read_manifest(manifest)
    train, val = (in_split(cases, split) for split in ("train", "val"))  # before minutes are spent on reading scans
    kept = [train[number] for number in pick_patients([case.patient for case in train], patients, seed)]
    return (
        dataset_from_cases((load_case(case) for case in kept), stage),
        dataset_from_cases((load_case(case) for case in val), stage),
    )


def manifest_record(manifest: str | os.PathLike[str]) -> dict[str, object]:
    """Record a manifest's train and val cases: what a row says, and the content of each file that training reads."""
    columns = ("split", "patient", "fixed", "moving", "fixed_mask", "reference", "moving_mask")
    chosen = [case for case in read_manifest(manifest) if case.split in ("train", "val")]
    return cases_record((case.name, {column: getattr(case, column) for column in columns}) for case in chosen)


def pick_patients(patients: Sequence[str], share: float, seed: int) -> list[int]:
    """Return the numbers of the cases of a share of the patients (one at least), in order.

    `patients` says whose each case is. The same seed's larger share holds all of its smaller one.
    """
    names = sorted(set(patients))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(names), generator=generator).tolist()
    kept = {names[number] for number in order[: max(1, round(share * len(names)))]}
    return [number for number, name in enumerate(patients) if name in kept]


def dataset_from_cases(cases: Iterable[LoadedCase], stage: StageSettings) -> PairDataset:
    """Bring cases to canvases at the stage's working spacing, prepared as registration prepares them."""
    return _stack([_prepared(case, stage) for case in cases], stage)


def _prepared(case: LoadedCase, stage: StageSettings) -> _Row:
    step = stage.working_spacing_mm
    reach = stage.extent_mm() * FIXED_REACH
    center = case.fixed_mask.centroid_mm()
    middle = case.fixed_to_moving.to("cpu", torch.float64).apply(center[None])[0]
    keep = torch.linspace(0, len(case.surface_mm) - 1, DATASET_POINTS).round().long()
    return _Row(
        fixed=_canvas(scale_intensity(case.fixed), center, reach, step),
        mask=_canvas(case.fixed_mask.foreground(), center, reach, step),
        moving=_canvas(scale_intensity(case.moving), middle, reach + MOVING_MARGIN_MM, step),
        moving_mask=None
        if case.moving_mask is None
        else _canvas(case.moving_mask.foreground(), middle, reach + MOVING_MARGIN_MM, step),
        center_mm=center,
        fixed_to_moving=case.fixed_to_moving,
        surface_mm=case.surface_mm[keep],
    )


def _canvas(image: Image, center_mm: Tensor, reach_mm: float, spacing_mm: float) -> Image:
    size = round(reach_mm / spacing_mm)
    x, y, z = center_mm.tolist()
    spacing: Triple = (spacing_mm, spacing_mm, spacing_mm)
    grid = Grid.centered((x, y, z), (size, size, size), spacing)
    return to_working_spacing(image, spacing_mm).resampled(grid, fill=0.0)


def _stack(rows: list[_Row], stage: StageSettings) -> PairDataset:
    if not rows:
        raise InputError("there are no cases to train on")

    def volumes(name: str) -> Tensor:
        return torch.stack([getattr(row, name).voxels for row in rows])[:, None].half()

    def moving_masks() -> Tensor | None:
        if all(row.moving_mask is None for row in rows):
            return None
        none = torch.full_like(rows[0].moving.voxels, -1.0)
        return torch.stack([none if row.moving_mask is None else row.moving_mask.voxels for row in rows])[
            :, None
        ].half()

    def origins(name: str) -> Tensor:
        return torch.tensor([getattr(row, name).grid.origin_mm for row in rows])

    return PairDataset(
        fixed=volumes("fixed"),
        fixed_mask=volumes("mask"),
        moving=volumes("moving"),
        fixed_origin_mm=origins("fixed"),
        moving_origin_mm=origins("moving"),
        center_mm=torch.stack([row.center_mm for row in rows]).float(),
        rotation=torch.stack([row.fixed_to_moving.rotation for row in rows]).float(),
        translation_mm=torch.stack([row.fixed_to_moving.translation_mm for row in rows]).float(),
        surface_mm=torch.stack([row.surface_mm for row in rows]).float(),
        spacing_mm=torch.tensor(stage.working_spacing_mm),
        moving_mask=moving_masks(),
    )


MOST_SIMULATED = 100_000  # their volumes are held in memory
CANVAS_SPACING = 0.76  # of a crop's voxel: finer costs time and shows no more after cutting
CANVAS_REACH = 1.52  # of a crop: room for turning, stretching and shifting it
LEAST_REACH_MM = 66.0  # pelves need some room
Simulate = Callable[[int, torch.Generator, Shape, float], SimulatedPairs]


def datasets_from_simulation(
    count: int, seed: int, stage: StageSettings, shapes_share: float = 0.0, settings: SimulationSettings | None = None
) -> tuple[PairDataset, PairDataset]:
    """Simulate `count` training pairs and a tenth as many (8 at least) to validate on, from unrelated seeds.

    `shapes_share` of either are of shapes in any two modalities instead of pelves.
    """
    train = dataset_from_simulation(count, 2 * seed, stage, shapes_share=shapes_share, settings=settings)
    val = dataset_from_simulation(
        max(8, count // 10), 2 * seed + 1, stage, shapes_share=shapes_share, settings=settings
    )
    return train, val


def simulation_record(count: int) -> dict[str, object]:
    """Record what simulated pairs follow from, beside what is among the settings: seed and share of shapes."""
    return {"simulated": {"pairs": count, "simulator": asdict(SimulationSettings())}}


def canvas_lattice(stage: StageSettings) -> tuple[int, float]:
    """Return the voxels along each axis and the spacing, mm, of canvases that a stage's crops are cut from."""
    spacing_mm = stage.crop_spacing_mm * CANVAS_SPACING
    return round(max(stage.extent_mm() * CANVAS_REACH, LEAST_REACH_MM) / spacing_mm), spacing_mm


def dataset_from_simulation(
    count: int,
    seed: int,
    stage: StageSettings,
    chunk: int = 16,
    shapes_share: float = 0.0,
    settings: SimulationSettings | None = None,
) -> PairDataset:
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

    parts: list[PairDataset] = []
    for simulate, total in ((pelves, count - shapes), (others, shapes)):
        parts += [_dataset(simulate(min(chunk, total - first)), spacing_mm) for first in range(0, total, chunk)]
    return joined(parts)


def _dataset(pairs: SimulatedPairs, spacing_mm: float) -> PairDataset:
    count = len(pairs.fixed)
    gland = pairs.fixed_gland.float()
    lattice = pairs.fixed_grid.points_mm().float()
    weight = gland[:, 0, ..., None]
    return PairDataset(
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
