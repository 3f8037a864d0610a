"""`crossalign train-fusion`: a fusion network from a manifest or from simulated pairs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossalign.errors import InputWarning

if TYPE_CHECKING:
    from crossalign.fusion.training.task import FusionTrainingResult

DEVICES_HELP = "Where to train: auto, cpu or cuda."


@dataclass(frozen=True)
class TrainFusionRequest:
    """The options of `crossalign train-fusion`; exactly one of `manifest` and `simulate` (a count of pairs) is given.

    `minutes` is how long this call may train (0: until the steps are done).
    """

    output: Path
    manifest: Path | None = None
    simulate: int = 0
    model: str = "dcfb-compact"
    overrides: Mapping[str, object] = field(default_factory=dict)
    augment: bool = True
    minutes: float = 0.0
    device: str = "auto"


def train_fusion_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; a run in it goes on.")],
    manifest: Annotated[
        Path | None, typer.Argument(help="CSV file of the pairs: case, mri, pet, split (train and val).")
    ] = None,
    simulate: Annotated[int, typer.Option(help="Train on this many simulated heads instead.")] = 0,
    model: Annotated[
        str, typer.Option(help="Network: dcfb-compact, dcfb-compact-2d (slice by slice), or dcfb.")
    ] = "dcfb-compact",
    steps: Annotated[int, typer.Option(help="Steps.")] = 2000,
    batch: Annotated[int, typer.Option(help="Patches in a step.")] = 1,
    patch: Annotated[int, typer.Option(help="Edge of a patch, voxels.")] = 48,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3,
    transfer: Annotated[
        str, typer.Option(help="Weight of kept gradients in 'keeping': balanced,detail.", metavar="LOW,HIGH")
    ] = "0.015,0.25",
    lesions: Annotated[float, typer.Option(help="Weight of planted lesions' contrast in 'keeping'; 0: none.")] = 0.1,
    loss: Annotated[str, typer.Option(help="keeping (both modalities) or paper.")] = "keeping",
    schedule: Annotated[str, typer.Option(help="cosine, or power (the paper's).")] = "cosine",
    val_every: Annotated[int, typer.Option(help="Steps between validations.")] = 100,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    augment: Annotated[bool, typer.Option("--augment/--no-augment", help="Vary the patches.")] = True,
    minutes: Annotated[float, typer.Option(help="Stop after this long; the same command goes on.")] = 0.0,
    device: Annotated[str, typer.Option(help=DEVICES_HELP)] = "auto",
) -> None:
    """Train a network that fuses MRI and PET, from a MANIFEST or from simulated heads."""
    overrides = {
        "steps": steps,
        "batch": batch,
        "patch": patch,
        "rate": rate,
        "transfer": _transfer(transfer),
        "lesions": lesions,
        "loss": loss,
        "schedule": schedule,
        "val_every": val_every,
        "precision": precision,
        "seed": seed,
    }
    from crossalign.cli.terminal import print_lines

    print_lines(
        run_train_fusion(TrainFusionRequest(output, manifest, simulate, model, overrides, augment, minutes, device))
    )


def run_train_fusion(request: TrainFusionRequest) -> tuple[str, ...]:
    """Train, or go on with the run that the folder holds. Raises CrossalignError."""
    from crossalign.cli.options import pick_device
    from crossalign.cli.progress import Progress
    from crossalign.fusion.networks.model_files import FusionStageSettings
    from crossalign.fusion.training.preparation import (
        fusion_datasets_from_manifest,
        fusion_datasets_from_simulation,
        fusion_manifest_record,
        fusion_simulation_record,
    )
    from crossalign.fusion.training.settings import NO_FUSION_AUGMENTATION, FusionAugmentation, FusionTrainingSettings
    from crossalign.fusion.training.task import train_fusion

    _check(request)
    settings = FusionTrainingSettings(
        stage=FusionStageSettings(request.model),
        augmentation=FusionAugmentation() if request.augment else NO_FUSION_AUGMENTATION,
        **request.overrides,  # type: ignore[arg-type]
    )
    device = pick_device(request.device)
    if request.manifest is not None:
        data = fusion_manifest_record(request.manifest)
        datasets = fusion_datasets_from_manifest(request.manifest)
    else:
        data = fusion_simulation_record(request.simulate)
        datasets = fusion_datasets_from_simulation(request.simulate, settings.seed)
    train, val = (dataset.to(device) for dataset in datasets)
    with Progress(settings.steps, "step") as progress:

        def watch(row: dict[str, float]) -> None:
            progress.advance(f"loss {row['loss']:.3f}", int(row["step"]))

        result = train_fusion(train, val, settings, request.output, request.minutes or math.inf, watch, data)
    return _lines(request, result)


def _lines(request: TrainFusionRequest, result: FusionTrainingResult) -> tuple[str, ...]:
    if result.is_worse_than_average():
        told = "the best weights are worse than the plain average of both scans: do not use them; train longer"
        warnings.warn(told, InputWarning, stacklevel=2)
    measured = math.isfinite(result.val_loss)
    best = f"{result.val_loss:.4f} of the best weights" if measured else "not measured yet: no weights to use so far"
    state = "finished" if result.finished else "stopped; the same command goes on from here"
    return (
        f"steps    {result.steps} ({state})",
        f"seconds  {result.seconds:.0f} ({result.samples_per_second:.1f} patches/s)",
        f"val loss {result.average_loss:.4f} of the plain average, {best}",
        *((f"wrote    {result.best}",) if measured else ()),
        f"wrote    {request.output} (settings, checkpoint, history.csv, TensorBoard log)",
    )


def _transfer(text: str) -> tuple[float, float]:
    from crossalign.errors import InputError
    from crossalign.input import excerpt, finite_number

    low, *others = (finite_number(part) for part in text.split(","))
    if low is None or len(others) != 1 or others[0] is None:
        raise InputError(
            f"--transfer is two numbers with a comma between them, such as 0.015,0.25, got '{excerpt(text)}'"
        )
    return low, others[0]


def _check(request: TrainFusionRequest) -> None:
    from crossalign.cli.runs import check_run_files
    from crossalign.errors import InputError

    if (request.manifest is None) == (request.simulate == 0):
        raise InputError("give either a MANIFEST or --simulate COUNT: what is there to train on?")
    if request.simulate < 0 or request.minutes < 0:
        raise InputError(f"--simulate and --minutes must be 0 or more, got {request.simulate} and {request.minutes}")
    check_run_files(request.output, (request.manifest,))
