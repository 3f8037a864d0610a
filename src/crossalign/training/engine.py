"""A run of any training: steps, running mean, validation, the best weights, a checkpoint to go on from.

What is trained, on what and how it is judged is a `Task`; everything here is the same for all of them.
"""

import copy
import json
import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from crossalign.errors import CrossalignError, InputError, InputWarning
from crossalign.output import whole_file, write_text
from crossalign.training.checkpoint import Checkpoint, Progress, find_checkpoint, save_checkpoint
from crossalign.training.device import keep_memory
from crossalign.training.run_folder import (
    BEST,
    LAST,
    SETTINGS,
    History,
    check_run_folder,
    check_same_run,
    check_saved_settings,
    discard_new_folder,
    settings_text,
)

# torch's CPU generator looks at a seed's lowest 32 bits alone: seeds are spread over those, steps count up from there.
SEED_SPREAD = 0x9E3779B1
SEED_RANGE = 2**32
WARM_UP = 0.05
LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined] # torch's hints lack it


@dataclass(frozen=True)
class Plan:
    """How long and how fast a task trains.

    `rate` gives the learning rate at a share of the way; `measure` is the name of what judges it.
    """

    steps: int
    batch: int
    weight_decay: float
    val_every: int
    average: float
    rate: Callable[[float], float]
    measure: str


class Task(ABC):
    """What a run trains. The measure is better when lower; it must not depend on the run's state."""

    @abstractmethod
    def plan(self) -> Plan:
        """Return how to train it."""

    @abstractmethod
    def settings(self) -> Mapping[str, object]:
        """Return what is saved beside the weights; a run goes on only with the same."""

    def data(self) -> Mapping[str, object]:
        """Return a record of what it trains on (`data_record`); a run goes on only with the same."""
        return {}

    def has_begun(self) -> bool:
        """Tell whether the network has weights of use before the first step: they are then kept until beaten."""
        return False

    @abstractmethod
    def fresh_model(self) -> nn.Module:
        """Make the network on its device, as it is before the first step."""

    @abstractmethod
    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of a step; its randomness comes from the settings' seed and the step's number alone."""

    @abstractmethod
    def validate(self, model: nn.Module) -> float:
        """Measure a network in eval mode."""

    @abstractmethod
    def save_best(self, model: nn.Module, path: Path, notes: dict[str, str]) -> None:
        """Write the weights that are used."""


@dataclass(frozen=True)
class RunResult:
    """What a run left: the best weights' file, its measure and step (0: those that it began with), and the pace."""

    best: Path
    measure: float
    best_step: int
    steps: int
    seconds: float
    samples_per_second: float
    finished: bool


def run_task(
    task: Task, folder: Path, minutes: float = math.inf, watch: Callable[[dict[str, float]], None] | None = None
) -> RunResult:
    """Train in `folder`, or go on from the checkpoint there, for at most `minutes` of this call.

    Writes `settings.json`, `last.safetensors` (the checkpoint) and `previous.safetensors` (the one before it),
    `best.safetensors`, `history.csv` and a TensorBoard log. Killed and called again it ends with the same weights (CPU,
    same thread count). Raises OutputError where the folder holds a run with other settings or on other data, InputError
    or WeightsError where a file of it is damaged or where the training diverges.
    """
    keep_memory()
    check_run_folder(folder)
    new = not folder.exists()
    run = _Run(task, folder)
    try:
        return _trained(run, folder, minutes, watch)
    except CrossalignError:
        if new and run.step == 0:
            discard_new_folder(folder)
        raise


def _trained(run: "_Run", folder: Path, minutes: float, watch: Callable[[dict[str, float]], None] | None) -> RunResult:
    run.open()
    plan, deadline = run.plan, time.monotonic() + minutes * 60
    with History(folder, run.step, plan.measure) as history:
        if run.step == 0 and run.task.has_begun():
            run.validate()
        while run.step < plan.steps and time.monotonic() < deadline:
            loss = run.advance()
            row = {"step": float(run.step), "loss": loss, "rate": run.rate(), "seconds": run.seconds()}
            if run.step % plan.val_every == 0 or run.step == plan.steps:
                row |= {plan.measure: run.validate(), "samples_per_second": run.pace()}
                history.write(row)  # ahead of the checkpoint: a kill between the two repeats the row, not loses it
                run.save()
            if watch is not None:
                watch(row)
        run.save()  # the minutes are over between two validations
    return RunResult(
        folder / BEST, run.best, run.best_step, run.step, run.seconds(), run.pace(), run.step >= plan.steps
    )


class _Run:
    """The state of a run; everything in it is in the checkpoint or follows from the settings."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder, self.plan = task, folder, task.plan()
        self.settings, self.data = task.settings(), task.data()
        self.text = json.dumps(self.settings, indent=2)
        found = find_checkpoint(folder, self.plan.steps)
        check_saved_settings(folder, self.settings if found is None else found.settings(), found is not None)
        if found is not None:
            self._check_same(found)
        self.model = task.fresh_model()
        self.average = copy.deepcopy(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1.0, weight_decay=self.plan.weight_decay)
        self.step, self.saved, self.best, self.best_step, self.before = 0, 0, math.inf, 0, 0.0
        if found is not None:
            self._go_on(found)
        self.began, self.first = time.monotonic(), self.step

    def _check_same(self, found: Checkpoint) -> None:
        data = found.data()
        if data is None:
            text = "was begun by an earlier version, which did not record the data: that it is the same is not checked"
            warnings.warn(f"{self.folder}: {text}", InputWarning, stacklevel=2)
        saved = found.settings(), self.data if data is None else data
        check_same_run(self.folder, saved, (self.settings, self.data))

    def _go_on(self, found: Checkpoint) -> None:
        found.restore(self.model, self.average, self.optimizer)
        progress = found.progress
        self.step, self.before, self.saved = progress.step, progress.seconds, progress.step
        self.best, self.best_step = progress.best_sre_mm, progress.best_step
        best = self.folder / BEST
        if math.isfinite(self.best) and not best.is_file():
            text = "is missing: what was the best so far is lost, and the best from here on is kept"
            warnings.warn(f"{best}: {text}", InputWarning, stacklevel=2)
            self.best, self.best_step = math.inf, 0

    def open(self) -> None:
        """Make the folder and settings.json, where they are missing or of a run that was never saved."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.step or not (self.folder / SETTINGS).is_file():
            with whole_file(self.folder / SETTINGS, overwrite=True) as partial:
                write_text(settings_text(self.settings, self.data), partial)
        if self.step >= self.plan.steps and math.isinf(self.best):  # its best file was taken away
            self.validate()

    def advance(self) -> float:
        """Do one step and return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.model.train()
        try:
            loss = self.task.loss(self.model, self.step)
        except LinAlgError as error:
            raise self._diverged("loss", math.nan) from error
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm, value = float(nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)), float(loss.detach())
        for name, number in (("loss", value), ("gradient", norm)):
            if not math.isfinite(number):
                raise self._diverged(name, number)
        self.optimizer.step()
        _average(self.average, self.model, min(self.plan.average, self.step / (self.step + 10)))
        self.step += 1
        return value

    def _diverged(self, what: str, value: float, done: int = 1) -> InputError:
        return InputError(
            f"training diverged at step {self.step + done}: the {what} is {value}: lower the rate "
            f"({self.rate():.3g} there), or look for images that are not finite"
        )

    @torch.no_grad()
    def validate(self) -> float:
        """Measure the running mean, and write it to a file where it is the best."""
        try:
            measure = self.task.validate(self.average.eval())
        except LinAlgError:
            measure = math.nan
        if not math.isfinite(measure):
            raise self._diverged("measure", measure, 0)
        if measure < self.best:
            self.best, self.best_step = measure, self.step
            notes = {self.plan.measure: f"{measure:.5g}", "step": str(self.step), "training": self.text}
            self.task.save_best(self.average, self.folder / BEST, notes)
        return measure

    def save(self) -> None:
        """Write the checkpoint, unless it is there already."""
        if self.step == self.saved:
            return
        progress = Progress(
            self.step,
            self.best,
            self.seconds(),
            self.text,
            self.best_step,
            json.dumps(self.data, separators=(",", ":")),
        )
        save_checkpoint(self.folder / LAST, self.model, self.average, self.optimizer, progress)
        self.saved = self.step

    def rate(self) -> float:
        """Learning rate of the step at hand."""
        return self.plan.rate(self.step / self.plan.steps)

    def seconds(self) -> float:
        """Seconds trained so far, over all calls."""
        return self.before + time.monotonic() - self.began

    def pace(self) -> float:
        """Count the samples a second in this call."""
        return (self.step - self.first) * self.plan.batch / max(time.monotonic() - self.began, 1e-9)


def pick_cases(count: int, batch: int, step: int, seed: int) -> list[int]:
    """Pick the step's cases: each epoch visits all of them in a fresh order, batches run across its end."""
    positions = range(step * batch, (step + 1) * batch)
    orders: dict[int, list[int]] = {}
    for epoch in {position // count for position in positions}:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        orders[epoch] = torch.randperm(count, generator=generator).tolist()
    return [orders[position // count][position % count] for position in positions]


def cosine_rate(top: float, first: float, done: float) -> float:
    """Rise in a straight line over the first 5 % (from the share `first`), then fall as a cosine to 1 % of `top`."""
    if done < WARM_UP:
        return top * max(done, first) / WARM_UP
    return top * (0.01 + 0.99 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2)


def step_seed(seed: int, step: int = 0) -> int:
    """Give each step of each run its own seed within 32 bits; validation takes step 0's, on other cases."""
    return (seed * SEED_SPREAD + step) % SEED_RANGE


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
