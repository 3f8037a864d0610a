"""How the recognition network was trained: which of 24 orientations an ultrasound has, or that the scans are others.

    python recipes/train_orientation.py OPEN_MANIFEST STS_FOLDER SIMULATED_FOLDER -o FOLDER [--minutes 10] [--steps 500]

OPEN_MANIFEST lists the eight MR-ultrasound pairs of learn2reg/tutorials2019 (`weakly/data`, Apache-2.0), all `train`;
their headers are wrong by a quarter turn. STS_FOLDER holds the T1, PET and CT of the soft-tissue sarcoma set (CC BY
3.0) with its `cases.csv`, of which the `train` cases serve as scans that show something else. SIMULATED_FOLDER is the
one that recipes/train_shipped.py kept its simulated pairs in. Every step is resumable: call it again until it says
that it is done.
"""

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from crossalign.cli.checks import pick_device
from crossalign.data import load_case, read_manifest
from crossalign.errors import CrossalignError
from crossalign.geometry import Grid
from crossalign.images import read_image
from crossalign.images.preprocessing import preprocess
from crossalign.models import StageSettings
from crossalign.models.recognition import load_recognition, save_recognition
from crossalign.simulation import simulate_shapes
from crossalign.training.dataset import PairDataset, joined, rotated
from crossalign.training.engine import run_task
from crossalign.training.pair_synthesis import PairSynthesis
from crossalign.training.preparation import dataset_from_cases
from crossalign.training.tasks.recognition import RecognitionTask, RecognitionTrainingSettings

STAGE = StageSettings("correspondence", (24, 24, 24), 3.6, 3.0)  # scans are read about 138 mm wide
SIMULATED = {"simulated": 900, "simulated-other": 600}  # the first pairs of these datasets, of 1.5 mm
SIZE = 40  # voxels of all of them on a side, of 3 mm
SYNTHESISED, QUARTERS = 600, 3  # 270 degrees about z correct the open headers
SHAPES, STS_CUBES, NOISES, CUBE = 40, 2, 20, 44  # volumes of other things, and their size in voxels
VAL_PART = 20  # one of so many is kept to validate on


def main() -> int:
    """Run what is left of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("sts", type=Path)
    parser.add_argument("simulated", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=RecognitionTrainingSettings.steps)
    given = parser.parse_args()
    deadline = time.monotonic() + given.minutes * 60
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        device = pick_device(given.device)
        train, val, others = _data(given)
        settings = RecognitionTrainingSettings(steps=given.steps)
        task = RecognitionTask(train.to(device), val.to(device), others, settings)
        result = run_task(task, given.output / "recognition", (deadline - time.monotonic()) / 60)
        print(f"{result.steps} steps, {result.seconds:.0f} s, loss {result.measure:.3f} at step {result.best_step}")
        if not result.finished:
            print("stopped; the same command goes on from here")
            return 0
        network, found = load_recognition(result.best)
        save_recognition(network.half(), found, given.output / "orientation.safetensors", overwrite=True)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    print("done")
    return 0


def _data(given: argparse.Namespace) -> tuple[PairDataset, PairDataset, tuple[Tensor, Tensor]]:
    """Load the pairs to train on and to validate on, and the volumes of other things; made at the first call."""
    path, others = given.output / "pairs.safetensors", given.output / "others.pt"
    if not path.is_file():
        parts = [_simulated(given.simulated / f"{name}-train.safetensors", count) for name, count in SIMULATED.items()]
        joined([*parts, _synthesised(given.manifest)]).save(path)
    if not others.is_file():
        torch.save(torch.cat(list(_others(given.sts))).half(), others)
    pairs, volumes = PairDataset.load(path), torch.load(others)
    return *_split(pairs), (_train_part(volumes), volumes[::VAL_PART])


def _simulated(path: Path, count: int) -> PairDataset:
    """Read the first pairs of a dataset in voxels of twice the size: SIZE of them along each axis."""
    tensors = {}
    with safe_open(path, "pt") as file:
        for name in sorted(set(file.keys()) - {"fixed_box_mm", "moving_box_mm", "spacing_mm"}):
            part = file.get_slice(name)
            tensors[name] = torch.cat([_coarser(part[number : number + 1]) for number in range(count)])
        spacing_mm = file.get_tensor("spacing_mm")
    for name in ("fixed_origin_mm", "moving_origin_mm"):
        tensors[name] = tensors[name] + spacing_mm / 2  # the middle of the first eight voxels
    return PairDataset(**tensors, spacing_mm=spacing_mm * 2)


def _coarser(values: Tensor) -> Tensor:
    if values.dim() < 5:
        return values
    whole = values[..., : 2 * SIZE, : 2 * SIZE, : 2 * SIZE].float()
    return F.avg_pool3d(whole, 2).half()


def _split(pairs: PairDataset) -> tuple[PairDataset, PairDataset]:
    number = torch.arange(len(pairs))
    return pairs.take(number[number % VAL_PART > 0]), pairs.take(number[::VAL_PART])


def _train_part(volumes: Tensor) -> Tensor:
    return volumes[torch.arange(len(volumes)) % VAL_PART > 0]


def _synthesised(manifest: Path) -> PairDataset:
    cases = read_manifest(manifest, "train")
    dataset = rotated(dataset_from_cases((load_case(case) for case in cases), STAGE), QUARTERS)
    grid = Grid.centered((0.0, 0.0, 0.0), (SIZE,) * 3, (STAGE.working_spacing_mm,) * 3)
    return PairSynthesis(dataset).draw(SYNTHESISED, torch.Generator().manual_seed(3), grid)


def _others(sts: Path) -> Iterator[Tensor]:
    """Yield volumes (n, 1, s, s, s) in [0, 1] at the working spacing that show no prostate."""
    generator, step = torch.Generator().manual_seed(5), STAGE.working_spacing_mm
    for _ in range(SHAPES // 8):
        pairs = simulate_shapes(8, generator, shape=(CUBE,) * 3, spacing_mm=step)
        yield pairs.fixed
        yield pairs.moving
    with (sts / "cases.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "train"]
    for row in rows:
        for kind in ("t1", "pet", "ct"):
            voxels = preprocess(read_image(sts / row[kind]), step).voxels
            for _ in range(STS_CUBES):
                yield _random_cube(voxels, generator)
    for size in torch.linspace(3, CUBE, NOISES).long().tolist():
        noise = torch.rand(1, 1, size, size, size, generator=generator)
        yield F.interpolate(noise, size=(CUBE,) * 3, mode="trilinear", align_corners=True)
    for value in (0.0, 0.2, 0.5, 0.9):
        yield torch.full((1, 1, CUBE, CUBE, CUBE), value)


def _random_cube(voxels: Tensor, generator: torch.Generator) -> Tensor:
    """Cut a cube out of a scan (z, y, x) about a random voxel, 0 beyond the scan."""
    padded = F.pad(voxels, (CUBE // 2,) * 6)
    starts = [int(torch.randint(max(1, size - 8), (1,), generator=generator)) for size in voxels.shape]
    parts = [slice(start, start + CUBE) for start in starts]
    cube = padded[parts[0], parts[1], parts[2]]
    missing = [CUBE - size for size in cube.shape[::-1]]
    return F.pad(cube, [0, missing[0], 0, missing[1], 0, missing[2]])[None, None]


if __name__ == "__main__":
    sys.exit(main())
