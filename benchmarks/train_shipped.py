"""How the shipped registration weights were trained: simulated pairs, then, for few-shot, eight open real ones.

    python benchmarks/train_shipped.py OPEN_MANIFEST -o FOLDER [--minutes 10] [--device auto] [--times 1] [--seed 0]

OPEN_MANIFEST lists the eight MR-ultrasound pairs of learn2reg/tutorials2019 (`weakly/data`, Apache-2.0), all `train`.
Every step is resumable: call it again until it says that it is done. The simulated pairs are made once and kept in
FOLDER; then everything stays on the device. `--times 10` takes ten times the steps and pairs, for a GPU. The recipe's
steps are those of the shipped weights (docs/models): about 40 minutes on one free CPU core.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from crossalign.cases import in_split, load_case, read_manifest
from crossalign.cli.options import pick_device
from crossalign.errors import CrossalignError
from crossalign.models import StageSettings, load_stage
from crossalign.training import Augmentation, Bank, TrainingSettings
from crossalign.training.engine import Plan, cosine_rate, run_task
from crossalign.training.loop import RegistrationTask
from crossalign.training.mixing import joined
from crossalign.training.prepare import bank_from_cases
from crossalign.training.simulated import bank_from_simulation

STAGE = StageSettings("correspondence")
SIMULATED = (10, 12, 14)  # seeds, 200 pairs each
PAIRS, VAL_PAIRS, VAL_SEED = 200, 48, 1
MIRROR = "y"  # left-right in this set, whose headers are a quarter turn off


@dataclass(frozen=True)
class Run:
    """One training: what it begins with, whether it sees real pairs, its schedule; `stopped` of `steps` are done."""

    name: str
    begins_with: str
    real: bool
    fixed_input: str
    steps: int
    stopped: int
    rate: float
    average: float
    val_every: int


RUNS = (
    Run("zero-1", "", False, "image", 2800, 1000, 1e-3, 0.995, 200),
    Run("zero-2", "zero-1", False, "image", 600, 600, 8e-4, 0.99, 100),
    Run("few", "zero-2", True, "image", 40, 40, 6e-4, 0.95, 10),
    Run("zero-label", "zero-2", False, "label", 300, 300, 8e-4, 0.99, 60),
)


class StoppedTask(RegistrationTask):
    """A run whose schedule was made for more steps than it takes."""

    def __init__(self, scheduled: int, train: Bank, val: Bank, settings: TrainingSettings, begin: Path | None) -> None:
        super().__init__(train, val, settings, None if begin is None else load_stage(begin).model)
        self._scheduled = scheduled

    def plan(self) -> Plan:
        """Return the schedule's first part."""
        plan = super().plan()
        top, share = self._settings.rate, self._settings.steps / self._scheduled
        return replace(plan, rate=lambda done: cosine_rate(top, 1 / self._scheduled, done * share))


def main() -> int:
    """Run what is left of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the training; the simulated pairs have their own")
    given = parser.parse_args()
    deadline = time.monotonic() + given.minutes * 60
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        device = pick_device(given.device)
        for run in RUNS:
            done = _train(run, given, device, (deadline - time.monotonic()) / 60)
            if not done:
                print("stopped; the same command goes on from here")
                return 0
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    print("done")
    return 0


def _train(run: Run, given: argparse.Namespace, device: torch.device, minutes: float) -> bool:
    folder, times = given.output, given.times
    if run.real:  # no other real pairs may be seen: the best weights are those that fit these best
        train = bank_from_cases((load_case(case) for case in in_split(read_manifest(given.manifest), "train")), STAGE)
        val = train
    else:
        train = joined(_simulated(folder, times))
        val = _kept(folder / "val.bank", VAL_PAIRS, VAL_SEED)
    settings = TrainingSettings(
        stage=replace(STAGE, fixed_input=run.fixed_input),
        steps=run.stopped * times,
        rate=run.rate,
        val_every=run.val_every * times,
        average=run.average,
        seed=given.seed,
        augmentation=Augmentation(mirror=MIRROR if run.real else ""),
    )
    begin = folder / run.begins_with / "best.safetensors" if run.begins_with else None
    task = StoppedTask(run.steps * times, train.to(device), val.to(device), settings, begin)
    result = run_task(task, folder / run.name, minutes)
    print(f"{run.name}: {result.steps} steps, {result.seconds:.0f} s, SRE {result.measure:.2f} mm")
    return result.finished


def _simulated(folder: Path, times: int) -> list[Bank]:
    seeds = [seed + 100 * number for number in range(times) for seed in SIMULATED]
    return [_kept(folder / f"train-{seed}.bank", PAIRS, seed) for seed in seeds]


def _kept(path: Path, count: int, seed: int) -> Bank:
    if not path.is_file():
        bank_from_simulation(count, seed, STAGE).save(path)
    return Bank.load(path)


if __name__ == "__main__":
    sys.exit(main())
