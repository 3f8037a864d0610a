"""How the shipped registration networks were trained: on simulated pairs and on pairs synthesised from open ones.

    python recipes/train_shipped.py OPEN_MANIFEST -o FOLDER [--minutes 10] [--device auto] [--times 1] [--runs NAMES]

OPEN_MANIFEST lists the eight MR-ultrasound pairs of learn2reg/tutorials2019 (`weakly/data`, Apache-2.0), all `train`;
their headers are wrong by a quarter turn. Every step is resumable: call it again until it says that it is done. The
pairs are made once and kept in FOLDER; then everything stays on the device. `--times 10` takes ten times the steps and
simulated pairs, for a GPU. `--runs` names some of the runs. The files that it writes are the stages that
recipes/models/*.json name; `python recipes/convert_stage_files.py recipes/models/correspondence-*.json -i FOLDER` makes
the shipped files of them.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from crossalign.cli.checks import pick_device
from crossalign.data import load_case, read_manifest
from crossalign.data.case import LoadedCase
from crossalign.errors import CrossalignError, InputError
from crossalign.geometry import quarter_turn
from crossalign.models import Stage, StageSettings, load_stage, save_stage
from crossalign.models.extractors import PretrainedExtractors, load_extractors
from crossalign.models.stage_settings import FixedInput
from crossalign.registration.iterative.surface import SurfaceRegistration
from crossalign.registration.pose_prior import TRANSRECTAL
from crossalign.registration.problem import Problem
from crossalign.simulation import SimulationSettings
from crossalign.simulation.settings import UltrasoundSettings
from crossalign.training import STRONG_AUGMENTATION, PairDataset, TrainingSettings
from crossalign.training.dataset import joined, rotated
from crossalign.training.engine import run_task
from crossalign.training.pair_synthesis import PairSynthesis
from crossalign.training.preparation import dataset_from_cases, dataset_from_simulation, preprocessed_grid
from crossalign.training.pretraining_settings import PretrainingSettings
from crossalign.training.schedule import cosine_rate
from crossalign.training.settings import ErrorHeadSettings
from crossalign.training.task import Plan
from crossalign.training.tasks.error_estimation import train_error_head
from crossalign.training.tasks.pretraining import PretrainingTask, pretrained_network
from crossalign.training.tasks.registration import RegistrationTask

STAGE = StageSettings("correspondence")
PAIRS = {
    "simulated": 2400,
    "simulated-other": 1600,
    "simulated-mixed": 1600,
    "simulated-scanner": 800,
    "simulated-view": 1600,
}
VAL_PAIRS = 48  # 2,400 pairs take 10 GB
# The ultrasound's field of view lies anywhere about the prostate and is of any size, so that its ends tell nothing.
FREE_VIEW = SimulationSettings(
    ultrasound=UltrasoundSettings(
        half_angle_deg=(36.0, 80.0),
        box_width_mm=(76.0, 120.0),
        box_depth_mm=(60.0, 100.0),
        box_length_mm=(60.0, 110.0),
        along_mm=(-16.0, 16.0),
        side_mm=(-6.0, 6.0),
    )
)
SCANNER_VIEW = SimulationSettings()  # fields of view as those of one scanner


def _ends_vary(settings: SimulationSettings, brighter: float, darker: float) -> SimulationSettings:
    """Vary the brightness above and below the prostate too, as real scans do in part."""
    varied = replace(settings.ultrasound, brighter_near=(0.0, brighter), darker_far=(0.0, darker))
    return replace(settings, ultrasound=varied)


# Simulators by name; the pairs of several are equally many.
SIMULATORS = {
    "simulated": (FREE_VIEW,),
    "simulated-other": (_ends_vary(FREE_VIEW, 1.8, 0.2),),
    "simulated-mixed": (_ends_vary(FREE_VIEW, 0.9, 0.1), _ends_vary(SCANNER_VIEW, 0.9, 0.1)),
    "simulated-scanner": (_ends_vary(SCANNER_VIEW, 0.9, 0.1),),  # the second half of those
    "simulated-view": (SCANNER_VIEW,),
}
SEEDS = {
    "simulated": 40,
    "simulated-other": 60,
    "simulated-mixed": 100,
    "simulated-scanner": 102,
    "simulated-view": 140,
}  # of the training pairs; those to validate on have the next one
SYNTHESISED, SYNTHESISED_PAIRS, QUARTERS = "synthesised", 400, 3  # 270 degrees about z correct the headers
PRETRAINING_STEPS = 100


@dataclass(frozen=True)
class Run:
    """One training: its initial weights, its pairs, its schedule; `stopped` of `steps` are done.

    The weights of a run that is `averaged_with` another are the mean of both runs'.
    """

    name: str
    initial: str
    pairs: str
    fixed_input: FixedInput
    steps: int
    stopped: int
    rate: float
    ema_decay: float
    seed: int
    val_every: int
    cut_mm: float = STRONG_AUGMENTATION.cut_mm
    averaged_with: str = ""


# The runs that end in -b go on from those that end in -a, on the second simulator's pairs; -c from -b, on the first's.
ROUNDS = tuple(
    run
    for letter, start, pairs, seed in (
        ("a", "", "simulated", 0),
        ("b", "zero-a", "simulated-other", 60),
        ("c", "zero-b", "simulated", 80),
    )
    for run in (
        Run(f"zero-{letter}", start, pairs, "image", 2000, 2000, 1e-3, 0.99, seed, 250),
        Run(f"few-{letter}", f"zero-{letter}", SYNTHESISED, "image", 160, 120, 5e-4, 0.97, seed, 40),
        Run(f"zero-label-{letter}", f"zero-{letter}", pairs, "label", 300, 300, 7e-4, 0.98, seed, 100),
        Run(f"few-label-{letter}", f"zero-label-{letter}", SYNTHESISED, "label", 160, 160, 7e-4, 0.97, seed, 40),
    )
)
# Fields of view are not cut where they are one scanner's, since those say where the prostate lies.
RUNS = (
    *ROUNDS,
    Run("zero-f", "zero-c", "simulated-mixed", "image", 2000, 750, 1e-3, 0.99, 180, 250, 0.0, averaged_with="zero-c"),
    Run("zero-view", "", "simulated-view", "image", 2000, 2000, 1e-3, 0.99, 140, 250, cut_mm=0.0),
)
# Not shipped (docs/lab/experiments.md), and trained where `--runs` names them.
CANDIDATES = (
    Run("zero-d", "zero-b", "simulated-mixed", "image", 2000, 750, 1e-3, 0.99, 100, 250, cut_mm=0.0),
    Run("zero-view-b", "zero-view", "simulated-mixed", "image", 2000, 750, 1e-3, 0.99, 160, 250, cut_mm=0.0),
    Run("zero-e", "zero-d", "simulated-scanner", "image", 400, 400, 7e-4, 0.98, 120, 100, cut_mm=0.0),
)


class StoppedTask(RegistrationTask):
    """A run whose schedule was made for more steps than it takes."""

    def __init__(
        self, scheduled: int, train: PairDataset, val: PairDataset, settings: TrainingSettings, initial: nn.Module
    ) -> None:
        super().__init__(train, val, settings, initial)
        self._scheduled = scheduled

    def plan(self) -> Plan:
        """Return the schedule's first part."""
        plan = super().plan()
        highest, fraction = self._settings.rate, self._settings.steps / self._scheduled
        return replace(plan, rate=lambda done: cosine_rate(highest, 1 / self._scheduled, done * fraction))


def main() -> int:
    """Run what is left of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--runs", default=",".join(run.name for run in RUNS), help="which, in this order")
    given = parser.parse_args()
    deadline = time.monotonic() + given.minutes * 60
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        device = pick_device(given.device)
        for run in _selected(given.runs):
            if not _train(run, given, device, (deadline - time.monotonic()) / 60):
                print("stopped; the same command goes on from here")
                return 0
            _finish(run, given, device)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    print("done")
    return 0


def _selected(names: str) -> list[Run]:
    known = {run.name: run for run in (*RUNS, *CANDIDATES)}
    if unknown := [name for name in names.split(",") if name not in known]:
        raise InputError(f"there are no runs called {', '.join(unknown)}: there are {', '.join(known)}")
    return [known[name] for name in names.split(",")]


def _train(run: Run, given: argparse.Namespace, device: torch.device, minutes: float) -> bool:
    """Train; no other real pairs may be used, so the weights kept are those that fit pairs made like these best."""
    folder, times = given.output, given.times
    settings = TrainingSettings(
        stage=replace(STAGE, fixed_input=run.fixed_input),
        steps=run.stopped * times,
        rate=run.rate,
        val_every=run.val_every * times,
        ema_decay=run.ema_decay,
        seed=run.seed,
        augmentation=replace(STRONG_AUGMENTATION, cut_mm=run.cut_mm),
    )
    train, val = _dataset(run.pairs, given).to(device), _dataset(run.pairs, given, val=True).to(device)
    if run.initial:
        initial = load_stage(folder / run.initial / "best.safetensors").network
    else:
        weights = _pretrained(run, given, train, val)
        settings = replace(settings, pretrained=weights.digest())
        initial = pretrained_network(weights, settings.stage, run.seed)
    task = StoppedTask(run.steps * times, train, val, settings, initial)
    result = run_task(task, folder / run.name, minutes)
    print(f"{run.name}: {result.steps} steps, {result.seconds:.0f} s, SRE {result.measure:.2f} mm", flush=True)
    return result.finished


def _pretrained(run: Run, given: argparse.Namespace, train: PairDataset, val: PairDataset) -> PretrainedExtractors:
    """Pre-train the extractors by contrast on the run's own pairs."""
    steps = PRETRAINING_STEPS * given.times
    settings = PretrainingSettings(
        STAGE, steps, val_every=steps, seed=run.seed, augmentation=STRONG_AUGMENTATION, ema_decay=0.97
    )
    return load_extractors(
        run_task(PretrainingTask(train, val, settings), given.output / f"{run.name}-pretraining").best
    )


def _finish(run: Run, given: argparse.Namespace, device: torch.device) -> None:
    """Train the error-estimation head, and write the file in half precision, as files are shipped."""
    path = given.output / f"{run.name}.safetensors"
    if path.is_file():
        return
    stage = load_stage(given.output / run.name / "best.safetensors", device)
    if run.averaged_with:
        _average(stage.network, load_stage(given.output / run.averaged_with / "best.safetensors", device).network)
    dataset = _dataset(run.pairs, given)
    dataset = joined([_dataset("simulated", given), dataset]) if run.pairs == SYNTHESISED else dataset
    train_error_head(stage, dataset.to(device), ErrorHeadSettings(seed=run.seed), STRONG_AUGMENTATION)
    save_stage(Stage(stage.network.half(), stage.settings, stage.notes), path)


@torch.no_grad()
def _average(network: nn.Module, other: nn.Module) -> None:
    """Replace weights by the mean of two networks'; integers, which count batches, stay."""
    others = other.state_dict()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.add_(others[name]).div_(2)


def _dataset(pairs: str, given: argparse.Namespace, val: bool = False) -> PairDataset:
    """Load pairs of one kind, to train or to validate on; made at the first call."""
    path = given.output / f"{pairs}-{'val' if val else 'train'}.safetensors"
    if not path.is_file():
        if pairs == SYNTHESISED:
            dataset = _synthesised(given.manifest, VAL_PAIRS if val else SYNTHESISED_PAIRS, 2 if val else 1)
        else:
            count = VAL_PAIRS if val else PAIRS[pairs] * given.times
            dataset = _simulated(pairs, count, SEEDS[pairs] + int(val))
        dataset.save(path)
    return PairDataset.load(path)


def _simulated(pairs: str, count: int, seed: int) -> PairDataset:
    """Simulate pairs, in equal parts by each of the simulators of this name."""
    simulators = SIMULATORS[pairs]
    parts = [
        dataset_from_simulation(count // len(simulators), seed + 2 * number, STAGE, settings=settings)
        for number, settings in enumerate(simulators)
    ]
    return parts[0] if len(parts) == 1 else joined(parts)


def _synthesised(manifest: Path, count: int, seed: int) -> PairDataset:
    cases = (_refitted(load_case(case)) for case in read_manifest(manifest, "train"))
    dataset = rotated(dataset_from_cases(cases, STAGE), QUARTERS)
    return PairSynthesis(dataset).draw(count, torch.Generator().manual_seed(seed), preprocessed_grid(STAGE))


def _refitted(case: LoadedCase) -> LoadedCase:
    """Register both glands anew: the open pairs' own references turn by up to 20 degrees from what a probe allows."""
    patient = quarter_turn(QUARTERS)
    problem = Problem(
        *(case.fixed, case.moving, case.fixed_to_moving, case.fixed_mask, case.moving_mask, TRANSRECTAL, patient)
    )
    return replace(case, fixed_to_moving=SurfaceRegistration().solve(problem).steps[-1].fixed_to_moving)


if __name__ == "__main__":
    sys.exit(main())
