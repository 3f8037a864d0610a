"""A model: trained stages, how they are combined and run, the calibration of their expected error, and a card."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from crossalign.arguments import checked
from crossalign.errors import InputError, WeightsError
from crossalign.fields import settings_of
from crossalign.input import excerpt
from crossalign.models.arrangement import Arrangement, Cascade, Ensemble, Stage, arrangement_of
from crossalign.models.calibration import Calibration
from crossalign.models.card import Card
from crossalign.models.earlier_files import current_tensor_name
from crossalign.models.model_file import (
    ModelContents,
    NetworkTask,
    StageContents,
    read_model_file,
    save_model_file,
    unfit,
)
from crossalign.models.pretrained import shipped_names, shipped_path
from crossalign.models.run_settings import RunSettings
from crossalign.models.stage_settings import StageSettings

REGISTRATION = NetworkTask(
    "registration",
    StageSettings,
    StageSettings.build,
    current_tensor_name,
)


@dataclass(frozen=True, eq=False)
class Model:
    """Stages and how they are combined (`arrangement`) and run, their calibration, and the card.

    `initial_stage` is the number (from 1) of the stage that training goes on from.
    """

    arrangement: Arrangement
    run: RunSettings = field(default_factory=RunSettings)
    calibration: Calibration | None = None
    card: Card = field(default_factory=Card)
    initial_stage: int = 1

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in the order in which they stand."""
        return self.arrangement.stages()

    @property
    def name(self) -> str:
        """The card's name, or what the arrangement is."""
        return self.card.name or self.arrangement.title()

    def has_run_settings(self) -> bool:
        """Say whether it is run otherwise than once, or calibrated."""
        return self.run != RunSettings() or self.calibration is not None

    def facts(self) -> dict[str, str]:
        """Return each stage's network, crop and input, how they are run where not once each, and the threshold."""
        stages = self.stages
        facts = {f"stage {number}": stage.settings.text() for number, stage in enumerate(stages, start=1)}
        if len(stages) > 1:
            facts["arrangement"] = self.arrangement.title()
        return facts | _run_facts(self.run, self.calibration)


def model_facts(file: ModelContents) -> dict[str, str]:
    """Return how a registration model is run, of its file alone; raises WeightsError where it does not fit."""
    try:
        return _run_facts(settings_of(RunSettings, file.run), _calibration(file))
    except InputError as error:
        raise unfit(file.path, error) from error


def combine(
    models: Sequence[Model], kind: type[Cascade] | type[Ensemble] = Cascade, run: RunSettings | None = None
) -> Model:
    """Make one model of several. Their calibrations do not hold for it.

    `run` None runs each stage once; raises InputError where a model is to be run otherwise, since its settings were
    made for itself alone.
    """
    for model in models:
        if run is None and len(models) > 1 and model.has_run_settings():
            raise InputError(
                f"{model.name} holds run settings or a calibration of its own, made for itself alone: say how the "
                "combination is to be run"
            )
    if len(models) == 1 and run is None:
        return models[0]
    return Model(kind(tuple(model.arrangement for model in models)), run or RunSettings())


@checked("source", "device", "run")
def load_model(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    device: torch.device | str = "cpu",
    run: RunSettings | None = None,
) -> Model:
    """Load a model from a file, or by the name of one that comes in the package.

    Several files make a cascade in their order; stage files of earlier versions are combined as the last of them says.
    `run` overrides what the files say. Raises WeightsError, also where settings were made for another number of stages.
    """
    sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if not sources:
        raise InputError("a cascade needs one trained stage or more")
    read = [_read(one, device) for one in sources]
    files, stages = [file for file, _ in read], [part for _, part in read]
    if files[-1].made_for == sum(map(len, stages)):
        return _model(files[-1], [one for part in stages for one in part], run)
    for file in files:
        if file.made_for != len(file.stages) and run is None:
            raise WeightsError(
                f"{file.path.name}: its settings were made for {file.made_for} stages, got "
                f"{sum(map(len, stages))}: give all files of that cascade, or say how these are to be run"
            )
    models = [
        _model(file, part) if file.made_for == len(part) else Model(Cascade(tuple(part)))
        for file, part in zip(files, stages, strict=True)
    ]
    return combine(models, Cascade, run)


def load_stage(source: str | os.PathLike[str], device: torch.device | str = "cpu") -> Stage:
    """Load one stage: of a file or a shipped model the one that training goes on from, or as NAME:2 the one named.

    Raises WeightsError, and InputError for a stage that there is not.
    """
    spelled, _, number = str(source).rpartition(":")
    if not spelled or os.path.lexists(source) or not number.isdecimal():
        spelled, number = str(source), ""
    file, stages = _read(spelled, device)
    selected = int(number) if number else file.initial_stage
    if not 1 <= selected <= len(stages):
        choices = " or ".join(f"{spelled}:{index}" for index in range(1, len(stages) + 1))
        raise InputError(f"'{source}' does not name one of the {len(stages)} stages of {spelled}: write {choices}")
    return stages[selected - 1]


def save_model(model: Model, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a model to one file. Raises OutputError."""
    stages = model.stages
    contents = ModelContents(
        task=REGISTRATION.name,
        stages=[StageContents(stage.network.state_dict(), stage.settings, stage.notes) for stage in stages],
        arrangement=model.arrangement.layout(stages),
        run=model.run,
        calibration=model.calibration,
        card=model.card,
        initial_stage=model.initial_stage,
    )
    save_model_file(contents, path, overwrite)


def save_stage(stage: Stage, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a model of one stage, run once. Raises OutputError."""
    save_model(Model(stage), path, overwrite)


def _read(source: str | os.PathLike[str], device: torch.device | str) -> tuple[ModelContents, list[Stage]]:
    """Read a file, or a shipped model by its name."""
    shipped = shipped_path(str(source))
    if shipped is None and "\0" not in str(source) and not os.path.lexists(source):
        names = ", ".join(shipped_names(REGISTRATION.name))
        raise WeightsError(f"{excerpt(source, 200)}: no such weight file, and the shipped models are {names}")
    try:
        file = read_model_file(shipped or source, REGISTRATION.name)
        networks = file.networks(REGISTRATION, device)
    except WeightsError as error:
        if shipped is None:
            raise
        raise WeightsError(f"{error}: install crossalign again") from error
    notes = (dict(stage.notes) for stage in file.stages)
    return file, [Stage(network, settings, note) for (network, settings), note in zip(networks, notes, strict=True)]


def _model(file: ModelContents, stages: Sequence[Stage], run: RunSettings | None = None) -> Model:
    try:
        return Model(
            arrangement_of(file.arrangement, stages),
            settings_of(RunSettings, file.run) if run is None else run,
            _calibration(file),
            file.card,
            file.initial_stage,
        )
    except InputError as error:
        raise unfit(file.path, error) from error


def _calibration(file: ModelContents) -> Calibration | None:
    return None if file.calibration is None else settings_of(Calibration, file.calibration, "calibration.")


def _run_facts(run: RunSettings, calibration: Calibration | None) -> dict[str, str]:
    facts = {} if run == RunSettings() else {"run": run.text()}
    if calibration is not None:
        facts["trusted"] = f"up to an expected SRE of {calibration.threshold_mm:g} mm"
    return facts
