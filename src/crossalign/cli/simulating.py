"""`crossalign simulate`: simulated MR-ultrasound pairs as files, with the manifest that names them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import torch

from crossalign.cli.options import Outcome
from crossalign.cli.progress import Progress
from crossalign.errors import InputError
from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap, write_image, write_label_map, write_transform
from crossalign.output import whole_file, whole_folder, write_text
from crossalign.simulation import SimulatedPairs, simulate_pairs

MOST_PAIRS = 100_000
SPLITS = ("train", "val", "test")
FILES: Mapping[str, str] = {
    "fixed": "mr.nii.gz",
    "moving": "us.nii.gz",
    "fixed_mask": "mr_gland.nii.gz",
    "moving_mask": "us_gland.nii.gz",
    "reference": "reference.tfm",
}


def run_simulate(count: int, seed: int, output: Path, split: str) -> Outcome:
    """Write `count` pairs, each in its own folder, and `manifest.csv`, into a new folder. Raises CrossalignError."""
    if not 1 <= count <= MOST_PAIRS or not 0 <= seed < 2**31:
        raise InputError(f"give a COUNT of 1 to {MOST_PAIRS} and a seed in [0, 2^31), got {count} and {seed}")
    if split not in SPLITS:
        raise InputError(f"--split is one of {', '.join(SPLITS)}, got '{split}'")
    with whole_folder(output) as partial:
        _write_all(count, seed, partial, split)
    return Outcome((f"pairs    {count} (seed {seed}, split {split})", f"wrote    {output / 'manifest.csv'}"))


def write_simulated_pair(pairs: SimulatedPairs, number: int, folder: Path) -> tuple[LabelMap, Rigid]:
    """Write one pair's scans, glands and reference into a folder; return the fixed gland and the reference.

    The reference maps fixed points to moving points, float64. Raises OutputError.
    """
    write_image(Image(pairs.fixed[number, 0].cpu(), pairs.fixed_grid), folder / FILES["fixed"])
    write_image(Image(pairs.moving[number, 0].cpu(), pairs.moving_grid), folder / FILES["moving"])
    gland = LabelMap((pairs.fixed_mask[number, 0].cpu() > 0.5).long(), pairs.fixed_grid)
    moving_gland = LabelMap((pairs.moving_mask[number, 0].cpu() > 0.5).long(), pairs.moving_grid)
    write_label_map(gland, folder / FILES["fixed_mask"])
    write_label_map(moving_gland, folder / FILES["moving_mask"])
    reference = pairs.fixed_to_moving[number].to("cpu", torch.float64)
    write_transform(reference, folder / FILES["reference"])
    return gland, reference


def _write_all(count: int, seed: int, folder: Path, split: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    table = io.StringIO()
    writer = csv.DictWriter(table, ("case", "split", *FILES), lineterminator="\n")
    writer.writeheader()
    with Progress(count, "pair") as progress:
        for number in range(count):
            name = f"simulated{number:04d}"
            (folder / name).mkdir()
            write_simulated_pair(simulate_pairs(1, generator), 0, folder / name)
            writer.writerow({"case": name, "split": split, **{key: f"{name}/{file}" for key, file in FILES.items()}})
            progress.advance()
    with whole_file(folder / "manifest.csv") as partial:
        write_text(table.getvalue(), partial)
