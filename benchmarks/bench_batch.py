"""`crossalign batch` beside a shell loop of `crossalign register` on the same simulated cases: seconds and ratio.

    python -m benchmarks.bench_batch [--cases 4] [--runs 2]

Both read the same files and write the same outputs: transform, JSON record and page of each case. The batch runs in one
process (and in two, for comparison, where there are two cores). Whole processes are timed, in turn; the ratio is of the
medians, and "saves" is how much less time the batch takes. The batch exists to save 30 % of the loop.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import measuring, rows

SHAPE, SPACING_MM, SEED = (64, 64, 64), 1.5, 7
WANTED = 0.30


class Cost(NamedTuple):
    """Wall seconds, and seconds of all processors together, which other programs of the machine disturb less."""

    wall: float
    processor: float


def main() -> None:
    """Print the table; end with status 1 where the batch in one process saves less than is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--runs", type=int, default=2, help="counted runs of each way")
    measuring.with_rows(parser)
    parser.add_argument("--write-cases", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.cases = given.runs = 1
    if given.write_cases:
        write_cases(given.write_cases, given.cases)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [sys.executable, "-m", "benchmarks.bench_batch", "--write-cases", name, "--cases", str(given.cases)]
        subprocess.run(words, check=True)
        measured = measure(folder, given.cases, given.runs)
    medians = {
        way: Cost(*(statistics.median(part) for part in zip(*costs, strict=True))) for way, costs in measured.items()
    }
    base = medians["loop of register"]
    print(f"batch, {given.cases} cases of {SHAPE} voxels, {given.runs} runs each, median seconds")
    print(f"{'way':20}{'wall':>8}{'a case':>8}{'to loop':>9}{'saves':>7}{'processor':>11}{'to loop':>9}")
    for way, cost in medians.items():
        ratio, a_case = cost.wall / base.wall, cost.wall / given.cases
        print(f"{way:20}{cost.wall:8.2f}{a_case:8.2f}{ratio:9.2f}{1 - ratio:7.0%}", end="")
        print(f"{cost.processor:11.2f}{cost.processor / base.processor:9.2f}")
    if given.rows is not None:
        rows.written(given.rows, [row(measured, given.cases)])
    elif medians["batch"].wall > (1 - WANTED) * base.wall:
        raise SystemExit(f"the batch saves less than {WANTED:.0%} of the loop")


def row(measured: dict[str, list[Cost]], cases: int) -> rows.Row:
    """Make the row of a batch in one process beside the loop: seconds by the clock."""
    ways = [measured[way] for way in ("loop of register", "batch")]
    base, here = (f"{statistics.median(one.wall for one in costs):.1f} s" for costs in ways)
    ratio = measuring.spread([one.wall / other.wall for other, one in zip(*ways, strict=True)])
    what = f"`crossalign batch`, {cases} cases, to a loop of `register`"
    return rows.Row.at_most(what, base, here, ratio, 1 - WANTED)


def measure(folder: Path, cases: int, runs: int) -> dict[str, list[Cost]]:
    """Time each way in turn, on new outputs."""
    ways: dict[str, Callable[[Path, Path, int], None]] = {"loop of register": loop, "batch": batch}
    if (os.cpu_count() or 1) > 1:
        ways["batch --workers 2"] = batch_in_two
    measured: dict[str, list[Cost]] = {way: [] for way in ways}
    for number in range(runs):
        for index, (way, run) in enumerate(ways.items()):
            began, used = time.perf_counter(), _processor_seconds()
            run(folder, folder / f"out{number}-{index}", cases)
            measured[way].append(Cost(time.perf_counter() - began, _processor_seconds() - used))
    return measured


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def loop(folder: Path, output: Path, cases: int) -> None:
    """Register one case after another, each in a process of its own, as a shell script would."""
    for number in range(cases):
        place = output / str(number)
        place.mkdir(parents=True)
        scans = [str(folder / f"{part}{number}.nii.gz") for part in ("mr", "us", "gland")]
        words = ["register", scans[0], scans[1], "--fixed-mask", scans[2], "--initial", str(folder / f"{number}.tfm")]
        words += ["--output-transform", str(place / "transform.tfm"), "--report", str(place / "report.html")]
        call([*words, "--record", str(place / "record.json")])


def batch(folder: Path, output: Path, _cases: int) -> None:
    """Register them with one command."""
    call(["batch", str(folder / "pairs.csv"), "-o", str(output)])


def batch_in_two(folder: Path, output: Path, _cases: int) -> None:
    """Register them with one command, in two processes."""
    call(["batch", str(folder / "pairs.csv"), "-o", str(output), "--workers", "2"])


def call(words: list[str]) -> None:
    """Run the command line quietly in a process of its own."""
    words = [sys.executable, "-m", "crossalign", *words]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def write_cases(folder: Path, count: int) -> None:
    """Write simulated pairs, initial transforms 12 mm off, and their manifest."""
    import torch

    from crossalign.geometry import draw_perturbation
    from crossalign.images import Image, LabelMap, write_image, write_label_map, write_transform
    from crossalign.simulation import simulate_pairs

    generator = torch.Generator().manual_seed(SEED)
    pairs = simulate_pairs(count, generator, shape=SHAPE, spacing_mm=SPACING_MM)
    lines = ["case,fixed,moving,fixed_mask,initial"]
    for number in range(count):
        gland = LabelMap(pairs.fixed_mask[number, 0].long(), pairs.fixed_grid)
        write_image(Image(pairs.fixed[number, 0], pairs.fixed_grid), folder / f"mr{number}.nii.gz")
        write_image(Image(pairs.moving[number, 0], pairs.moving_grid), folder / f"us{number}.nii.gz")
        write_label_map(gland, folder / f"gland{number}.nii.gz")
        surface = gland.points_mm()
        motion = draw_perturbation(surface, gland.centroid_mm()[None], torch.tensor([12.0]).double(), generator)
        start = pairs.fixed_to_moving[number].to("cpu", torch.float64) @ motion[0]
        write_transform(start, folder / f"{number}.tfm")
        lines.append(f"{number},mr{number}.nii.gz,us{number}.nii.gz,gland{number}.nii.gz,{number}.tfm")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
