"""`crossalign pretrain`: the extractors of a registration network, by contrast between aligned pairs."""

from __future__ import annotations

import math
from dataclasses import asdict

from crossalign.cli.checks import files_in, pick_device
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.training import PretrainRequest
from crossalign.cli.results.training import PretrainResult, RetrievalResult
from crossalign.cli.training_run import RunBar, check_data, check_run, run_facts, run_state
from crossalign.models.extractors import feature_map
from crossalign.training import RunResult, run_task
from crossalign.training.preparation import (
    datasets_from_manifest,
    datasets_from_simulation,
    manifest_record,
    simulation_record,
)
from crossalign.training.pretraining_settings import PretrainingSettings
from crossalign.training.settings import AUGMENTATIONS
from crossalign.training.tasks.contrastive import Retrieval
from crossalign.training.tasks.pretraining import MEASURE, PretrainingTask, read_retrieval

NO_BETTER = "the best extractors find no more tokens than chance: train longer, or on pairs that are aligned"


def run_pretrain(request: PretrainRequest) -> Outcome[PretrainResult]:
    """Pre-train, or go on with the run that the folder holds. Raises CrossalignError."""
    check_data(request.manifest, request.simulate)
    settings = request.settings.over(PretrainingSettings(augmentation=AUGMENTATIONS[request.augmentation_preset]))
    check_run(request.output, request.manifest, request.simulate, settings.patients)
    device, stage = pick_device(request.device), settings.stage
    feature_map(stage.build(), stage.crop_shape)  # ahead of scans
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
    warnings = (NO_BETTER,) if result.is_no_better_than_baseline() else ()
    after = _retrieval(read_retrieval(result.best)) if math.isfinite(result.measure) else None
    found = PretrainResult(**run_facts(request.output, result), before=_retrieval(task.untrained()), after=after)
    return Outcome(tuple(_lines(request, result, task)), warnings, 0, found, files_in(request.output))


def _retrieval(found: Retrieval) -> RetrievalResult:
    return RetrievalResult(**asdict(found))


def _lines(request: PretrainRequest, result: RunResult, task: PretrainingTask) -> list[str]:
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
        f"{found.top1:.1%} of the val tokens found within {found.radius_mm:g} mm (chance {found.chance1:.1%}, "
        f"in another case's image {found.other_case1:.1%}), {found.top5:.1%} among 5 (chance {found.chance5:.1%})"
    )
