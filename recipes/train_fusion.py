"""How `dcfb-compact` and its 2-D twin were trained: on T1 and FDG-PET of sarcoma patients, and on simulated heads.

    python recipes/train_fusion.py STS_FOLDER -o FOLDER [--network dcfb-compact] [--steps 120] [--minutes 10]
    python recipes/train_fusion.py STS_FOLDER -o FOLDER --network dcfb-compact-2d
    python recipes/train_fusion.py STS_FOLDER -o FOLDER --supervised

STS_FOLDER holds the soft-tissue sarcoma set (CC BY 3.0) with its `cases.csv`. Its `train` patients are trained on, but
for HELD_OUT, which the best weights are chosen by; its `val` patients are not read. The heads are simulated from the
MNI152 template that nilearn carries. No outline of a tumour is read, but for `--supervised`: the variant
`dcfb-compact-supervised`, for comparison, whose loss also asks that a patient's tumour be brighter than what is around
it. `--without` trains an ablation, without the attention or without the offsets. A learning curve goes beside the
weights. Every step is resumable: call it again until it says that it is done.
"""

import argparse
import csv
import math
import sys
import time
from pathlib import Path
from typing import Any

from crossalign.cli.checks import pick_device
from crossalign.errors import CrossalignError
from crossalign.fusion.networks.model_files import FusionModel, load_fusion_model, save_fusion_model
from crossalign.fusion.networks.settings import CompactSettings, FusionStageSettings
from crossalign.fusion.simulation.anatomy import mni152_maps
from crossalign.fusion.training.dataset import FusionDataset
from crossalign.fusion.training.preparation import fusion_dataset_from_simulation, fusion_datasets_from_manifest
from crossalign.fusion.training.settings import FusionTrainingSettings
from crossalign.fusion.training.task import FusionTask
from crossalign.training.engine import run_task
from crossalign.training.run_folder import read_history

HELD_OUT = ("sts004", "sts022", "sts035", "sts048")
HEADS, VAL_HEADS, HEAD_SHAPE, HEAD_SEED = 24, 4, (80, 96, 96), 11
REPEATS = 2  # of a patient for each head
STEPS, RATE, PATCH, PLANES = 120, 2e-3, 48, 32
SALIENCE_WEIGHT, QABF_WEIGHTS, INVENTED_GRADIENT_WEIGHT = 2.0, (0.3, 0.6), 0.3
OUTLINE_WEIGHT = 2.0  # of the supervised variant
VAL_EVERY = 20
PARTS = ("attention", "offsets")


def main() -> int:
    """Run what is left of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sts", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--network", choices=("dcfb-compact", "dcfb-compact-2d"), default="dcfb-compact")
    parser.add_argument("--without", choices=PARTS)
    parser.add_argument("--supervised", action="store_true", help="train on the tumours' outlines too")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--salience", type=float, default=SALIENCE_WEIGHT)
    parser.add_argument("--qabf", type=float, nargs=2, default=QABF_WEIGHTS, help="balanced, and for detail")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--baseline", type=float, default=0.0, help="weight of what SSIM lacks of the average's")
    parser.add_argument("--limit-gradient", action="store_true", help="keep it from growing on its way")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    deadline = time.monotonic() + given.minutes * 60
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        device = pick_device(given.device)
        train, val = datasets(given.sts, given.output, given.supervised)
        task = FusionTask(train.to(device), val.to(device), settings_of_run(given))
        name = name_of_run(given)
        result = run_task(task, given.output / name, (deadline - time.monotonic()) / 60, report)
        print(f"{result.steps} steps, {result.seconds:.0f} s, loss {result.measure:.4f} at step {result.best_step}")
        print(f"the plain average's is {result.baseline:.4f}")
        if not result.finished:
            print("stopped; the same command goes on from here")
            return 0
        draw_curve(given.output / name, result.baseline, given.output / f"{name}.svg")
        best = load_fusion_model(result.best)
        half = FusionModel(best.network.half(), best.settings, best.notes, best.card)
        save_fusion_model(half, given.output / f"{name}.safetensors", overwrite=True)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    print("done")
    return 0


def name_of_run(given: argparse.Namespace) -> str:
    """Return the name of the weights: the network's, and in what it differs."""
    without = "" if given.without is None else f"-without-{given.without}"
    return f"{given.network}{without}{'-supervised' if given.supervised else ''}"


def settings_of_run(given: argparse.Namespace) -> FusionTrainingSettings:
    """Return how the network is trained."""
    parts: dict[str, Any] = {} if given.without is None else {given.without: False}
    return FusionTrainingSettings(
        FusionStageSettings(given.network, CompactSettings(**parts)),
        steps=given.steps,
        patch=PATCH,
        planes=PLANES,
        rate=given.rate,
        salience_weight=given.salience,
        outline_weight=OUTLINE_WEIGHT if given.supervised else 0.0,
        qabf_weights=tuple(given.qabf),
        invented_gradient_weight=INVENTED_GRADIENT_WEIGHT,
        limit_gradient=given.limit_gradient,
        baseline_weight=given.baseline,
        lesion_weight=0.0,
        val_every=VAL_EVERY,
        seed=given.seed,
    )


def datasets(sts: Path, folder: Path, outlined: bool) -> tuple[FusionDataset, FusionDataset]:
    """Load the pairs to train on and to validate on; made at the first call; where `outlined`, with the tumours."""
    suffix = "-outlined" if outlined else ""
    paths = folder / f"train{suffix}.safetensors", folder / f"val{suffix}.safetensors"
    if not all(path.is_file() for path in paths):
        manifest = folder / f"pairs{suffix}.csv"
        write_manifest(sts, manifest, outlined)
        for dataset, count, number, path in zip(
            fusion_datasets_from_manifest(manifest, outlined), (HEADS, VAL_HEADS), (0, 1), paths, strict=True
        ):
            heads = fusion_dataset_from_simulation(count, HEAD_SEED + number, mni152_maps(), shape=HEAD_SHAPE)
            outlines = (*dataset.outlines, *[None] * count) if outlined else ()
            FusionDataset(dataset.mri + heads.mri, dataset.pet + heads.pet, outlines).save(path, overwrite=True)
    train, val = (FusionDataset.load(path) for path in paths)
    mri, pet = (volumes[:-HEADS] * REPEATS + volumes[-HEADS:] for volumes in (train.mri, train.pet))
    return FusionDataset(mri, pet, train.outlines[:-HEADS] * REPEATS + train.outlines[-HEADS:]), val


def write_manifest(sts: Path, manifest: Path, outlined: bool) -> None:
    """List the set's `train` patients, where `outlined` with the tumours on the T1; those held out are validated on."""
    with (sts / "cases.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "train"]
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("case", "mri", "pet", "mask", "split"))
        for row in rows:
            split = "val" if row["case"] in HELD_OUT else "train"
            mask = (sts / row["t1_mass"]).resolve() if outlined else ""
            writer.writerow((row["case"], (sts / row["t1"]).resolve(), (sts / row["pet"]).resolve(), mask, split))


def draw_curve(run: Path, baseline: float, path: Path) -> None:
    """Draw the validation loss of a run by step, and the plain average's."""
    from matplotlib import pyplot as plt

    rows = read_history(run / "history.csv")
    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    axes.plot([row["step"] for row in rows], [row["val_loss"] for row in rows], marker="o", label=run.name)
    axes.axhline(baseline, color="grey", linestyle="--", label="average")
    axes.set(xlabel="step", ylabel="validation loss")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def report(row: dict[str, float]) -> None:
    """Print a validation."""
    if "val_loss" in row:
        print(f"step {row['step']:.0f}: loss {row['val_loss']:.4f}, {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
