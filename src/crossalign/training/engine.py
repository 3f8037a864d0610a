"""A run of any training: steps, averaged weights, validation, the best weights, a checkpoint to go on from.

What is trained, on what and how it is measured is a `TrainingTask`; everything here is the same for all of them.
"""

import copy
import json
import math
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from crossalign.errors import CrossalignError, InputError, InputWarning
from crossalign.output import whole_file, write_text
from crossalign.training.checkpoint import Checkpoint, RunProgress, find_checkpoint, save_checkpoint
from crossalign.training.device import keep_memory
from crossalign.training.processes import ALONE, Part, Processes
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
    tensorboard_module,
)
from crossalign.training.task import TrainingTask

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined] # torch's hints lack it


@dataclass(frozen=True)
class RunResult:
    """What a run left.

    `best` is the file of the best weights, `measure` their measure (infinite ahead of the first validation),
    `best_step` their step (0: those that the run began with), and `baseline` the measure without a trained network.
    """

    best: Path
    measure: float
    baseline: float
    best_step: int
    steps: int
    seconds: float
    samples_per_second: float
    finished: bool

    def is_no_better_than_baseline(self) -> bool:
        """Tell whether the best weights are of no use."""
        return self.baseline <= self.measure < math.inf


def run_task(
    task: TrainingTask,
    folder: Path,
    minutes: float = math.inf,
    watch: Callable[[dict[str, float]], None] | None = None,
    processes: Processes = ALONE,
) -> RunResult:
    """Train in `folder`, or go on from the checkpoint there, for at most `minutes` of this call.

    `watch` is called with the figures of every step. Writes `settings.json`, `last.safetensors` (the checkpoint),
    `previous.safetensors` (the one before it), `best.safetensors`, `history.csv` and a TensorBoard log. Killed and
    called again it ends with the same weights (CPU, same thread count, same number of processes). Each of `processes`
    calls it with the same task and sees the same folder; the first one validates, writes, and is watched. Raises
    OutputError where the folder holds a run with other settings or on other data, InputError or WeightsError where a
    file of it is damaged, where the training diverges, or where TensorBoard is not installed.
    """
    keep_memory()
    tensorboard_module()
    check_run_folder(folder)
    new = not folder.exists()
    run = _Run(task, folder, processes)
    processes.from_first(lambda: None)  # each has read the folder before the first one writes into it
    try:
        return _trained(run, folder, minutes, watch)
    except CrossalignError:
        if new and run.step == 0 and processes.is_first():
            discard_new_folder(folder)
        raise


def _trained(run: "_Run", folder: Path, minutes: float, watch: Callable[[dict[str, float]], None] | None) -> RunResult:
    run.open()
    plan, deadline = run.plan, time.monotonic() + minutes * 60
    with History(folder, run.step, plan.measure) if run.processes.is_first() else nullcontext() as history:
        if run.step == 0 and run.task.is_trained():
            run.validate()
        while run.step < plan.steps and not run.is_over(deadline):
            loss = run.advance()
            row = {"step": float(run.step), "loss": loss, "rate": run.rate(), "seconds": run.seconds()}
            if run.step % plan.val_every == 0 or run.step == plan.steps:
                row |= {plan.measure: run.validate(), "samples_per_second": run.pace()}
                if history is not None:
                    history.write(row)  # ahead of the checkpoint: a kill between the two repeats the row, not loses it
                run.save()
            if watch is not None and history is not None:
                watch(row)
        run.save()  # the minutes are over between two validations
    return RunResult(
        best=folder / BEST,
        measure=run.best,
        baseline=run.task.baseline(),
        best_step=run.best_step,
        steps=run.step,
        seconds=run.seconds(),
        samples_per_second=run.pace(),
        finished=run.step >= plan.steps,
    )


class _Run:
    """The state of a run; everything in it is in the checkpoint or follows from the settings."""

    def __init__(self, task: TrainingTask, folder: Path, processes: Processes) -> None:
        self.task, self.folder, self.plan, self.processes = task, folder, task.plan(), processes
        part = processes.part(self.plan.batch)
        self.settings, self.data = task.settings(), task.data()
        self.text = json.dumps(self.settings, indent=2)
        found = find_checkpoint(folder, self.plan.steps)
        saved = self.settings if found is None else task.renamed(found.settings())
        check_saved_settings(folder, saved, found is not None, task.renamed)
        if found is not None:
            check_same_run(folder, (saved, found.data()), (self.settings, self.data))
        self.model = task.fresh_model()
        self.average = copy.deepcopy(self.model)
        processes.prepare(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1.0, weight_decay=self.plan.weight_decay)
        self.step, self.saved, self.best, self.best_step, self.before = 0, 0, math.inf, 0, 0.0
        if found is not None:
            self._go_on(found)
        self.loss = processes.wrap(_StepLoss(task, self.model, part))
        self.began, self.first = time.monotonic(), self.step

    def _go_on(self, found: Checkpoint) -> None:
        found.restore(self.model, self.average, self.optimizer, self.task.renamed_tensor)
        progress = found.progress
        self.step, self.before, self.saved = progress.step, progress.seconds, progress.step
        self.best, self.best_step = progress.best_measure, progress.best_step
        best = self.folder / BEST
        if math.isfinite(self.best) and not best.is_file():
            text = "is missing: what was the best so far is lost, and the best from here on is kept"
            warnings.warn(f"{best}: {text}", InputWarning, stacklevel=2)
            self.best, self.best_step = math.inf, 0

    def open(self) -> None:
        """Make the folder and settings.json, where they are missing or of a run that was never saved."""
        if self.processes.is_first():
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.step or not (self.folder / SETTINGS).is_file():
                with whole_file(self.folder / SETTINGS, overwrite=True) as partial:
                    write_text(settings_text(self.settings, self.data), partial)
        if self.step >= self.plan.steps and math.isinf(self.best):  # its best file is gone
            self.validate()

    def advance(self) -> float:
        """Do one step and return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.model.train()
        try:
            loss = self.loss(self.step)
        except LinAlgError as error:
            raise self._divergence("loss", math.nan) from error
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), 5.0))
        value = float(self.processes.mean(loss.detach()))
        for name, number in (("loss", value), ("gradient", norm)):
            if not math.isfinite(number):
                raise self._divergence(name, number)
        self.optimizer.step()
        _average(self.average, self.model, min(self.plan.ema_decay, self.step / (self.step + 10)))
        self.step += 1
        return value

    def _divergence(self, what: str, value: float, done: int = 1) -> InputError:
        return InputError(
            f"training diverged at step {self.step + done}: the {what} is {value}: lower the rate "
            f"({self.rate():.3g} there), or look for images that are not finite"
        )

    @torch.no_grad()
    def validate(self) -> float:
        """Measure the averaged weights, and write them to a file where they are the best."""
        measure = self.processes.from_first(self._measured)
        if not math.isfinite(measure):
            raise self._divergence("measure", measure, 0)
        if measure < self.best:
            self.best, self.best_step = measure, self.step
            if self.processes.is_first():
                notes = {self.plan.measure: f"{measure:.5g}", "step": str(self.step), "training": self.text}
                self.task.save_best(self.average, self.folder / BEST, notes)
        return measure

    def _measured(self) -> float:
        try:
            return self.task.validate(self.average.eval())
        except LinAlgError:
            return math.nan

    def is_over(self, deadline: float) -> bool:
        """Tell whether the time is over, by the first process's clock."""
        return math.isfinite(deadline) and self.processes.from_first(lambda: time.monotonic() >= deadline)

    def save(self) -> None:
        """Write the checkpoint, unless it is there already."""
        if self.step == self.saved or not self.processes.is_first():
            return
        data = json.dumps(self.data, separators=(",", ":"))
        progress = RunProgress(self.step, self.best, self.seconds(), self.text, self.best_step, data)
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


class _StepLoss(nn.Module):
    """The loss of a step as a module, for what spreads it over processes."""

    def __init__(self, task: TrainingTask, model: nn.Module, part: Part | None) -> None:
        super().__init__()
        self.task, self.model, self.part = task, model, part

    def forward(self, step: int) -> Tensor:
        """Return the loss of this process's part of the batch."""
        if self.part is None:
            return self.task.loss(self.model, step)
        return self.task.loss_of_part(self.model, step, self.part)


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
