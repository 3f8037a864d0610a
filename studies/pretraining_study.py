"""Does contrastive pre-training help? Val SRE with and without it, for fractions of the training patients.

    python studies/pretraining_study.py MANIFEST -o FOLDER [--steps 100] [--pretrain-steps 100] [--longer]

For each fraction and seed: one pre-training of Attention-Reg's extractors, one training that starts from them and one
that does not, all on the same patients (drawn by the seed), crop 24^3 at 3.33 mm. `--longer` adds both once more for as
many steps as pre-training and training take together. Every run goes on where it was cut off, and finished runs are not
repeated: call it again after an interruption. Writes `study.csv` (a row for each fraction and seed), `study.md` (the
tables) and the runs' folders. `--datasets TRAIN VAL` takes datasets prepared in the manifest's order.
"""

import argparse
import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from crossalign.data import read_manifest
from crossalign.errors import CrossalignError
from crossalign.evaluation.statistics import paired_p_values
from crossalign.models import StageSettings
from crossalign.models.extractors import load_extractors
from crossalign.output import whole_file
from crossalign.training import Augmentation, PairDataset, RegistrationTask, TrainingSettings, run_task
from crossalign.training.preparation import datasets_from_manifest, select_patients
from crossalign.training.pretraining_settings import PretrainingSettings
from crossalign.training.tasks.pretraining import PretrainingTask, pretrained_network

FRACTIONS, SEEDS = (0.25, 0.5, 1.0), (0, 1, 2)
PAIRS = (("with_mm", "without_mm"), ("with_mm", "longer_mm"), ("with_longer_mm", "longer_mm"))
STAGE = StageSettings("attention-reg", (24, 24, 24), 10 / 3)  # a small crop: 80 mm as elsewhere, coarser


@dataclass(frozen=True)
class Row:
    """One fraction and seed: val SRE (mm) without and with pre-training, and retrieval (fractions) around pre-training.

    `longer_mm` is without pre-training too, for as many steps as pre-training and training take, and `with_longer_mm`
    is for so many steps after pre-training; NaN where not run.
    """

    fraction: float
    seed: int
    patients: int
    pairs: int
    initial_mm: float
    without_mm: float
    with_mm: float
    longer_mm: float
    with_longer_mm: float
    top1_before: float
    top1: float
    top5: float
    chance1: float
    chance5: float
    other_case1: float
    features_top1_before: float
    features_top1: float


@dataclass(frozen=True)
class Study:
    """What is trained on, and for how long."""

    train: PairDataset
    val: PairDataset
    patients: list[str]
    folder: Path
    training: TrainingSettings
    pretraining: PretrainingSettings
    longer: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing of the study; write its tables after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="CSV of the cases, train and val")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the study; one cut off goes on")
    parser.add_argument("--datasets", type=Path, nargs=2, metavar=("TRAIN", "VAL"), help="prepared from the manifest")
    parser.add_argument("--steps", type=int, default=100, help="steps of each training")
    parser.add_argument("--pretrain-steps", type=int, default=100, help="steps of each pre-training")
    parser.add_argument("--mirror", default="y", help="axes that augmentation flips (y: see docs/lab/experiments.md)")
    parser.add_argument(
        "--longer", action="store_true", help="also train both for as many steps as the two take together"
    )
    given = parser.parse_args(arguments)
    try:
        run(prepare(given), given.output)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def prepare(given: argparse.Namespace) -> Study:
    """Read or make the datasets once, and make the settings."""
    given.output.mkdir(parents=True, exist_ok=True)
    paths = given.datasets or [given.output / f"dataset_{split}.safetensors" for split in ("train", "val")]
    if not all(path.is_file() for path in paths):
        for dataset, path in zip(datasets_from_manifest(given.manifest, STAGE), paths, strict=True):
            dataset.save(path, overwrite=True)
    train, val = (PairDataset.load(path) for path in paths)
    patients = [case.patient for case in read_manifest(given.manifest, "train")]
    varied = Augmentation(mirror=given.mirror)
    training = TrainingSettings(
        STAGE, given.steps, val_every=max(1, given.steps // 3), val_initialisations=3, augmentation=varied
    )
    pretraining = PretrainingSettings(
        STAGE, given.pretrain_steps, val_every=max(1, given.pretrain_steps // 3), augmentation=varied
    )
    return Study(train, val, patients, given.output, training, pretraining, given.longer)


def run(study: Study, folder: Path) -> None:
    """Go through seeds and fractions, seeds outermost, so that an unfinished study has whole rounds."""
    rows: list[Row] = []
    for seed in SEEDS:
        for fraction in FRACTIONS:
            rows.append(compare(study, fraction, seed))
            write(rows, folder)
            print(rows[-1], flush=True)


def compare(study: Study, fraction: float, seed: int) -> Row:
    """Pre-train, and train with and without, on one fraction of the patients."""
    torch.set_num_threads(1)
    selected = select_patients(study.patients, fraction, seed)
    train = study.train.take(torch.tensor(selected))
    folder = study.folder / f"seed{seed}-fraction{round(fraction * 100)}"
    folder.mkdir(exist_ok=True)
    before = replace(study.pretraining, seed=seed, patients=fraction)
    task = PretrainingTask(train, study.val, before)
    made = run_task(task, folder / "pretrain")
    weights = load_extractors(made.best)
    plain = replace(study.training, seed=seed, patients=fraction)
    started = replace(plain, pretrained=weights.digest())
    without = run_task(RegistrationTask(train, study.val, plain), folder / "without")
    network = pretrained_network(weights, STAGE, seed)
    along = run_task(RegistrationTask(train, study.val, started, network), folder / "with")
    longer = (math.nan, math.nan)
    if study.longer:
        plain, started = lengthened(plain, before.steps), lengthened(started, before.steps)
        longer = (
            run_task(RegistrationTask(train, study.val, plain), folder / "longer").measure,
            run_task(RegistrationTask(train, study.val, started, network), folder / "with-longer").measure,
        )
    untrained, trained = task.fresh_model().eval(), trained_network(task, folder / "pretrain")
    found, features = task.retrieval(trained), task.retrieval(trained, raw=True)
    return Row(
        fraction, seed, len({study.patients[number] for number in selected}), len(selected),
        without.baseline, without.measure, along.measure, *longer,
        task.untrained().top1, found.top1, found.top5, found.chance1, found.chance5, found.other_case1,
        task.retrieval(untrained, raw=True).top1, features.top1,
    )  # fmt: skip


def lengthened(plain: TrainingSettings, steps: int) -> TrainingSettings:
    """Return the settings for that many steps more, validated as often."""
    whole = plain.steps + steps
    return replace(plain, steps=whole, val_every=max(1, whole // 3))


def trained_network(task: PretrainingTask, folder: Path) -> nn.Module:
    """Return the averaged weights after a pre-training's last step, heads included, from its checkpoint."""
    model = task.fresh_model()
    tensors = load_file(folder / "last.safetensors")
    model.load_state_dict({name[8:]: value for name, value in tensors.items() if name.startswith("average/")})
    return model.eval()


def write(rows: list[Row], folder: Path) -> None:
    """Write the rows and the tables."""
    with whole_file(folder / "study.csv", overwrite=True) as partial, partial.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    with whole_file(folder / "study.md", overwrite=True) as partial:
        partial.write_text("\n".join([*sre_table(rows), "", *retrieval_table(rows), ""]), encoding="utf-8")


def sre_table(rows: list[Row]) -> list[str]:
    """Return the table of val SRE, mm: mean and sd over seeds of each pair of trainings, and their paired tests."""
    lines = [
        "| patients | n | initial, mm | trained | mm | against | mm | difference, mm | paired t, Wilcoxon p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups = [(f"{fraction:.0%}", [row for row in rows if row.fraction == fraction]) for fraction in FRACTIONS]
    for first, second in PAIRS:
        for name, group in [*groups, ("all", rows)]:
            initial, one, two = (
                np.array([getattr(row, key) for row in group]) for key in ("initial_mm", first, second)
            )
            if not group or np.isnan(one - two).any():
                continue
            words = [key.removesuffix("_mm").replace("_", ", ") for key in (first, second)]
            tests = ", ".join(f"{p:.3f}" for p in paired_p_values(one, two))
            cells = [name, str(len(group)), f"{initial.mean():.2f}", words[0], mean_sd(one), words[1], mean_sd(two)]
            lines.append(f"| {' | '.join([*cells, mean_sd(one - two), tests])} |")
    return lines


def retrieval_table(rows: list[Row]) -> list[str]:
    """Return the table of retrieval before and after, mean and sd over seeds, in %."""
    lines = [
        "| patients | top-1 before | after | another case | chance | top-5 after | chance | features before | after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    keys = ("top1_before", "top1", "other_case1", "chance1", "top5", "chance5", "features_top1_before", "features_top1")
    for fraction in FRACTIONS:
        group = [row for row in rows if row.fraction == fraction]
        if group:
            cells = [mean_sd(np.array([getattr(row, key) for row in group]) * 100, 1) for key in keys]
            lines.append(f"| {fraction:.0%} | {' | '.join(cells)} |")
    return lines


def mean_sd(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", digits: int = 2) -> str:
    """Write mean and sd."""
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) < 2 else f"{mean} +- {values.std(ddof=1):.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
