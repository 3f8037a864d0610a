"""`crossalign train` and `train-error-head`: a stage from a manifest or from simulated pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from crossalign.cli.checks import check_apart, files_in, pick_device
from crossalign.cli.distribution import distributed
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.training import TrainErrorHeadRequest, TrainRequest
from crossalign.cli.results.training import ErrorHeadResult, TrainResult
from crossalign.cli.tracking import check_mlflow, tracked
from crossalign.cli.training_run import RunBar, check_data, check_run, check_run_files, run_facts, run_state
from crossalign.data import load_case, read_manifest
from crossalign.errors import InputError
from crossalign.models import Stage, StageSettings, load_stage, save_stage
from crossalign.models.extractors import load_extractors
from crossalign.models.moving_mask import with_moving_mask
from crossalign.output import check_output
from crossalign.training import PairDataset, RegistrationTask, RunResult, TrainingSettings, run_task
from crossalign.training.dataset import joined, rotated
from crossalign.training.pair_synthesis import PairSynthesis
from crossalign.training.preparation import (
    dataset_from_cases,
    dataset_from_simulation,
    datasets_from_manifest,
    datasets_from_simulation,
    manifest_record,
    simulation_record,
)
from crossalign.training.processes import Processes
from crossalign.training.settings import AUGMENTATIONS, ErrorHeadSettings
from crossalign.training.tasks.error_estimation import train_error_head
from crossalign.training.tasks.pretraining import pretrained_network
from crossalign.training.tasks.registration import MEASURE


def run_train(request: TrainRequest) -> Outcome[TrainResult]:
    """Train, or go on with the run that the folder holds. Raises CrossalignError."""
    check_data(request.manifest, request.simulate)
    settings, _ = _settings(request)
    check_run(request.output, request.manifest, request.simulate, settings.patients)
    check_run_files(request.output, (None if request.initial is None else Path(request.initial), request.pretrained))
    if settings.shapes_fraction and not request.simulate:
        raise InputError("--shapes-fraction is a fraction of simulated pairs: give --simulate COUNT with it")
    if request.simulate and (settings.synthesised_pairs or settings.orientation_correction):
        raise InputError(
            "--synthesised-pairs and --orientation-correction are for the cases of a manifest, not for simulated pairs"
        )
    if request.mlflow is not None:
        check_mlflow(request.mlflow)
    result = distributed(_trained, request, request.device, request.devices)
    if result is None:
        return Outcome(())
    facts = TrainResult(
        **run_facts(request.output, result), initial_val_sre_mm=result.baseline, val_sre_mm=result.measure
    )
    return Outcome(tuple(_lines(request, result)), tuple(_warnings(result)), 0, facts, files_in(request.output))


def _trained(request: TrainRequest, processes: Processes, device: torch.device) -> RunResult:
    """Train as one of some processes."""
    settings, network = _with_extractors(request, *_settings(request))
    data = simulation_record(request.simulate) if request.manifest is None else manifest_record(request.manifest)
    train, val = (dataset.to(device) for dataset in _datasets(request, settings))
    task = RegistrationTask(train, val, settings, network, data)
    minutes = request.minutes or math.inf
    if not processes.is_first():
        return run_task(task, request.output, minutes, processes=processes)
    where = request.mlflow, request.mlflow_experiment, request.output, task.settings()
    with RunBar(settings.steps, MEASURE, "val SRE {:.2f} mm") as bar, tracked(*where) as tracker:

        def watch(row: Mapping[str, float]) -> None:
            bar.watch(row)
            if tracker is not None:
                tracker.watch(row)

        result = run_task(task, request.output, minutes, watch, processes)
        if tracker is not None:
            tracker.finish(result)
    return result


def _settings(request: TrainRequest) -> tuple[TrainingSettings, Stage | None]:
    """Lay the given settings over those of --from; return the stage to go on from, too."""
    initial = None if request.initial is None else load_stage(request.initial)
    stage = StageSettings() if initial is None else initial.settings
    augmentation = AUGMENTATIONS[request.augmentation_preset]
    settings = request.settings.over(TrainingSettings(stage=stage, augmentation=augmentation))
    if initial is not None:
        if settings.stage.takes_moving_mask() and not initial.settings.takes_moving_mask():
            initial = with_moving_mask(initial)
        _check_weights_fit(initial, settings.stage, f"--from {request.initial}")
    return settings, initial


def _check_weights_fit(initial: Stage, settings: StageSettings, source: str) -> None:
    fresh = settings.build()
    try:
        fresh.load_state_dict(initial.network.state_dict())
    except RuntimeError as error:
        shape = ",".join(map(str, initial.settings.crop_shape))
        raise InputError(
            f"{source} is a '{initial.settings.network}' network for crops of {shape} voxels, whose weights do not fit "
            f"'{settings.network}' for {','.join(map(str, settings.crop_shape))}: leave out --stage.network and "
            "--stage.crop-shape, or start afresh"
        ) from error


def _with_extractors(
    request: TrainRequest, settings: TrainingSettings, initial: Stage | None
) -> tuple[TrainingSettings, nn.Module | None]:
    """Return the settings with what the network starts from in them, and that network."""
    if request.pretrained is None:
        return settings, None if initial is None else initial.network
    if initial is not None:
        raise InputError("--from and --pretrained both say where the network starts: give one of them")
    weights = load_extractors(request.pretrained)
    network = pretrained_network(weights, settings.stage, settings.seed)
    return replace(settings, pretrained=f"{request.pretrained.name}, SHA-256 {weights.digest()}"), network


def _datasets(request: TrainRequest, settings: TrainingSettings) -> tuple[PairDataset, PairDataset]:
    if request.manifest is None:
        return datasets_from_simulation(request.simulate, settings.seed, settings.stage, settings.shapes_fraction)
    read = datasets_from_manifest(request.manifest, settings.stage, settings.patients, settings.seed)
    train, val = (rotated(dataset, settings.orientation_correction // 90) for dataset in read)
    if settings.synthesised_pairs:
        generator = torch.Generator().manual_seed(settings.seed)
        train = joined([train, PairSynthesis(train, settings.synthesis).draw(settings.synthesised_pairs, generator)])
    return train, val


def run_train_error_head(request: TrainErrorHeadRequest) -> Outcome[ErrorHeadResult]:
    """Train the head and write the stage with it. Raises CrossalignError."""
    check_data(request.manifest, request.simulate)
    check_output(request.output, request.overwrite)
    inputs = (Path(request.stage.partition(":")[0]), *([] if request.manifest is None else [request.manifest]))
    check_apart((request.output,), inputs)
    settings = request.settings.over(ErrorHeadSettings())
    device = pick_device(request.device)
    stage = load_stage(request.stage, device)
    if request.manifest is None:
        dataset = dataset_from_simulation(request.simulate, 2 * settings.seed, stage.settings)
    else:
        cases = read_manifest(request.manifest, "train")
        dataset = dataset_from_cases((load_case(case) for case in cases), stage.settings)
    losses = train_error_head(stage, dataset.to(device), settings, AUGMENTATIONS[request.augmentation_preset])
    save_stage(stage, request.output, request.overwrite)
    lines = (f"steps    {len(losses)}", f"loss     {losses[0]:.2f} mm at first, {losses[-1]:.2f} mm at last")
    line = f"wrote    {request.output} (the stage, run once; calibrate it anew)"
    result = ErrorHeadResult(request.output, len(losses), float(losses[0]), float(losses[-1]))
    return Outcome((*lines, line), result=result, outputs=(request.output,))


def _lines(request: TrainRequest, result: RunResult) -> list[str]:
    lines = run_state(result.steps, result.finished, result.seconds, result.samples_per_second)
    found = f"val SRE  {result.baseline:.2f} mm at the initialisations, "
    if math.isinf(result.measure):
        lines.append(f"{found}not measured yet after a stage: no weights to use so far")
    else:
        lines += [
            f"{found}{result.measure:.2f} mm after the best stage (step {result.best_step})",
            f"wrote    {result.best} (use it: crossalign register --method {result.best})",
        ]
    return [*lines, f"wrote    {request.output} (settings, checkpoint, history.csv, TensorBoard log)"]


def _warnings(result: RunResult) -> list[str]:
    texts = []
    if result.best_step == 0 and result.steps and math.isfinite(result.measure):
        texts.append(
            "no step was better than the weights that the run began with: best.safetensors holds those; "
            "try a lower rate, or more steps"
        )
    if result.is_no_better_than_baseline():
        texts.append(
            f"the best stage leaves {result.measure:.2f} mm of initialisations of {result.baseline:.2f} mm, "
            "worse than no registration: do not use it; train longer, on more pairs, or try another rate"
        )
    return texts
