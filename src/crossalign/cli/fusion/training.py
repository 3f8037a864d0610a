"""`crossalign train-fusion`: a fusion network from a manifest or from simulated heads."""

from __future__ import annotations

import math
from collections.abc import Mapping

from crossalign.cli.checks import files_in, pick_device
from crossalign.cli.console import Progress
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.fusion import TrainFusionRequest
from crossalign.cli.results.fusion import TrainFusionResult
from crossalign.cli.training_run import check_run, run_facts
from crossalign.errors import InputError
from crossalign.fusion.simulation.settings import HeadSettings
from crossalign.fusion.training.preparation import (
    fusion_datasets_from_manifest,
    fusion_datasets_from_simulation,
    fusion_manifest_record,
    fusion_simulation_record,
)
from crossalign.fusion.training.settings import NO_FUSION_AUGMENTATION, FusionAugmentation, FusionTrainingSettings
from crossalign.fusion.training.task import FusionTask
from crossalign.training import RunResult, run_task

AUGMENTATIONS = {"none": NO_FUSION_AUGMENTATION, "usual": FusionAugmentation()}
NO_BETTER = "the best weights are worse than the plain average of both scans: do not use them; train longer"


def run_train_fusion(request: TrainFusionRequest) -> Outcome[TrainFusionResult]:
    """Train, or go on with the run that the folder holds. Raises CrossalignError."""
    check_run(request.output, request.manifest, request.simulate)
    settings = request.settings.over(FusionTrainingSettings(augmentation=AUGMENTATIONS[request.augmentation_preset]))
    heads = request.heads.over(HeadSettings())
    device = pick_device(request.device)
    if request.manifest is None:
        data = fusion_simulation_record(request.simulate, heads)
        datasets = fusion_datasets_from_simulation(request.simulate, settings.seed, heads)
    else:
        if request.heads.values:
            raise InputError(f"{', '.join(request.heads.options())}: is for simulated heads: give --simulate COUNT")
        supervised = settings.outline_weight > 0
        data = fusion_manifest_record(request.manifest, supervised)
        datasets = fusion_datasets_from_manifest(request.manifest, supervised)
    train, val = (dataset.to(device) for dataset in datasets)
    with Progress(settings.steps, "step") as progress:

        def watch(row: Mapping[str, float]) -> None:
            progress.advance(f"loss {row['loss']:.3f}", int(row["step"]))

        task = FusionTask(train, val, settings, data)
        result = run_task(task, request.output, request.minutes or math.inf, watch)
    facts = TrainFusionResult(
        **run_facts(request.output, result), average_val_loss=result.baseline, val_loss=result.measure
    )
    warnings = (NO_BETTER,) if result.is_no_better_than_baseline() else ()
    return Outcome(_lines(request, result), warnings, 0, facts, files_in(request.output))


def _lines(request: TrainFusionRequest, result: RunResult) -> tuple[str, ...]:
    measured = math.isfinite(result.measure)
    best = f"{result.measure:.4f} of the best weights" if measured else "not measured yet: no weights to use so far"
    state = "finished" if result.finished else "stopped; the same command goes on from here"
    return (
        f"steps    {result.steps} ({state})",
        f"seconds  {result.seconds:.0f} ({result.samples_per_second:.1f} patches/s)",
        f"val loss {result.baseline:.4f} of the plain average, {best}",
        *((f"wrote    {result.best}",) if measured else ()),
        f"wrote    {request.output} (settings, checkpoint, history.csv, TensorBoard log)",
    )
