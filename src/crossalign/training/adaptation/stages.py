"""The stages of a model, each trained further on a site's pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from crossalign.data import load_case
from crossalign.input import finite_number
from crossalign.models import Model, Stage, StageSettings, load_stage
from crossalign.models.arrangement import Cascade, arrangement_of
from crossalign.training.adaptation.result import StageCurve
from crossalign.training.adaptation.settings import AdaptationSettings
from crossalign.training.adaptation.splitting import Split
from crossalign.training.dataset import PairDataset, joined, rotated
from crossalign.training.engine import RunResult, run_task
from crossalign.training.pair_synthesis import PairSynthesis
from crossalign.training.preparation import dataset_from_cases
from crossalign.training.run_folder import HISTORY, read_history
from crossalign.training.schedule import pick_cases
from crossalign.training.settings import TrainingSettings
from crossalign.training.tasks.registration import MEASURE, RegistrationTask

FIRST_MM, LATER_MM = (0.0, 20.0), (0.0, 8.0)  # SRE of the initialisations of a cascade's first stage, and of later ones
FEWEST_TO_SYNTHESISE = 2


@dataclass(frozen=True, eq=False)
class SiteDatasets:
    """A split as tensors: `train` holds `real` real pairs, then the synthesised ones."""

    train: PairDataset
    val: PairDataset
    real: int

    def to(self, device: torch.device) -> SiteDatasets:
        """Return them on another device."""
        return SiteDatasets(self.train.to(device), self.val.to(device), self.real)


class AdaptationTask(RegistrationTask):
    """A stage on real and synthesised pairs, a given fraction of each step's pairs synthesised."""

    def __init__(
        self,
        datasets: SiteDatasets,
        settings: TrainingSettings,
        stage: Stage,
        data: Mapping[str, object],
        synthesised_fraction: float,
    ) -> None:
        super().__init__(datasets.train, datasets.val, settings, stage.network, data)
        self._real, self._made = datasets.real, len(datasets.train) - datasets.real
        self._synthesised = round(synthesised_fraction * settings.batch) if self._made else 0

    def pick(self, step: int) -> list[int]:
        """Return the numbers of the training cases of a step: real ones, then synthesised ones."""
        seed, made = self._settings.seed, self._synthesised
        real = pick_cases(self._real, self._settings.batch - made, step, seed) if made < self._settings.batch else []
        return real + [self._real + one for one in (pick_cases(self._made, made, step, seed) if made else ())]


def site_datasets(split: Split, stage: StageSettings, settings: AdaptationSettings) -> SiteDatasets:
    """Preprocess a split's pairs for a stage, headers corrected, and add synthesised training pairs where they can be.

    Pairs are synthesised from cases with both structures; fewer than two such cases make none.
    """
    quarters = settings.orientation_correction // 90
    train, val = (
        rotated(dataset_from_cases((load_case(one.case(name)) for one in part), stage), quarters)
        for name, part in (("train", split.train), ("val", split.val))
    )
    real = len(train)
    both = [number for number, one in enumerate(split.train) if one.pair.moving_mask is not None]
    if settings.synthesised_pairs and len(both) >= FEWEST_TO_SYNTHESISE:
        synthesis = PairSynthesis(train.take(torch.tensor(both)))
        generator = torch.Generator().manual_seed(settings.seed)
        train = joined([train, synthesis.draw(settings.synthesised_pairs, generator)])
    return SiteDatasets(train, val, real)


def stage_numbers(model: Model, settings: AdaptationSettings) -> tuple[int, ...]:
    """Return the numbers (from 1) of the stages to train."""
    return (model.initial_stage,) if settings.stages == "initial" else tuple(range(1, len(model.stages) + 1))


def stage_training(model: Model, number: int, settings: AdaptationSettings) -> TrainingSettings:
    """Return how a stage is trained: initialisations as in its first training where it says so."""
    stage = model.stages[number - 1]
    return TrainingSettings(
        stage=stage.settings,
        steps=settings.steps,
        batch=settings.batch,
        rate=settings.rate,
        val_every=settings.val_every,
        ema_decay=settings.ema_decay,
        initial_sre_mm=_noted_range(stage) or _usual_range(model, stage),
        seed=settings.seed + number - 1,
        augmentation=settings.augmentation,
        synthesised_pairs=settings.synthesised_pairs,
        orientation_correction=settings.orientation_correction,
    )


def _noted_range(stage: Stage) -> tuple[float, float] | None:
    """Return the range of the initialisations' SRE that a stage's notes name."""
    try:
        training = json.loads(stage.notes.get("training", "{}"))
        ends = training.get("initial_sre_mm", training.get("start_sre_mm"))
        low, high = (finite_number(str(end)) for end in ends)
    except (AttributeError, TypeError, ValueError):
        return None
    return (low, high) if low is not None and high is not None and 0 <= low <= high else None


def _usual_range(model: Model, stage: Stage) -> tuple[float, float]:
    parts = model.arrangement.parts if isinstance(model.arrangement, Cascade) else (model.arrangement,)
    return FIRST_MM if stage in parts[0].stages() else LATER_MM


def train_stage(
    task: AdaptationTask, number: int, folder: Path, minutes: float, watch: Callable[[int, Mapping[str, float]], None]
) -> tuple[RunResult, StageCurve]:
    """Train a stage in a folder, or go on there, and return how its val SRE went."""
    result = run_task(task, folder, minutes, lambda row: watch(number, row))
    rows = read_history(folder / HISTORY)
    points = [(int(row["step"]), row[MEASURE]) for row in rows]
    with torch.no_grad():
        start = task.validate(task.fresh_model().eval())
    return result, StageCurve(number, ((0, start), *points), result.best_step, result.finished)


def trained_stage(stage: Stage, result: RunResult, device: torch.device) -> Stage:
    """Return the stage with the best weights of its run; the stage itself where no step was better."""
    return stage if result.best_step == 0 else load_stage(result.best, device)


def with_stages(model: Model, stages: Sequence[Stage]) -> Model:
    """Return the model with other stages in the same arrangement."""
    return replace(model, arrangement=arrangement_of(model.arrangement.layout(model.stages), stages))
