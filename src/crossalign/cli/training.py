"""`crossalign train`: one stage from a manifest or from simulated pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from crossalign.cli.options import Outcome, pick_device
from crossalign.errors import InputError, OutputError
from crossalign.evaluation import StartRange
from crossalign.models import StageSettings, load_stage
from crossalign.training import NO_AUGMENTATION, Bank, TrainingResult, TrainingSettings, train_stage
from crossalign.training.prepare import banks_from_manifest, banks_from_simulation


@dataclass(frozen=True)
class TrainRequest:
    """The options of `crossalign train`; exactly one of `manifest` and `simulate` (a count of pairs) is given.

    `start_sre` is text such as 0-20; `crop_shape` too, z,y,x as 32,32,32. `initial` is a stage to go on from, `minutes`
    how long this call may train (0: until the steps are done),
    `mirror` the axes that augmentation may flip.
    """

    output: Path
    manifest: Path | None = None
    simulate: int = 0
    stage: StageSettings = field(default_factory=StageSettings)
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    start_sre: str = "0-20"
    crop_shape: str = "32,32,32"
    initial: Path | None = None
    augment: bool = True
    mirror: str = "x"
    minutes: float = 0.0
    device: str = "auto"


def run_train(request: TrainRequest) -> Outcome:
    """Train, or go on with the run that the folder holds. Raises CrossalignError."""
    _check(request)
    settings = _settings(request)
    device = pick_device(request.device)
    initial = None if request.initial is None else load_stage(request.initial).model
    train, val = (bank.to(device) for bank in _banks(request, settings))
    minutes = request.minutes or math.inf
    with _Bar(settings.steps) as bar:
        result = train_stage(train, val, settings, request.output, minutes, initial, bar.watch)
    return Outcome(tuple(_lines(request, result)))


class _Bar:
    """Progress with the loss, the last validation SRE and the time left."""

    def __init__(self, steps: int) -> None:
        self.bar = tqdm(total=steps, unit="step", disable=None, smoothing=0.05)
        self.val = ""

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_error: object) -> None:
        self.bar.close()

    def watch(self, row: Mapping[str, int | float]) -> None:
        """Show one step."""
        if "val_sre_mm" in row:
            pace = row.get("samples_per_second", math.nan)
            self.val = f", val SRE {row['val_sre_mm']:.2f} mm, {pace:.0f} samples/s"
        if self.bar.n == 0:  # a run that goes on starts in the middle
            self.bar.initial = self.bar.n = int(row["step"]) - 1
        self.bar.set_postfix_str(f"loss {row['loss']:.3f}{self.val}", refresh=False)
        self.bar.update(int(row["step"]) - self.bar.n)


def _check(request: TrainRequest) -> None:
    if (request.manifest is None) == (request.simulate == 0):
        raise InputError("give either a MANIFEST or --simulate COUNT: what is there to train on?")
    if request.simulate < 0 or request.minutes < 0:
        raise InputError(f"--simulate and --minutes must be 0 or more, got {request.simulate} and {request.minutes}")
    folder = request.output
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, expected a folder for the run")
    if not folder.absolute().parent.is_dir():
        raise OutputError(f"{folder}: {folder.parent} is not a folder that exists: make it first")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "settings.json").is_file():
        raise OutputError(f"{folder}: holds other files than a run: name a new folder")


def _settings(request: TrainRequest) -> TrainingSettings:
    try:
        z, y, x = (int(size) for size in request.crop_shape.split(","))
    except ValueError as error:
        raise InputError(f"cannot read the crop '{request.crop_shape}': expected voxels z,y,x as 32,32,32") from error
    start = StartRange.parse(request.start_sre)
    varied = replace(request.settings.augmentation, mirror=request.mirror)
    return replace(
        request.settings,
        stage=replace(request.stage, crop_shape=(z, y, x)),
        start_sre_mm=(start.low_mm, start.high_mm),
        augmentation=varied if request.augment else NO_AUGMENTATION,
    )


def _banks(request: TrainRequest, settings: TrainingSettings) -> tuple[Bank, Bank]:
    if request.manifest is not None:
        return banks_from_manifest(request.manifest, settings.stage)
    return banks_from_simulation(request.simulate, settings.seed, settings.stage)


def _lines(request: TrainRequest, result: TrainingResult) -> list[str]:
    state = "finished" if result.finished else "stopped; the same command goes on from here"
    return [
        f"steps    {result.steps} ({state})",
        f"seconds  {result.seconds:.0f} ({result.samples_per_second:.0f} samples/s)",
        f"val SRE  {result.start_sre_mm:.2f} mm at the starts, {result.best_sre_mm:.2f} mm after the best stage",
        f"wrote    {result.best} (use it: crossalign register --method {result.best})",
        f"wrote    {request.output} (settings, checkpoint, history.csv, TensorBoard log)",
    ]
