"""`crossalign simulate`: simulated pairs as files, with the manifest that names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from crossalign.cells import csv_text
from crossalign.cli.checks import files_in
from crossalign.cli.console import Progress
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.training import SimulateRequest
from crossalign.cli.results.training import SimulateResult
from crossalign.errors import InputError
from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap, write_image, write_label_map, write_transform
from crossalign.output import whole_file, whole_folder, write_text
from crossalign.simulation import (
    ShapeSettings,
    SimulatedPairs,
    SimulationSettings,
    simulate_pairs,
    simulate_shapes,
)

FILES: Mapping[str, str] = {
    "fixed": "mr.nii.gz",
    "moving": "us.nii.gz",
    "fixed_mask": "mr_gland.nii.gz",
    "moving_mask": "us_gland.nii.gz",
    "reference": "reference.tfm",
}
SHAPE_FILES: Mapping[str, str] = {
    **{part: f"{part}.nii.gz" for part in ("fixed", "moving", "fixed_mask", "moving_mask")},
    "reference": "reference.tfm",
}


def run_simulate(request: SimulateRequest) -> Outcome[SimulateResult]:
    """Write the pairs, each in its own folder, and `manifest.csv`, into a new folder. Raises CrossalignError."""
    pelvis, shapes = request.pelvis_settings, request.shape_settings
    unused = pelvis if request.shapes else shapes
    if unused.values:
        way_out = "leave --shapes out" if request.shapes else "give --shapes too"
        raise InputError(f"{', '.join(unused.options())}: is for the other simulator: {way_out}")
    generator = torch.Generator().manual_seed(request.seed)
    simulator = (
        partial(simulate_shapes, 1, generator, shapes.over(ShapeSettings()))
        if request.shapes
        else partial(simulate_pairs, 1, generator, pelvis.over(SimulationSettings()))
    )
    with whole_folder(request.output) as partial_folder:
        _write_all(request, simulator, partial_folder)
    first = f"pairs    {request.count} (seed {request.seed}, split {request.split})"
    manifest = request.output / "manifest.csv"
    result = SimulateResult(request.count, request.seed, request.split, request.output, manifest)
    return Outcome((first, f"wrote    {manifest}"), result=result, outputs=files_in(request.output))


def write_simulated_pair(
    pairs: SimulatedPairs, number: int, folder: Path, files: Mapping[str, str] = FILES
) -> tuple[LabelMap, Rigid]:
    """Write one pair's scans, masks and reference into a folder; return the fixed mask and the reference.

    The reference maps fixed points to moving points, float64. Raises OutputError.
    """
    write_image(Image(pairs.fixed[number, 0].cpu(), pairs.fixed_grid), folder / files["fixed"])
    write_image(Image(pairs.moving[number, 0].cpu(), pairs.moving_grid), folder / files["moving"])
    fixed_mask = LabelMap((pairs.fixed_mask[number, 0].cpu() > 0.5).long(), pairs.fixed_grid)
    moving_mask = LabelMap((pairs.moving_mask[number, 0].cpu() > 0.5).long(), pairs.moving_grid)
    write_label_map(fixed_mask, folder / files["fixed_mask"])
    write_label_map(moving_mask, folder / files["moving_mask"])
    reference = pairs.fixed_to_moving[number].to("cpu", torch.float64)
    write_transform(reference, folder / files["reference"])
    return fixed_mask, reference


def _write_all(request: SimulateRequest, simulator: Callable[[], SimulatedPairs], folder: Path) -> None:
    files = SHAPE_FILES if request.shapes else FILES
    rows = [["case", "split", *files]]
    with Progress(request.count, "pair") as progress:
        for number in range(request.count):
            name = f"simulated{number:04d}"
            (folder / name).mkdir()
            write_simulated_pair(simulator(), 0, folder / name, files)
            rows.append([name, request.split, *(f"{name}/{file}" for file in files.values())])
            progress.advance()
    with whole_file(folder / "manifest.csv") as partial_file:
        write_text(csv_text(rows), partial_file)
