"""Whole-process time and peak memory of `crossalign register` on a simulated 96^3 pair: shipped network beside MI.

    python benchmarks/bench_register.py [--runs 3]

Start of Python, reading and writing included. Both methods take turns in one run; times are ratios to MI's.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPE, SPACING_MM, SEED = (96, 96, 96), 1.2, 7


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each method, after one warm-up")
    parser.add_argument("--write-pair", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write_pair:
        print(write_pair(given.write_pair))
        return
    with tempfile.TemporaryDirectory() as name:
        measured = measure(Path(name), given.runs)
    print(f"register, {SHAPE} voxels, {given.runs} runs each, median (wall seconds, whole process)")
    base = statistics.median(seconds for seconds, _ in measured["mi"])
    print(f"{'method':24}{'seconds':>9}{'to mi':>8}{'peak MiB':>10}")
    for method, values in measured.items():
        seconds = statistics.median(value for value, _ in values)
        peak = max(value for _, value in values)
        print(f"{method:24}{seconds:9.2f}{seconds / base:8.2f}{peak:10.0f}")


def measure(folder: Path, runs: int) -> dict[str, list[tuple[float, float]]]:
    """Run both methods in turn after a warm-up of each.

    The pair is written by another process: a child's peak memory starts from its parent's, so this one stays small.
    """
    words = [sys.executable, __file__, "--write-pair", str(folder)]
    shipped = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    measured: dict[str, list[tuple[float, float]]] = {method: [] for method in (shipped, "mi")}
    for number in range(runs + 1):
        for method, values in measured.items():
            value = register(folder, method)
            if number:
                values.append(value)
    return measured


def write_pair(folder: Path) -> str:
    """Write a simulated pair and an initial transform 12 mm off; return the default method's name."""
    import torch

    from crossalign.geometry import draw_perturbation
    from crossalign.images import Image, LabelMap, write_image, write_label_map, write_transform
    from crossalign.registration.methods import default_method_name
    from crossalign.simulation import simulate_pairs

    generator = torch.Generator().manual_seed(SEED)
    pairs = simulate_pairs(1, generator, shape=SHAPE, spacing_mm=SPACING_MM)
    gland = LabelMap(pairs.fixed_mask[0, 0].long(), pairs.fixed_grid)
    write_image(Image(pairs.fixed[0, 0], pairs.fixed_grid), folder / "mr.nii.gz")
    write_image(Image(pairs.moving[0, 0], pairs.moving_grid), folder / "us.nii.gz")
    write_label_map(gland, folder / "gland.nii.gz")
    surface = pairs.surface_mm.double()
    motion = draw_perturbation(surface, gland.centroid_mm()[None], torch.tensor([12.0]).double(), generator)
    write_transform(pairs.fixed_to_moving[0].to("cpu", torch.float64) @ motion[0], folder / "initial.tfm")
    return default_method_name(fixed_mask=True)


def register(folder: Path, method: str) -> tuple[float, float]:
    """Run the command in a process of its own; return its wall seconds and peak memory (MiB)."""
    words = [sys.executable, "-m", "crossalign", "register", str(folder / "mr.nii.gz"), str(folder / "us.nii.gz")]
    words += ["--initial", str(folder / "initial.tfm"), "--fixed-mask", str(folder / "gland.nii.gz")]
    words += ["--method", method, "--output-transform", str(folder / "out.tfm"), "--overwrite"]
    began = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    _, status, usage = os.wait4(os.posix_spawn(sys.executable, words, os.environ, file_actions=quiet), 0)
    if status:
        raise SystemExit(f"crossalign register failed with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
