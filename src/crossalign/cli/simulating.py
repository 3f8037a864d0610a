"""`crossalign simulate`: simulated MR-ultrasound pairs as files, with the manifest that names them."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from crossalign.cli.options import Outcome
from crossalign.errors import InputError, OutputError
from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap, write_image, write_label_map, write_transform
from crossalign.simulate import SimulatedPairs, simulate_pairs

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
    if count < 1 or not 0 <= seed < 2**31:
        raise InputError(f"give a COUNT of 1 or more and a seed in [0, 2^31), got {count} and {seed}")
    if split not in SPLITS:
        raise InputError(f"--split is one of {', '.join(SPLITS)}, got '{split}'")
    try:
        output.mkdir()
    except OSError as error:
        raise OutputError(
            f"{output}: {error.strerror or 'cannot be made'}: name a folder that does not exist"
        ) from error
    try:
        _write_all(count, seed, output, split)
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)  # ours: it did not exist before
        raise
    return Outcome((f"pairs    {count} (seed {seed}, split {split})", f"wrote    {output / 'manifest.csv'}"))


def write_simulated_pair(pairs: SimulatedPairs, number: int, folder: Path) -> tuple[LabelMap, Rigid]:
    """Write one pair's scans, glands and reference into a folder; return the fixed gland and the reference.

    The reference maps fixed points to moving points, float64. Raises OutputError.
    """
    write_image(Image(pairs.fixed[number, 0].cpu(), pairs.fixed_grid), folder / FILES["fixed"])
    write_image(Image(pairs.moving[number, 0].cpu(), pairs.moving_grid), folder / FILES["moving"])
    gland = LabelMap((pairs.fixed_gland[number, 0].cpu() > 0.5).long(), pairs.fixed_grid)
    moving_gland = LabelMap((pairs.moving_gland[number, 0].cpu() > 0.5).long(), pairs.moving_grid)
    write_label_map(gland, folder / FILES["fixed_mask"])
    write_label_map(moving_gland, folder / FILES["moving_mask"])
    reference = pairs.fixed_to_moving[number].to("cpu", torch.float64)
    write_transform(reference, folder / FILES["reference"])
    return gland, reference


def _write_all(count: int, seed: int, output: Path, split: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    with (output / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ("case", "split", *FILES), lineterminator="\n")
        writer.writeheader()
        for number in range(count):
            name = f"simulated{number:04d}"
            (output / name).mkdir()
            write_simulated_pair(simulate_pairs(1, generator), 0, output / name)
            writer.writerow({"case": name, "split": split, **{key: f"{name}/{file}" for key, file in FILES.items()}})
