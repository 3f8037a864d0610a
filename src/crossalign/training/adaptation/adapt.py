"""adapt: references, split, training of the stages, comparison, and one model that is not worse than the first."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from crossalign.data import read_scan_pairs
from crossalign.errors import InputError
from crossalign.evaluation import Row
from crossalign.input import excerpt
from crossalign.models import Model, Stage, load_model, save_model
from crossalign.registration import NetworkRegistration
from crossalign.training.adaptation.comparison import Comparison, compare
from crossalign.training.adaptation.folder import (
    CURVE,
    MANIFEST,
    VAL_TABLE,
    begun,
    cases_of,
    write_curves,
    write_manifest,
    write_rows,
)
from crossalign.training.adaptation.product import Origin, adapted_card, calibrated, kept_card
from crossalign.training.adaptation.references import References, answering, find_references
from crossalign.training.adaptation.result import KEPT, NO_STEP_BETTER, AdaptationResult, StageCurve
from crossalign.training.adaptation.settings import AdaptationSettings
from crossalign.training.adaptation.splitting import Split, check_patients, split_pairs
from crossalign.training.adaptation.stages import (
    AdaptationTask,
    SiteDatasets,
    site_datasets,
    stage_numbers,
    stage_training,
    train_stage,
    trained_stage,
    with_stages,
)
from crossalign.training.data_record import PREPARATION, cases_record

NAME = re.compile(r"[\w][\w .+-]{0,99}")


@dataclass(frozen=True)
class Watching:
    """What is called while an adaptation goes on.

    `pair` is given a line for each pair whose reference was looked for, `step` the stage's number and the figures of a
    step, `registration` what `evaluate` gives its `progress`.
    """

    pair: Callable[[str], None] = lambda _text: None
    step: Callable[[int, Mapping[str, float]], None] = lambda _stage, _row: None
    registration: Callable[[int, int, Row], None] = lambda _done, _total, _row: None


QUIET = Watching()


def adapt(  # noqa: PLR0913 (what is adapted, to what, where, how, how long, and who watches)
    source: str | os.PathLike[str],
    initial: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    settings: AdaptationSettings | None = None,
    name: str = "adapted",
    minutes: float = math.inf,
    device: torch.device | str = "cpu",
    watching: Watching = QUIET,
) -> AdaptationResult:
    """Adapt a model (a shipped one by its name, or a file) to the pairs of a folder or manifest (`data.scan_pairs`).

    Writes `NAME.safetensors` and what led to it into `folder`. Killed, or out of `minutes`, and called again it goes
    on. The file holds the starting model where the adapted one is not better, by more than chance, on patients that it
    was not trained on. Raises ManifestError, ImageError, InputError or WeightsError for what cannot be used,
    OutputError where the folder holds something else.
    """
    began = time.monotonic()
    check_name(name)
    pairs, path = read_scan_pairs(source), Path(folder)
    check_patients(pairs)
    model, settings = _with_orientation(load_model(initial, device), settings or AdaptationSettings())
    with begun(path, pairs, model, settings):
        method = answering(NetworkRegistration(model), settings.reference_initialisations)
        references = find_references(pairs, method, path, watching.pair)
        split = split_pairs(references, settings.val_fraction, settings.seed)
        write_manifest(split, path / MANIFEST)
        origin = Origin(name, Path(initial).name, split.train_patients(), len(split.train), settings.seed)
        adaptation = _Adaptation(path, model, settings, references, split, origin, torch.device(device), watching)
        return adaptation.run(began, minutes)


def check_name(name: str) -> None:
    """Raise InputError where a name cannot be a file's."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"the name '{excerpt(name)}' cannot be a file's: expected letters, digits, blanks and . + - _, 100 at most"
        )


def _with_orientation(model: Model, settings: AdaptationSettings) -> tuple[Model, AdaptationSettings]:
    """Let model and settings correct the headers alike: as the settings say, or else as the model does."""
    correction = settings.orientation_correction or model.run.orientation_correction
    if correction == "auto":
        raise InputError(
            "the model tries every orientation correction: say which one this site's headers need "
            "(--orientation-correction 90, 180 or 270), or start from a model without 'auto'"
        )
    run = replace(model.run, orientation_correction=correction)
    return replace(model, run=run), replace(settings, orientation_correction=correction)


@dataclass(frozen=True)
class _Outcome:
    """What came of it; without a model it is not finished."""

    model: Path | None
    verdict: str = "stopped; the same command goes on from here"
    is_adapted: bool = False
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Adaptation:
    folder: Path
    model: Model
    settings: AdaptationSettings
    references: References
    split: Split
    origin: Origin
    device: torch.device
    watching: Watching

    def run(self, began: float, minutes: float) -> AdaptationResult:
        """Train for at most so many minutes from `began` on, and finish where that sufficed."""
        stages, curves = self.train(began + minutes * 60)
        write_curves(curves, self.folder / CURVE)
        outcome = _Outcome(None) if stages is None else self.finish(stages)
        return AdaptationResult(
            folder=self.folder,
            model=outcome.model,
            verdict=outcome.verdict,
            is_adapted=outcome.is_adapted,
            patients=(self.split.train_patients(), self.split.val_patients()),
            references=self.references.counts(),
            left_out=self.references.left_out,
            curves=curves,
            comparison=outcome.comparison,
            seconds=time.monotonic() - began,
            notes=(*self.split.notes(), *outcome.notes),
        )

    def train(self, deadline: float) -> tuple[tuple[Stage, ...] | None, tuple[StageCurve, ...]]:
        """Train stage after stage; return all stages of the model (None where time is over), and the curves so far."""
        stages, curves = list(self.model.stages), list[StageCurve]()
        record = cases_record((case.name, vars(case)) for case in cases_of(self.split)) | PREPARATION
        made: tuple[object, SiteDatasets] | None = None
        for number in stage_numbers(self.model, self.settings):
            minutes = (deadline - time.monotonic()) / 60
            if minutes <= 0:
                return None, tuple(curves)
            training = stage_training(self.model, number, self.settings)
            cut = (training.stage.extent_mm(), training.stage.working_spacing_mm)
            if made is None or made[0] != cut:
                made = (cut, site_datasets(self.split, training.stage, self.settings).to(self.device))
            stage = stages[number - 1]
            task = AdaptationTask(made[1], training, stage, record, self.settings.synthesised_fraction)
            result, curve = train_stage(task, number, self.folder / f"stage-{number}", minutes, self.watching.step)
            curves.append(curve)
            if not result.finished:
                return None, tuple(curves)
            stages[number - 1] = trained_stage(stage, result, self.device)
        return tuple(stages), tuple(curves)

    def finish(self, stages: tuple[Stage, ...]) -> _Outcome:
        """Compare the adapted model with the starting one, and write the better one."""
        path = self.folder / f"{self.origin.name}.safetensors"
        if all(one is other for one, other in zip(stages, self.model.stages, strict=True)):
            return self._kept(path, NO_STEP_BETTER, None)
        model, count = with_stages(self.model, stages), self.settings.val_initialisations
        cases = [one.case("val") for one in self.split.val]
        found, evaluation = compare(cases, (self.model, model), count, self.settings.seed, self.watching.registration)
        write_rows(evaluation, self.folder / VAL_TABLE)
        if not found.is_better:
            return self._kept(path, KEPT, found)
        uncertain = any(one.kind == "model" for one in self.split.val)
        model, calibration = calibrated(model, evaluation.rows, uncertain)
        card = adapted_card(self.model.card, self.origin, self.references, found, calibration)
        save_model(replace(model, card=card), path, overwrite=True)
        return _Outcome(path, found.verdict(), True, found, (calibration,))

    def _kept(self, path: Path, verdict: str, found: Comparison | None) -> _Outcome:
        card = kept_card(self.model.card, self.origin, verdict)
        save_model(replace(self.model, card=card), path, overwrite=True)
        return _Outcome(path, verdict, False, found)
