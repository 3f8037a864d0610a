"""Whole-process time and peak memory of `crossalign fuse` on a simulated 160 x 192 x 160 head, by method.

    python -m benchmarks.bench_fuse [--runs 3] [--threads 2]

Start of Python, reading and writing included. The methods take turns in one run; times are ratios to the wavelets'.
Each has to stay under 30 s on two free cores, and under 2 GiB.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import measuring, rows

SHAPE, SPACING_MM, SEED = (160, 192, 160), 1.0, 7
METHODS = ("unrolled-geometric", "dcfb-compact", "wavelet")
MOST_S, MOST_MIB = 30.0, 2048.0  # goals


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each method, after one warm-up")
    parser.add_argument("--threads", type=int, default=2, help="threads of the computation")
    measuring.with_rows(parser)
    parser.add_argument("--write-pair", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write_pair:
        write_pair(given.write_pair)
        return
    with tempfile.TemporaryDirectory() as name:
        measured = measure(Path(name), 1 if given.quick else given.runs, given.threads)
    print(f"fuse, {SHAPE} voxels (z, y, x), {given.threads} threads, {given.runs} runs each, median (whole process)")
    base = statistics.median(wall for wall, _, _ in measured["wavelet"])
    print(f"{'method':16}{'seconds':>9}{'to wavelet':>12}{'CPU s':>8}{'peak MiB':>10}")
    for method, values in measured.items():
        wall, processor = (statistics.median(value[k] for value in values) for k in (0, 1))
        peak = max(value[2] for value in values)
        print(f"{method:16}{wall:9.2f}{wall / base:12.2f}{processor:8.2f}{peak:10.0f}")
    rows.written(given.rows, [row(method, measured) for method in METHODS[:-1]])


def row(method: str, measured: dict[str, list[tuple[float, float, float]]]) -> rows.Row:
    """Make the row of a method beside the wavelets."""
    own, wavelet = measured[method], measured["wavelet"]
    wall, base = (statistics.median(one[0] for one in values) for values in (own, wavelet))
    peak = max(one[2] for one in own)
    ratio = measuring.spread([one[0] / other[0] for one, other in zip(own, wavelet, strict=True)])
    what, here = f"`crossalign fuse`, {method}, {SHAPE} voxels", f"{wall:.1f} s, {peak:.0f} MiB"
    met = wall <= MOST_S and peak <= MOST_MIB
    return rows.Row(what, f"wavelet, {base:.1f} s", here, ratio, f"{MOST_S:g} s and {MOST_MIB / 1024:g} GiB", met)


def measure(folder: Path, runs: int, threads: int) -> dict[str, list[tuple[float, float, float]]]:
    """Run the methods in turn after a warm-up of each (none where `runs` is 1).

    The pair is written by another process: a child's peak memory starts from its parent's, so this one stays small.
    """
    subprocess.run([sys.executable, "-m", "benchmarks.bench_fuse", "--write-pair", str(folder)], check=True)
    measured: dict[str, list[tuple[float, float, float]]] = {method: [] for method in METHODS}
    for number in range(runs + (runs > 1)):
        for method, values in measured.items():
            value = fuse(folder, method, threads)
            if number or runs == 1:
                values.append(value)
    return measured


def write_pair(folder: Path) -> None:
    """Write an MRI and a PET of ellipsoids and noise: what is in the voxels does not change the time."""
    import torch

    from crossalign.geometry import Grid
    from crossalign.images import Image, write_image

    generator = torch.Generator().manual_seed(SEED)
    axes = torch.meshgrid(*(torch.linspace(-1.2, 1.2, n) for n in SHAPE), indexing="ij")
    radius = torch.stack(axes).square().sum(0).sqrt()
    grid = Grid.centered((0.0, 0.0, 0.0), SHAPE, (SPACING_MM,) * 3)
    for name, edges in (("mri", (1.0, 0.9, 0.6)), ("pet", (0.95, 0.8, 0.5))):
        head = torch.stack([radius < edge for edge in edges]).float().sum(0)
        noisy = head + 0.1 * torch.rand(SHAPE, generator=generator)
        write_image(Image(noisy, grid), folder / f"{name}.nii.gz")


def fuse(folder: Path, method: str, threads: int) -> measuring.Cost:
    """Run the command in a process of its own; return its wall and CPU seconds and its peak memory (MiB)."""
    words = ["-m", "crossalign", "fuse", str(folder / "mri.nii.gz"), str(folder / "pet.nii.gz")]
    words += ["--method", method, "-o", str(folder / "fused.nii.gz"), "--overwrite", "--device", "cpu"]
    return measuring.process_cost(words, threads)


if __name__ == "__main__":
    main()
