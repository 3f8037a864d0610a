"""`crossalign demo`: a simulated MR-ultrasound pair, registered with the default method, from the package alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from crossalign.cli.options import Outcome, pick_device
from crossalign.cli.registering import RegisterRequest, run_register
from crossalign.cli.simulating import write_simulated_pair
from crossalign.errors import OutputError
from crossalign.geometry import draw_perturbation
from crossalign.images import surface_points, write_transform
from crossalign.output import reason, whole_folder
from crossalign.simulation import simulate_pairs

# No shipped weights were trained, chosen or tuned on pairs of this seed: it is the demo's own.
DEMO_SEED = 20_210_927
START_SRE_MM = 12.0


def run_demo(output: Path, device: str = "auto") -> Outcome:
    """Simulate, start at 12 mm SRE, register, and write all of it into a fresh folder. Raises CrossalignError."""
    pick_device(device)
    folder = fresh_folder(output)
    with whole_folder(folder, reserved=True) as partial:
        _write_pair(partial)
        outcome = run_register(_request(partial, device))
    lines = (line.replace(str(partial), str(folder)) for line in outcome.lines)
    return replace(outcome, lines=(*lines, f"report   {(folder / 'report.html').resolve()}"))


def fresh_folder(wanted: Path) -> Path:
    """Make the folder, or the first of `wanted-2`, `wanted-3`, ... that does not exist yet. Raises OutputError."""
    for number in range(1, 10_000):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made: {reason(error)}") from error
        return folder
    raise OutputError(f"{wanted}: exists, and so do 10,000 numbered ones: remove some")


def _write_pair(folder: Path) -> None:
    generator = torch.Generator().manual_seed(DEMO_SEED)
    gland, reference = write_simulated_pair(simulate_pairs(1, generator), 0, folder)
    target = torch.tensor([START_SRE_MM], dtype=torch.float64)
    motion = draw_perturbation(surface_points(gland)[None], gland.centroid_mm()[None], target, generator)[0]
    write_transform(reference @ motion, folder / "start.tfm")


def _request(folder: Path, device: str) -> RegisterRequest:
    return RegisterRequest(
        fixed=folder / "mr.nii.gz",
        moving=folder / "us.nii.gz",
        initial=str(folder / "start.tfm"),
        output_transform=folder / "mr_to_us.tfm",
        fixed_mask=folder / "mr_gland.nii.gz",
        moving_mask=folder / "us_gland.nii.gz",
        moved=folder / "us_moved.nii.gz",
        report=folder / "report.html",
        reference=folder / "reference.tfm",
        device=device,
    )
