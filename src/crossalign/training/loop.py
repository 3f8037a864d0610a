"""The training loop: one visible pass from pairs to weights, resumable at any moment."""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from crossalign.errors import InputError, OutputError
from crossalign.models import Stage, build_model, save_stage
from crossalign.output import whole_file
from crossalign.training.bank import Bank
from crossalign.training.checkpoint import Progress, load_checkpoint, read_progress, save_checkpoint
from crossalign.training.history import History
from crossalign.training.losses import correction_error_mm, parameters_loss, sre_loss
from crossalign.training.processor import choose_precision, keep_memory
from crossalign.training.sampler import Batch, draw_batch, validation_batches
from crossalign.training.settings import TrainingSettings

LOSS = {"sre": sre_loss, "parameters": parameters_loss}
PAPER_DROPS = (120 / 300, 170 / 300, 250 / 300)
WARM_UP = 0.05
# torch's CPU generator looks at a seed's lowest 32 bits alone: seeds are spread over those, steps count up from there.
SEED_SPREAD = 0x9E3779B1
SEED_RANGE = 2**32


@dataclass(frozen=True)
class TrainingResult:
    """What a run left: the best weights' file, its validation SRE (mm) beside that of the starts, and the pace."""

    best: Path
    best_sre_mm: float
    start_sre_mm: float
    steps: int
    seconds: float
    samples_per_second: float
    finished: bool


def train_stage(  # noqa: PLR0913 (a run is two banks, settings and a folder; the rest is for its caller's comfort)
    train: Bank,
    val: Bank,
    settings: TrainingSettings,
    folder: Path,
    minutes: float = math.inf,
    initial: nn.Module | None = None,
    watch: Callable[[dict[str, float]], None] | None = None,
) -> TrainingResult:
    """Train one stage in `folder`, or go on from the checkpoint there, for at most `minutes` of this call.

    Writes `settings.json`, `last.safetensors` (the checkpoint), `best.safetensors` (the stage with the lowest
    validation SRE), `history.csv` and a TensorBoard log. Both banks lie on the training device. `watch` is told of
    every step. Killed and called again it ends with the same weights (CPU, same thread count). Raises OutputError
    where the folder holds a run with other settings. Where `minutes` are over before the first validation there is
    no best file yet, and its SRE is infinite.
    """
    keep_memory()
    run = _Run(train, val, settings, folder, initial)
    deadline = time.monotonic() + minutes * 60
    with History(folder, run.step) as history:
        while run.step < settings.steps and time.monotonic() < deadline:
            loss = run.advance()
            row = {"step": float(run.step), "loss": loss, "rate": run.rate(), "seconds": run.seconds()}
            if run.step % settings.val_every == 0 or run.step == settings.steps:
                row |= {"val_sre_mm": run.validate(), "samples_per_second": run.pace()}
                history.write(row)  # ahead of the checkpoint: a kill between the two repeats the row, not loses it
                run.save()
            if watch is not None:
                watch(row)
        run.save()  # the minutes are over between two validations
    return run.result()


class _Run:
    """The state of a run; everything in it is in the checkpoint or follows from the settings."""

    def __init__(
        self, train: Bank, val: Bank, settings: TrainingSettings, folder: Path, initial: nn.Module | None
    ) -> None:
        self.train, self.settings, self.folder = train, settings, folder
        self.device = train.fixed.device
        self.precision = choose_precision(settings.precision, self.device)
        self.model = _fresh_model(settings, initial).to(self.device)
        self.model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's hints lack it
        self.average = copy.deepcopy(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), settings.rate, weight_decay=settings.weight_decay)
        self.text = json.dumps(asdict(settings), indent=2)
        self.step, self.saved, self.best, self.before = 0, 0, math.inf, 0.0
        self._open()
        self.began, self.first = time.monotonic(), self.step
        self.val = validation_batches(
            val, settings.stage, settings.start_sre_mm, settings.val_starts, _seed(settings.seed)
        )

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        last = self.folder / "last.safetensors"
        if last.is_file():
            progress = read_progress(last)
            if _values(progress.settings) != _values(self.text):
                raise OutputError(f"{self.folder}: holds a run with other settings: name another folder")
            load_checkpoint(last, self.model, self.average, self.optimizer)
            self.step, self.best, self.before = progress.step, progress.best_sre_mm, progress.seconds
            self.saved = self.step
            return
        with whole_file(self.folder / "settings.json", overwrite=True) as partial:
            partial.write_text(self.text + "\n", encoding="utf-8")

    def advance(self) -> float:
        """Do one step and return its loss. Its randomness comes from the seed and the step's number alone."""
        settings = self.settings
        generator = torch.Generator().manual_seed(_seed(settings.seed, self.step))
        index = _cases(len(self.train), settings.batch, self.step, settings.seed).to(self.device)
        batch = draw_batch(self.train, index, settings.stage, settings.start_sre_mm, settings.augmentation, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.model.train()
        loss = LOSS[settings.loss](self._predict(self.model, batch), batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        _average(self.average, self.model, min(settings.average, self.step / (self.step + 10)))
        self.step += 1
        return float(loss.detach())

    def _predict(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        form = torch.channels_last_3d
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            parameters = model(batch.fixed.contiguous(memory_format=form), batch.moving.contiguous(memory_format=form))
        return parameters.float()

    @torch.no_grad()
    def validate(self) -> float:
        """Measure the running mean's SRE on the fixed starts, mm, and write it to a file where it is the best."""
        self.average.eval()
        errors = [correction_error_mm(self._predict(self.average, batch), batch) for batch in self.val]
        sre_mm = float(torch.cat(errors).mean())
        if not math.isfinite(sre_mm):
            raise InputError(f"training diverged at step {self.step}: the SRE is {sre_mm}; lower the rate")
        if sre_mm < self.best:
            self.best = sre_mm
            notes = {"val_sre_mm": f"{sre_mm:.3f}", "step": str(self.step), "training": self.text}
            stage = Stage(self.average, self.settings.stage, notes)
            save_stage(stage, self.folder / "best.safetensors", overwrite=True)
        return sre_mm

    def save(self) -> None:
        """Write the checkpoint, unless it is there already."""
        if self.step == self.saved:
            return
        progress = Progress(self.step, self.best, self.seconds(), self.text)
        save_checkpoint(self.folder / "last.safetensors", self.model, self.average, self.optimizer, progress)
        self.saved = self.step

    def rate(self) -> float:
        """Learning rate of the step at hand."""
        done, top = self.step / self.settings.steps, self.settings.rate
        if self.settings.schedule == "paper":
            return top * 0.3 ** sum(done >= drop for drop in PAPER_DROPS)
        if done < WARM_UP:
            return top * max(done, 1 / self.settings.steps) / WARM_UP
        return top * (0.01 + 0.99 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2)

    def seconds(self) -> float:
        """Seconds trained so far, over all calls."""
        return self.before + time.monotonic() - self.began

    def pace(self) -> float:
        """Training pairs a second in this call."""
        return (self.step - self.first) * self.settings.batch / max(time.monotonic() - self.began, 1e-9)

    def result(self) -> TrainingResult:
        """Sum up."""
        starts = torch.cat([_start_error(batch) for batch in self.val])
        best = self.folder / "best.safetensors"
        finished = self.step >= self.settings.steps
        return TrainingResult(best, self.best, float(starts.mean()), self.step, self.seconds(), self.pace(), finished)


def _start_error(batch: Batch) -> torch.Tensor:
    return correction_error_mm(torch.zeros(len(batch.fixed), 6, device=batch.fixed.device), batch)


def _fresh_model(settings: TrainingSettings, initial: nn.Module | None) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = build_model(settings.stage.model, settings.stage.crop_shape, settings.stage.crop_spacing_mm)
    if initial is not None:
        model.load_state_dict(initial.state_dict())
    return model


def _cases(count: int, batch: int, step: int, seed: int) -> torch.Tensor:
    """Pick the step's cases: each epoch visits all of them in a fresh order, batches run across its end."""
    positions = torch.arange(step * batch, (step + 1) * batch)
    orders: dict[int, torch.Tensor] = {}
    for epoch in set((positions // count).tolist()):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        orders[epoch] = torch.randperm(count, generator=generator)
    return torch.stack([orders[p // count][p % count] for p in positions.tolist()])


def _seed(seed: int, step: int = 0) -> int:
    """Give each step of each run its own seed within 32 bits; validation takes step 0's, on other cases."""
    return (seed * SEED_SPREAD + step) % SEED_RANGE


def _values(text: str) -> object:
    """Read saved settings, so that 0 and 0.0 are the same."""
    try:
        return json.loads(text)
    except ValueError:
        return None


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
