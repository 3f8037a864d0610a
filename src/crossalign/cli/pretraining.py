"""`crossalign pretrain`: the extractors of a registration network, by contrast between aligned pairs."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossalign.errors import InputWarning

if TYPE_CHECKING:
    from crossalign.training.engine import RunResult
    from crossalign.training.pretraining_settings import PretrainingSettings
    from crossalign.training.tasks.contrastive import Retrieval
    from crossalign.training.tasks.pretraining import PretrainingTask


@dataclass(frozen=True)
class PretrainRequest:
    """The options of `crossalign pretrain`; exactly one of `manifest` and `simulate` (a count of pairs) is given.

    `start_sre` is text such as 0-0, and so is `crop_shape`, z,y,x as 32,32,32; `stage` and `overrides` are fields of
    the settings by name. `minutes` is how long this call may train (0: until the steps are done), `mirror` the axes
    that augmentation may flip.
    """

    output: Path
    manifest: Path | None = None
    simulate: int = 0
    stage: dict[str, object] = field(default_factory=dict)
    overrides: dict[str, object] = field(default_factory=dict)
    start_sre: str = "0-0"
    crop_shape: str = "32,32,32"
    augment: bool = True
    mirror: str = "x"
    minutes: float = 0.0
    device: str = "auto"


def pretrain_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; one that was cut off goes on.")],
    manifest: Annotated[Path | None, typer.Argument(help="CSV file of the cases; its train and val splits.")] = None,
    simulate: Annotated[int, typer.Option(help="Train on this many simulated pairs instead.")] = 0,
    model: Annotated[str, typer.Option(help="Network whose extractors are trained: one with two.")] = "attention-reg",
    start_sre: Annotated[str, typer.Option(help="SRE of the crops' starts in mm; 0-0: aligned pairs.")] = "0-0",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 1000,
    batch: Annotated[int, typer.Option(help="Pairs in a step.")] = 16,
    rate: Annotated[float, typer.Option(help="Top learning rate.")] = 1e-3,
    temperature: Annotated[float, typer.Option(help="Temperature of the contrast.")] = 0.1,
    places: Annotated[int, typer.Option(help="Places of each pair that are contrasted in a step.")] = 128,
    margin: Annotated[float, typer.Option(help="Distance from the positive that is ignored, mm.")] = 10.0,
    head: Annotated[str, typer.Option(help="Projection head: linear, mlp or none.")] = "linear",
    width: Annotated[int, typer.Option(help="Outputs of the head.")] = 32,
    seen_only: Annotated[
        bool, typer.Option("--seen-only/--everywhere", help="Only where the ultrasound is not empty.")
    ] = True,
    radius: Annotated[float, typer.Option(help="Distance at which a retrieved place counts as right, mm.")] = 10.0,
    crop_shape: Annotated[str, typer.Option(help="Voxels that the network sees, z,y,x.")] = "32,32,32",
    crop_spacing: Annotated[float, typer.Option(help="Their spacing, mm.")] = 2.5,
    fixed_input: Annotated[str, typer.Option(help="image, or label (the gland's mask).")] = "image",
    val_every: Annotated[int, typer.Option(help="Steps between validations, each of which is a checkpoint.")] = 100,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    patients: Annotated[float, typer.Option(help="Share of the training patients to use, over 0 to 1.")] = 1.0,
    augment: Annotated[bool, typer.Option(help="Vary the training pairs.")] = True,
    mirror: Annotated[str, typer.Option(help="Axes along which half of them are flipped: x is left-right.")] = "x",
    minutes: Annotated[float, typer.Option(help="Stop this call after so long; 0 is never.")] = 0.0,
    device: Annotated[str, typer.Option(help="Where networks run: auto, cpu or cuda.")] = "auto",
) -> None:
    """Pre-train the two extractors of a network by contrast; `train --pretrained` starts from them."""
    stage: dict[str, object] = {"model": model, "crop_spacing_mm": crop_spacing, "fixed_input": fixed_input}
    overrides: dict[str, object] = {
        "steps": steps,
        "batch": batch,
        "rate": rate,
        "temperature": temperature,
        "tokens": places,
        "margin_mm": margin,
        "head": head,
        "width": width,
        "foreground_only": seen_only,
        "radius_mm": radius,
        "val_every": val_every,
        "precision": precision,
        "seed": seed,
        "patients": patients,
    }
    request = PretrainRequest(
        output, manifest, simulate, stage, overrides, start_sre, crop_shape, augment, mirror, minutes, device
    )
    from crossalign.cli.terminal import print_lines

    print_lines(run_pretrain(request))


def run_pretrain(request: PretrainRequest) -> tuple[str, ...]:
    """Pre-train, or go on with the run that the folder holds. Raises CrossalignError."""
    from crossalign.cli.options import pick_device
    from crossalign.cli.runs import RunBar, check_run
    from crossalign.models.extractors import feature_map
    from crossalign.networks import build_network
    from crossalign.training.engine import run_task
    from crossalign.training.preparation import (
        datasets_from_manifest,
        datasets_from_simulation,
        manifest_record,
        simulation_record,
    )
    from crossalign.training.tasks.pretraining import MEASURE, PretrainingTask

    settings = _settings(request)
    check_run(request.output, request.manifest, request.simulate, request.minutes, settings.patients)
    device, stage = pick_device(request.device), settings.stage
    network = build_network(stage.network, stage.crop_shape, stage.crop_spacing_mm)
    feature_map(network, stage.crop_shape)  # ahead of scans
    if request.manifest is not None:
        data = manifest_record(request.manifest)
        datasets = datasets_from_manifest(request.manifest, stage, settings.patients, settings.seed)
    else:
        data = simulation_record(request.simulate)
        datasets = datasets_from_simulation(request.simulate, settings.seed, stage)
    train, val = (dataset.to(device) for dataset in datasets)
    with RunBar(settings.steps, MEASURE, "val top-1 missed {:.3f}") as bar:
        task = PretrainingTask(train, val, settings, data)
        result = run_task(task, request.output, request.minutes or math.inf, bar.watch)
    if result.is_no_better_than_baseline():
        told = "the best extractors find no more places than chance: train longer, or on pairs that are aligned"
        warnings.warn(told, InputWarning, stacklevel=2)
    return tuple(_lines(request, result, task))


def _settings(request: PretrainRequest) -> PretrainingSettings:
    from crossalign.cli.runs import parse_crop
    from crossalign.evaluation import InitialisationRange
    from crossalign.models import StageSettings
    from crossalign.training import NO_AUGMENTATION, Augmentation
    from crossalign.training.pretraining_settings import PretrainingSettings

    start = InitialisationRange.parse(request.start_sre)
    varied = replace(Augmentation(), mirror=request.mirror)
    return PretrainingSettings(
        stage=StageSettings(crop_shape=parse_crop(request.crop_shape), **request.stage),  # type: ignore[arg-type]
        initial_sre_mm=(start.low_mm, start.high_mm),
        augmentation=varied if request.augment else NO_AUGMENTATION,
        **request.overrides,  # type: ignore[arg-type]
    )


def _lines(request: PretrainRequest, result: RunResult, task: PretrainingTask) -> list[str]:
    from crossalign.cli.runs import run_state
    from crossalign.training.tasks.pretraining import read_retrieval

    lines = run_state(result.steps, result.finished, result.seconds, result.samples_per_second)
    lines.append(f"before   {_words(task.untrained())}")
    if math.isfinite(result.measure):
        lines += [
            f"after    {_words(read_retrieval(result.best))}",
            f"wrote    {result.best} (use it: crossalign train --pretrained {result.best})",
        ]
    return [*lines, f"wrote    {request.output} (settings, checkpoint, history.csv, TensorBoard log)"]


def _words(found: Retrieval) -> str:
    return (
        f"{found.top1:.1%} of the val places found within {found.radius_mm:g} mm (chance {found.chance1:.1%}, "
        f"in another case's image {found.other_case1:.1%}), {found.top5:.1%} among 5 (chance {found.chance5:.1%})"
    )
