"""Datasets from image files and from the simulators: every scan is preprocessed as registration preprocesses it."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from crossalign.data import LoadedCase, in_split, load_case, read_manifest
from crossalign.errors import InputError
from crossalign.geometry import Grid
from crossalign.images import Image, LabelMap
from crossalign.images.preprocessing import preprocess, preprocess_mask
from crossalign.models import StageSettings
from crossalign.simulation import SimulatedPairs, SimulationSettings, simulate_pairs, simulate_shapes
from crossalign.training.data_record import PREPARATION, cases_record
from crossalign.training.dataset import PairDataset
from crossalign.types import Points

DATASET_POINTS = 256
FIXED_REACH = 1.6  # volume over crop: room for rotating, stretching and shifting the crop
MOVING_MARGIN_MM = 20.0  # and for the largest usual initial error
MOST_SIMULATED = 100_000  # their volumes are held in memory
SIMULATED_SPACING = 0.76  # of a crop's voxel: finer costs time and shows no more in the crops
SIMULATED_REACH = 1.52  # of a crop
LEAST_REACH_MM = 66.0  # pelves need some room
Simulator = Callable[[int, torch.Generator], SimulatedPairs]


def datasets_from_manifest(
    manifest: str | os.PathLike[str], stage: StageSettings, patients_fraction: float = 1.0, seed: int = 0
) -> tuple[PairDataset, PairDataset]:
    """Read a manifest's train and val splits; raises ManifestError where one is missing, or a file's own error.

    Below 1, only that fraction of the training patients is read, drawn by `select_patients` from the seed.
    """
    cases = read_manifest(manifest)
    train, val = (in_split(cases, split) for split in ("train", "val"))  # before minutes are spent on reading scans
    selected = select_patients([case.patient for case in train], patients_fraction, seed)
    return (
        dataset_from_cases((load_case(train[number]) for number in selected), stage),
        dataset_from_cases((load_case(case) for case in val), stage),
    )


def manifest_record(manifest: str | os.PathLike[str]) -> dict[str, object]:
    """Record a manifest's train and val cases: what a row says, and the content of each file that training reads."""
    columns = ("split", "patient", "fixed", "moving", "fixed_mask", "reference", "moving_mask")
    cases = [case for case in read_manifest(manifest) if case.split in ("train", "val")]
    record = cases_record((case.name, {column: getattr(case, column) for column in columns}) for case in cases)
    return record | PREPARATION


def select_patients(patients: Sequence[str], fraction: float, seed: int) -> list[int]:
    """Return the numbers of the cases of a fraction of the patients (one at least), in order.

    `patients` says whose each case is. The same seed's larger fraction holds all of its smaller one.
    """
    names = sorted(set(patients))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(names), generator=generator).tolist()
    selected = {names[number] for number in order[: max(1, round(fraction * len(names)))]}
    return [number for number, name in enumerate(patients) if name in selected]


def dataset_from_cases(cases: Iterable[LoadedCase], stage: StageSettings) -> PairDataset:
    """Preprocess cases at the stage's working spacing and keep a cube about each structure, larger than a crop."""
    step = stage.working_spacing_mm
    reach = stage.extent_mm() * FIXED_REACH
    sizes = round(reach / step), round((reach + MOVING_MARGIN_MM) / step)
    rows = [_preprocessed(case, step, sizes) for case in cases]
    return _collected(rows, len(rows), step)


def datasets_from_simulation(
    count: int, seed: int, stage: StageSettings, shapes_fraction: float = 0.0
) -> tuple[PairDataset, PairDataset]:
    """Simulate `count` training pairs and a tenth as many (8 at least) to validate on, from unrelated seeds.

    Of either, `shapes_fraction` show random shapes in any two modalities instead of pelves.
    """
    train = dataset_from_simulation(count, 2 * seed, stage, shapes_fraction)
    return train, dataset_from_simulation(max(8, count // 10), 2 * seed + 1, stage, shapes_fraction)


def simulation_record(count: int) -> dict[str, object]:
    """Record what simulated pairs follow from, beside what is among the settings: seed and fraction of shapes."""
    return {"simulated": {"pairs": count, "simulator": asdict(SimulationSettings())}} | PREPARATION


def dataset_from_simulation(
    count: int,
    seed: int,
    stage: StageSettings,
    shapes_fraction: float = 0.0,
    settings: SimulationSettings | None = None,
    chunk: int = 16,
) -> PairDataset:
    """Simulate `count` pairs from one seed, `shapes_fraction` of them (the last ones) of shapes in any two modalities.

    The same seed gives the same dataset. `settings` None takes the simulator's own. Raises InputError for a fraction
    outside 0..1.
    """
    if not 0 <= shapes_fraction <= 1:
        raise InputError(f"the fraction of shapes among simulated pairs must lie in 0..1, got {shapes_fraction}")
    if count > MOST_SIMULATED:
        raise InputError(f"at most {MOST_SIMULATED} pairs can be simulated to train on, got {count}")
    generator, grid = torch.Generator().manual_seed(seed), simulation_grid(stage)
    shapes = round(count * shapes_fraction)
    spacing_mm, step = grid.spacing_mm[0], stage.working_spacing_mm

    def pelves(wanted: int) -> SimulatedPairs:
        return simulate_pairs(wanted, generator, settings or SimulationSettings(), grid.shape, spacing_mm)

    def others(wanted: int) -> SimulatedPairs:
        return simulate_shapes(wanted, generator, shape=grid.shape, spacing_mm=spacing_mm)

    def rows() -> Iterator[dict[str, Tensor]]:
        for simulator, total in ((pelves, count - shapes), (others, shapes)):
            for first in range(0, total, chunk):
                for case in simulated_cases(simulator(min(chunk, total - first))):
                    yield _preprocessed(case, step)

    return _collected(rows(), count, step)


def simulation_grid(stage: StageSettings) -> Grid:
    """Return the grid on which pairs are simulated for a stage."""
    spacing_mm = stage.crop_spacing_mm * SIMULATED_SPACING
    size = round(max(stage.extent_mm() * SIMULATED_REACH, LEAST_REACH_MM) / spacing_mm)
    return Grid.centered((0.0, 0.0, 0.0), (size, size, size), (spacing_mm, spacing_mm, spacing_mm))


def preprocessed_grid(stage: StageSettings) -> Grid:
    """Return the grid that simulated pairs have in a stage's dataset."""
    step = stage.working_spacing_mm
    return simulation_grid(stage).covering((step, step, step))


def simulated_cases(pairs: SimulatedPairs) -> list[LoadedCase]:
    """Return simulated pairs as cases, as if they had been read from files."""
    return [
        LoadedCase(
            name=f"simulated{number}",
            patient=f"simulated{number}",
            split="train",
            fixed=Image(pairs.fixed[number, 0], pairs.fixed_grid),
            moving=Image(pairs.moving[number, 0], pairs.moving_grid),
            fixed_mask=LabelMap(pairs.fixed_mask[number, 0].long(), pairs.fixed_grid),
            fixed_to_moving=pairs.fixed_to_moving[number].to("cpu", torch.float64),
            surface_mm=pairs.surface_mm[number].double(),
            moving_mask=LabelMap(pairs.moving_mask[number, 0].long(), pairs.moving_grid),
        )
        for number in range(len(pairs.fixed))
    ]


def _preprocessed(case: LoadedCase, spacing_mm: float, sizes: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """Preprocess a case; of both scans it keeps cubes of these sizes about the structure, or (None) the whole scans."""
    center = case.fixed_mask.centroid_mm()
    middle = case.fixed_to_moving.to("cpu", torch.float64).apply(center[None])[0]
    keep = torch.linspace(0, len(case.surface_mm) - 1, DATASET_POINTS).round().long()
    row = {
        "center_mm": center.float(),
        "rotation": case.fixed_to_moving.rotation.float(),
        "translation_mm": case.fixed_to_moving.translation_mm.float(),
        "surface_mm": case.surface_mm[keep].float(),
    }
    for number, (name, scan, mask, at_mm) in enumerate(
        (("fixed", case.fixed, case.fixed_mask, center), ("moving", case.moving, case.moving_mask, middle))
    ):
        near_mm = None
        if sizes is not None:
            reach_mm = (sizes[number] + 1) / 2 * spacing_mm
            near_mm = torch.stack((at_mm - reach_mm, at_mm + reach_mm))
        image = preprocess(scan, spacing_mm, near_mm)
        cut = (at_mm, sizes[number]) if sizes else (image.grid.center_mm(), max(image.grid.shape))
        row[name], row[f"{name}_origin_mm"], row[f"{name}_box_mm"] = _cube(image, *cut)
        if mask is None:
            row[f"{name}_mask"] = torch.full_like(row[name], -1.0)
        else:
            row[f"{name}_mask"] = _cube(preprocess_mask(mask, spacing_mm, near_mm), *cut)[0]
    return row


def _cube(image: Image, center_mm: Tensor, size: int) -> tuple[Tensor, Tensor, Points]:
    """Cut a cube about a point out of a preprocessed image, 0 where that ends, without interpolation.

    Return its voxels (1, z, y, x), float16, the centre of its first voxel, and those of the image's first and last
    voxels in it (2, 3), mm.
    """
    first = (image.grid.to_voxel(center_mm[None])[0] - (size - 1) / 2).round().long()
    shape = torch.tensor(image.grid.shape[::-1])
    low, high = (-first).clamp(min=0), (shape - first).clamp(max=size)
    voxels = torch.zeros(1, size, size, size, dtype=torch.float16)
    inside = [slice(int(low[axis]), max(int(low[axis]), int(high[axis]))) for axis in (2, 1, 0)]
    x, y, z = first.tolist()
    moved = [slice(part.start + at, part.stop + at) for part, at in zip(inside, (z, y, x), strict=True)]
    voxels[0][tuple(inside)] = image.voxels[tuple(moved)].half()
    corners = torch.stack((first, first + low, first + high - 1)).double()
    corners_mm = image.grid.to_physical(corners).float()
    return voxels, corners_mm[0], corners_mm[1:]


def _collected(rows: Iterable[dict[str, Tensor]], count: int, spacing_mm: float) -> PairDataset:
    """Put preprocessed cases into one dataset, each as it is made, so that they are in memory once."""
    tensors: dict[str, Tensor] = {}
    for number, row in enumerate(rows):
        if not tensors:
            tensors = {name: value.new_empty((count, *value.shape)) for name, value in row.items()}
        for name, value in row.items():
            tensors[name][number] = value
    if not tensors:
        raise InputError("there are no cases to train on")
    if bool((tensors["moving_mask"] < 0).flatten(1).all()):
        del tensors["moving_mask"]
    return PairDataset(**tensors, spacing_mm=torch.tensor(spacing_mm))
