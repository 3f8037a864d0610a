"""What each part of the simulator, of the augmentation and of the network brings on real pairs that none of them saw.

    python studies/simulation_ablation.py MANIFEST -o FOLDER [--orientation-correction 270] [--seeds 0,1] [--rows NAMES]

Each row is one change. It simulates its own pairs, trains a network from scratch on them alone, and is measured on the
manifest's train and val splits, of which no network sees anything in training; the weights after the last step count,
so nothing is selected. One pass from initialisations of 0 to 20 mm. Every run goes on where it was cut off, and rows
that are done are not repeated. Writes `ablation.csv` (a line for each row and seed) and prints the table of means.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pandas as pd
import torch

from crossalign.data import load_case, read_manifest
from crossalign.errors import CrossalignError, InputError
from crossalign.models import StageSettings, load_stage
from crossalign.models.extractors import load_extractors
from crossalign.output import whole_file
from crossalign.simulation import SimulationSettings, UltrasoundSettings
from crossalign.training import STRONG_AUGMENTATION, Augmentation, PairDataset, TrainingSettings
from crossalign.training.dataset import rotated
from crossalign.training.engine import run_task
from crossalign.training.preparation import dataset_from_cases, dataset_from_simulation
from crossalign.training.pretraining_settings import PretrainingSettings
from crossalign.training.sampling import validation_batches
from crossalign.training.schedule import step_seed
from crossalign.training.tasks.pretraining import PretrainingTask, pretrained_network
from crossalign.training.tasks.registration import RegistrationTask, correction_error_mm

INITIALISATIONS = {"train": 2, "val": 5}  # for each pair
OWN_PAIRS = 24  # simulated as the row's, to validate on
COLUMNS = ("row", "seed", "initial_mm", "own_mm", "train_mm", "val_mm", "seconds")
Change = Callable[[SimulationSettings], SimulationSettings]


@dataclass(frozen=True)
class Ablation:
    """One change of the full recipe, and its name in the table."""

    title: str
    simulation: Change = field(default=lambda settings: settings)
    network: str = "correspondence"
    loss: Literal["auto", "sre"] = "auto"
    augmentation: Augmentation = STRONG_AUGMENTATION
    pretrain_steps: int = 0


def _anatomy(**changes: object) -> Change:
    return lambda settings: replace(settings, anatomy=replace(settings.anatomy, **changes))  # type: ignore[arg-type]


def _mr(**changes: object) -> Change:
    return lambda settings: replace(settings, mr=replace(settings.mr, **changes))  # type: ignore[arg-type]


def _us(**changes: object) -> Change:
    return lambda settings: replace(settings, ultrasound=replace(settings.ultrasound, **changes))  # type: ignore[arg-type]


def _rigid(settings: SimulationSettings) -> SimulationSettings:
    return replace(settings, deformation=replace(settings.deformation, enabled=False))


NONE = (0.0, 0.0)
# With brightness that depends on the gland's height, which is off by default (docs/lab/experiments.md).
BASE = SimulationSettings(ultrasound=UltrasoundSettings(brighter_near=(0.6, 1.8), darker_far=(0.0, 0.2)))
ROWS = {
    "full": Ablation("as it is"),
    "rigid": Ablation("no deformation between the scans", _rigid),
    "bare": Ablation("nothing around the gland", _anatomy(surroundings=False)),
    "plain-gland": Ablation(
        "nothing in the gland but its zones",
        _anatomy(nodules=False, lesions=False, cysts=False, calcifications=False),
    ),
    "round-gland": Ablation(
        "glands without taper, hollow or lean",
        _anatomy(taper_x=NONE, taper_y=NONE, barrel=NONE, hollow=NONE, lean=NONE),
    ),
    "clean-mr": Ablation("MR without texture, bias field and noise", _mr(texture=NONE, bias=NONE, noise=NONE)),
    "clean-us": Ablation(
        "ultrasound without speckle, texture, reflections, attenuation",
        _us(speckle=NONE, texture=NONE, reflection=NONE, attenuation_per_mm=NONE),
    ),
    "even-us": Ablation(
        "ultrasound without shadows, missing planes, sweep, focus and shading at the sides",
        _us(shadows=False, gap_fraction=0.0, sweep=NONE, focus=NONE, lateral_shading=NONE),
    ),
    "same-us": Ablation(
        "ultrasound as bright above and below the gland as at its height", _us(brighter_near=NONE, darker_far=NONE)
    ),
    "whole-us": Ablation("ultrasound without sector and imaged box", _us(sector=False, crop=False)),
    "mild": Ablation("ordinary augmentation", augmentation=Augmentation()),
    "fc": Ablation("six numbers from flattened tokens", network="correspondence-fc"),
    "sre": Ablation("loss: SRE alone", loss="sre"),
    "plain": Ablation("no attention between the images", network="correspondence-plain"),
    "short": Ablation("one round of attention for two", network="correspondence-short"),
    "deep": Ablation("four rounds", network="correspondence-deep"),
    "pretrained": Ablation("extractors pre-trained by contrast on the same pairs, 100 steps", pretrain_steps=100),
}


def main() -> int:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--orientation-correction", type=int, default=0, choices=(0, 90, 180, 270))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=400, help="simulated for each row")
    given = parser.parse_args()
    try:
        if unknown := [name for name in given.rows.split(",") if name not in ROWS]:
            raise InputError(f"there are no rows called {', '.join(unknown)}: there are {', '.join(ROWS)}")
        given.output.mkdir(parents=True, exist_ok=True)
        path = given.output / "ablation.csv"
        real = {split: _real(given, split) for split in INITIALISATIONS}
        for seed in map(int, given.seeds.split(",")):
            for name in given.rows.split(","):
                done = read_rows(path)
                if not ((done["row"] == name) & (done["seed"] == seed)).any():
                    found = measured(name, seed, real, given)
                    with whole_file(path, overwrite=True) as partial:
                        pd.concat([done, pd.DataFrame([found])]).to_csv(partial, index=False, float_format="%.3f")
                    print(found, flush=True)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(table(read_rows(path))))
    return 0


def measured(name: str, seed: int, real: dict[str, PairDataset], given: argparse.Namespace) -> dict[str, object]:
    """Train one row from one seed and measure it."""
    row, folder = ROWS[name], given.output / f"{name}-{seed}"
    folder.mkdir(exist_ok=True)
    stage = StageSettings(row.network)
    settings = TrainingSettings(
        stage,
        given.steps,
        loss=row.loss,
        val_every=given.steps,
        ema_decay=0.98,
        seed=seed,
        augmentation=row.augmentation,
    )
    pairs, own = (simulated(row, seed, count, given.output) for count in (given.pairs, OWN_PAIRS))
    initial = None
    if row.pretrain_steps:
        before = PretrainingSettings(stage, row.pretrain_steps, val_every=row.pretrain_steps, seed=seed)
        made = run_task(PretrainingTask(pairs, own, before), folder / "pretrain")
        weights = load_extractors(made.best)
        settings = replace(settings, pretrained=weights.digest())
        initial = pretrained_network(weights, stage, seed)
    result = run_task(RegistrationTask(pairs, own, settings, initial), folder / "train")
    network = load_stage(result.best).network.eval()
    errors = {split: measure(network, stage, dataset, INITIALISATIONS[split], seed) for split, dataset in real.items()}
    values = (errors["val"][0], result.measure, errors["train"][1], errors["val"][1], result.seconds)
    return dict(zip(COLUMNS, (name, seed, *values), strict=True))


def simulated(row: Ablation, seed: int, count: int, folder: Path) -> PairDataset:
    """Simulate a row's pairs; those of the whole simulator, which many rows share, are kept in a file."""
    settings = row.simulation(BASE)
    path = folder / f"simulated-{seed}-{count}.safetensors"
    if settings == BASE and path.is_file():
        return PairDataset.load(path)
    drawn = 2 * seed + 1000 + int(count == OWN_PAIRS)
    dataset = dataset_from_simulation(count, drawn, StageSettings("correspondence"), settings=settings)
    if settings == BASE:
        dataset.save(path)
    return dataset


@torch.no_grad()
def measure(
    network: torch.nn.Module, stage: StageSettings, dataset: PairDataset, count: int, seed: int
) -> tuple[float, float]:
    """Return the mean SRE, mm, of `count` initialisations of each case and after one pass."""
    before, after = [], []
    for batch in validation_batches(dataset, stage, (0.0, 20.0), count, step_seed(seed)):
        found = network(batch.fixed, batch.moving)
        before.append(correction_error_mm(torch.zeros_like(found), batch))
        after.append(correction_error_mm(found, batch))
    return float(torch.cat(before).mean()), float(torch.cat(after).mean())


def table(rows: pd.DataFrame) -> list[str]:
    """Format the means over seeds, and how far each row lies from the first."""
    lines = ["| change | seeds | own pairs | real, train split | real, val | mean of both, to 'as it is' |"]
    lines += ["|---|---|---|---|---|---|"]
    base: float | None = None
    for name, row in ROWS.items():
        found = rows[rows["row"] == name]
        if found.empty:
            continue
        means = found[["own_mm", "train_mm", "val_mm"]].mean()
        both = float(means[["train_mm", "val_mm"]].mean())
        base = both if name == "full" else base
        apart = "" if base is None or name == "full" else f"{both - base:+.2f}"
        figures = " | ".join(f"{value:.2f}" for value in means)
        lines.append(f"| {row.title} | {len(found)} | {figures} | {apart} |")
    return lines


def read_rows(path: Path) -> pd.DataFrame:
    """Read what is done so far."""
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(COLUMNS))


def _real(given: argparse.Namespace, split: str) -> PairDataset:
    path = given.output / f"real-{split}.safetensors"
    if not path.is_file():
        cases = read_manifest(given.manifest, split)
        dataset = dataset_from_cases((load_case(case) for case in cases), StageSettings("correspondence"))
        rotated(dataset, given.orientation_correction // 90).save(path)
    return PairDataset.load(path)


if __name__ == "__main__":
    sys.exit(main())
