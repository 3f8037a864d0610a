"""`crossalign train`: one stage from a manifest or from simulated pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from crossalign.cli.options import Outcome, pick_device
from crossalign.cli.runs import RunBar, check_run, check_run_files, parse_crop, run_state
from crossalign.errors import InputError
from crossalign.evaluation import InitialisationRange
from crossalign.models import StageSettings, load_stage
from crossalign.models.extractors import load_extractors
from crossalign.training import PairDataset, RegistrationTask, RunResult, TrainingSettings, run_task
from crossalign.training.dataset import joined, rotated
from crossalign.training.pair_synthesis import PairSynthesis
from crossalign.training.preparation import (
    datasets_from_manifest,
    datasets_from_simulation,
    manifest_record,
    simulation_record,
)
from crossalign.training.settings import named_augmentation
from crossalign.training.tasks.pretraining import pretrained_network
from crossalign.training.tasks.registration import MEASURE


@dataclass(frozen=True)
class TrainRequest:
    """The options of `crossalign train`; exactly one of `manifest` and `simulate` (a count of pairs) is given.

    `start_sre` is text such as 0-20; `crop_shape` too, z,y,x as 32,32,32. `initial` is a stage to go on from,
    `pretrained` a file of extractors to start from, `patients` the share of the training patients to use, `minutes`
    how long this call may train (0: until the steps are done), `augmentation` how far pairs are varied
    (none, usual or strong), `mirror` the axes that it may flip,
    `shapes_share` the share of the simulated pairs that show random shapes in any two modalities, `recombine` how many
    pairs to make from the training cases' images, `header_turn_deg` the turn about z that mends all headers.
    """

    output: Path
    manifest: Path | None = None
    simulate: int = 0
    stage: StageSettings = field(default_factory=StageSettings)
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    start_sre: str = "0-20"
    crop_shape: str = "32,32,32"
    initial: Path | None = None
    augmentation: str = "usual"
    mirror: str = "x"
    minutes: float = 0.0
    device: str = "auto"
    pretrained: Path | None = None
    patients: float = 1.0
    shapes_share: float = 0.0
    recombine: int = 0
    header_turn_deg: int = 0


def run_train(request: TrainRequest) -> Outcome:
    """Train, or go on with the run that the folder holds. Raises CrossalignError."""
    check_run(request.output, request.manifest, request.simulate, request.minutes, request.patients)
    check_run_files(request.output, (request.initial, request.pretrained))
    if request.shapes_share and not request.simulate:
        raise InputError("--shapes-share is a share of simulated pairs: give --simulate COUNT with it")
    if request.simulate and (request.recombine or request.header_turn_deg):
        raise InputError("--recombine and --header-turn are for the cases of a manifest, not for simulated pairs")
    device = pick_device(request.device)
    settings, initial = _beginning(request, _settings(request))
    data = _record(request)
    train, val = (dataset.to(device) for dataset in _datasets(request, settings))
    minutes = request.minutes or math.inf
    with RunBar(settings.steps, MEASURE, "val SRE {:.2f} mm") as bar:
        task = RegistrationTask(train, val, settings, initial, data)
        result = run_task(task, request.output, minutes, bar.watch)
    return Outcome(tuple(_lines(request, result)), tuple(_warnings(result)))


def _settings(request: TrainRequest) -> TrainingSettings:
    start = InitialisationRange.parse(request.start_sre)
    return replace(
        request.settings,
        stage=replace(request.stage, crop_shape=parse_crop(request.crop_shape)),
        initial_sre_mm=(start.low_mm, start.high_mm),
        augmentation=named_augmentation(request.augmentation, request.mirror),
        patients=request.patients,
        synthesised_pairs=request.recombine,
        orientation_correction=request.header_turn_deg,  # type: ignore[arg-type]
        shapes_fraction=request.shapes_share,
    )


def _beginning(request: TrainRequest, settings: TrainingSettings) -> tuple[TrainingSettings, nn.Module | None]:
    """Return the settings with what the network starts from in them, and that network."""
    if request.pretrained is None:
        return settings, None if request.initial is None else load_stage(request.initial).network
    if request.initial is not None:
        raise InputError("--from and --pretrained both say where the network starts: give one of them")
    weights = load_extractors(request.pretrained)
    model = pretrained_network(weights, settings.stage, settings.seed)
    return replace(settings, pretrained=f"{request.pretrained.name}, SHA-256 {weights.digest()}"), model


def _datasets(request: TrainRequest, settings: TrainingSettings) -> tuple[PairDataset, PairDataset]:
    if request.manifest is None:
        return datasets_from_simulation(request.simulate, settings.seed, settings.stage, settings.shapes_fraction)
    read = datasets_from_manifest(request.manifest, settings.stage, settings.patients, settings.seed)
    train, val = (rotated(dataset, settings.orientation_correction // 90) for dataset in read)
    if settings.synthesised_pairs:
        made = PairSynthesis(train, settings.synthesis).draw(settings.synthesised_pairs, torch.Generator().manual_seed(settings.seed))
        train = joined([train, made])
    return train, val


def _record(request: TrainRequest) -> dict[str, object]:
    """Record what the datasets come from, so that the run goes on with nothing else."""
    return simulation_record(request.simulate) if request.manifest is None else manifest_record(request.manifest)


def _lines(request: TrainRequest, result: RunResult) -> list[str]:
    lines = run_state(result.steps, result.finished, result.seconds, result.samples_per_second)
    found = f"val SRE  {result.baseline:.2f} mm at the starts, "
    if math.isinf(result.measure):
        lines.append(f"{found}not measured yet after a stage: no weights to use so far")
    else:
        lines += [
            f"{found}{result.measure:.2f} mm after the best stage (step {result.best_step})",
            f"wrote    {result.best} (use it: crossalign register --method {result.best})",
        ]
    return [*lines, f"wrote    {request.output} (settings, checkpoint, history.csv, TensorBoard log)"]


def _warnings(result: RunResult) -> list[str]:
    told = []
    if result.best_step == 0 and result.steps and math.isfinite(result.measure):
        told.append(
            "no step was better than the weights that the run began with: best.safetensors holds those; "
            "try a lower rate, or more steps"
        )
    if result.is_no_better_than_baseline():
        told.append(
            f"the best stage leaves {result.measure:.2f} mm of starts of {result.baseline:.2f} mm, "
            "worse than no registration: do not use it; train longer, on more pairs, or try another rate"
        )
    return told
