"""Fusion datasets from files or from the simulator: the only part of fusion training that reads images."""

import os
from dataclasses import asdict, replace
from pathlib import Path

import torch

from crossalign.errors import ImageError, InputError, ManifestError
from crossalign.fusion.manifest import FusionPair, read_fusion_manifest
from crossalign.fusion.simulation.anatomy import HeadTemplate, TissueMaps, mni152_maps
from crossalign.fusion.simulation.pairs import simulate_head
from crossalign.fusion.simulation.settings import HeadSettings
from crossalign.fusion.training.dataset import FusionDataset
from crossalign.fusion.window_settings import WindowSettings
from crossalign.fusion.windows import Modality, find_scaling, scaling_of
from crossalign.geometry import Grid
from crossalign.images import Image, read_image, read_label_map
from crossalign.training.data_record import cases_record
from crossalign.types import Mask, Scan, Shape

MOST_SIMULATED = 10_000  # their volumes are held in memory
SIMULATED_SHAPE: Shape = (112, 112, 112)


def fusion_datasets_from_manifest(
    manifest: str | os.PathLike[str], outlined: bool = False
) -> tuple[FusionDataset, FusionDataset]:
    """Read a fusion manifest's train and val splits; raises ManifestError for a missing one, or a file's own error.

    Where `outlined`, with the outlines of the column mask; otherwise those files are not read.
    """
    pairs = read_fusion_manifest(manifest)
    datasets = []
    for split in ("train", "val"):
        in_split = [pair for pair in pairs if pair.split == split]
        if not in_split:
            raise ManifestError(f"{Path(manifest).name}: no row has split '{split}': training needs both")
        read = [_read(pair, outlined) for pair in in_split]
        dataset = _dataset([(mri, pet) for mri, pet, _ in read])
        datasets.append(replace(dataset, outlines=tuple(outline for *_, outline in read)) if outlined else dataset)
    return datasets[0], datasets[1]


def fusion_manifest_record(manifest: str | os.PathLike[str], outlined: bool = False) -> dict[str, object]:
    """Record a fusion manifest's train and val pairs: what a row says, and the content of its files.

    Those of the column mask count where `outlined`.
    """
    columns = ("split", "patient", "mri", "pet", *(("mask",) if outlined else ()))
    pairs = [pair for pair in read_fusion_manifest(manifest) if pair.split in ("train", "val")]
    return cases_record((pair.name, {column: getattr(pair, column) for column in columns}) for pair in pairs)


def fusion_simulation_record(count: int, settings: HeadSettings | None = None) -> dict[str, object]:
    """Record what simulated heads follow from, beside the seed, which is among the settings of the training."""
    simulator = asdict(settings or HeadSettings())
    return {"simulated": {"pairs": count, "shape": SIMULATED_SHAPE, "simulator": simulator}}


def fusion_datasets_from_simulation(
    count: int, seed: int, settings: HeadSettings | None = None, maps: TissueMaps | None = None
) -> tuple[FusionDataset, FusionDataset]:
    """Simulate `count` training pairs and a fifth as many (4 at least) to validate on, from unrelated seeds.

    The template is nilearn's MNI152, unless `maps` gives another.
    """
    if not 1 <= count <= MOST_SIMULATED:
        raise InputError(f"there must be 1 to {MOST_SIMULATED} simulated pairs to train on, got {count}")
    maps = maps or mni152_maps()
    train = fusion_dataset_from_simulation(count, 2 * seed, maps, settings)
    return train, fusion_dataset_from_simulation(max(4, count // 5), 2 * seed + 1, maps, settings)


def fusion_dataset_from_simulation(
    count: int, seed: int, maps: TissueMaps, settings: HeadSettings | None = None, shape: Shape | None = None
) -> FusionDataset:
    """Simulate `count` pairs from one seed; the same seed gives the same dataset."""
    template, generator = HeadTemplate(maps), torch.Generator().manual_seed(seed)
    pairs: list[tuple[Scan, Scan]] = []
    while len(pairs) < count:
        pair = simulate_head(template, shape or SIMULATED_SHAPE, generator, settings)
        if min(float(volume.max()) for volume in (pair.mri, pair.pet)) > 0:  # else the grid holds no part of the head
            pairs.append((_scaled(pair.mri[0, 0], "mr"), _scaled(pair.pet[0, 0], "pet")))
    return _dataset(pairs)


def _read(pair: FusionPair, outlined: bool) -> tuple[Scan, Scan, Mask | None]:
    mri, pet = read_image(pair.mri), read_image(pair.pet)
    windows = WindowSettings()  # as `fuse` chooses them
    (of_mri, _), (of_pet, _) = scaling_of(windows, mri, "a"), scaling_of(windows, pet, "b")
    scaled = Image(of_pet.apply(pet.voxels), pet.grid, pet.name)
    if not pet.grid.agrees_with(mri.grid):
        scaled = scaled.resampled(mri.grid, fill=0.0)
    outline = _outline(pair.mask, mri.grid) if outlined and pair.mask is not None else None
    return of_mri.apply(mri.voxels), scaled.voxels, outline


def _outline(path: Path, grid: Grid) -> Mask:
    """Read a label map, all labels together, onto the MRI's grid; raises ImageError where nothing of it lies there."""
    labels = read_label_map(path)
    if not labels.grid.agrees_with(grid):
        labels = labels.resampled(grid)
    if labels.foreground_count() == 0:
        raise ImageError(f"{labels.name}: nothing of the lesion lies in the MRI: is it the mask of this pair?")
    return labels.labels != 0


def _scaled(voxels: Scan, modality: Modality) -> Scan:
    z, y, x = voxels.shape
    image = Image(voxels, Grid.centered((0.0, 0.0, 0.0), (z, y, x), (1.0, 1.0, 1.0)), "simulated")
    return find_scaling(image, modality).apply(voxels)


def _dataset(pairs: list[tuple[Scan, Scan]]) -> FusionDataset:
    return FusionDataset(tuple(mri.half() for mri, _ in pairs), tuple(pet.half() for _, pet in pairs))
