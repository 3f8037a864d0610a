"""`crossalign demo`: a simulated pair without a tracker, registered, with a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from crossalign.cli.checks import files_in, pick_device
from crossalign.cli.registration.command import run_register
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.registration import DemoRequest, Device, RegisterRequest
from crossalign.cli.results.registration import DemoResult
from crossalign.cli.simulation import write_simulated_pair
from crossalign.errors import OutputError
from crossalign.geometry import Grid, Rigid, draw_perturbation
from crossalign.images import surface_points, write_transform
from crossalign.output import reason, whole_folder
from crossalign.registration.initialisation import MASK_CENTER
from crossalign.registration.methods import default_method_name
from crossalign.simulation import simulate_pairs

# No shipped model was trained, chosen or tuned on pairs of this seed: it is the demo's own.
DEMO_SEED = 20_210_927
DEMO_SRE_MM = 12.0  # of the initial transform that is written beside the pair
# The ultrasound's voxel axes run to the patient's left, back and head; its header says something else.
DEMO_DIRECTION = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))


def run_demo(request: DemoRequest) -> Outcome[DemoResult]:
    """Simulate, register without a tracker, and write all of it into a fresh folder. Raises CrossalignError."""
    pick_device(request.device)
    folder = fresh_folder(request.output)
    with whole_folder(folder, reserved=True) as partial:
        _write_demo_pair(partial)
        outcome = run_register(_demo_request(partial, request.device))
    lines = (line.replace(str(partial), str(folder)) for line in outcome.lines)
    report = (folder / "report.html").resolve()
    result = None if outcome.result is None else DemoResult(folder, report, outcome.result)
    return Outcome((*lines, f"report   {report}"), outcome.warnings, outcome.status, result, files_in(folder))


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


def _write_demo_pair(folder: Path) -> None:
    """Write a pair as it is without a tracker: the ultrasound's header names its axes wrongly, and no position."""
    pairs = simulate_pairs(1, torch.Generator().manual_seed(DEMO_SEED))
    true, header = pairs.moving_grid, torch.tensor(DEMO_DIRECTION, dtype=torch.float64)
    wrong = Grid(true.shape, true.spacing_mm, (0.0, 0.0, 0.0), DEMO_DIRECTION)
    rotation = header @ torch.tensor(true.direction, dtype=torch.float64).mT
    to_wrong = Rigid(rotation, wrong.center_mm() - rotation @ true.center_mm())
    reference = to_wrong @ pairs.fixed_to_moving[0].to("cpu", torch.float64)
    structure, _ = write_simulated_pair(replace(pairs, moving_grid=wrong, fixed_to_moving=reference[None]), 0, folder)
    target = torch.tensor([DEMO_SRE_MM], dtype=torch.float64)
    generator = torch.Generator().manual_seed(DEMO_SEED)
    motion = draw_perturbation(surface_points(structure)[None], structure.centroid_mm()[None], target, generator)[0]
    write_transform(reference @ motion, folder / "initial.tfm")


def _demo_request(folder: Path, device: Device) -> RegisterRequest:
    return RegisterRequest(
        fixed=folder / "mr.nii.gz",
        moving=folder / "us.nii.gz",
        initial=MASK_CENTER,
        output_transform=folder / "mr_to_us.tfm",
        fixed_mask=folder / "mr_gland.nii.gz",
        moving_mask=folder / "us_gland.nii.gz",
        moved=folder / "us_moved.nii.gz",
        report=folder / "report.html",
        reference=folder / "reference.tfm",
        method=default_method_name(fixed_mask=True),
        device=device,
    )
