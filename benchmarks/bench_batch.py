"""`crossalign batch` beside a shell loop of `crossalign register` on the same simulated cases: seconds and ratio.

    python benchmarks/bench_batch.py [--cases 4] [--runs 2]

Both read the same files and write the same outputs: transform, JSON record and page of each case. The batch runs in one
process (and in two, for comparison, where there are two cores). Whole processes are timed, in turn; the ratio is of the
medians, and "saves" is how much less time the batch takes. The batch exists to save 30 % of the loop.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPE, SPACING_MM, SEED = (64, 64, 64), 1.5, 7
WANTED = 0.30


def main() -> None:
    """Print the table; end with status 1 where the batch in one process saves less than is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--runs", type=int, default=2, help="counted runs of each way")
    parser.add_argument("--write-cases", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write_cases:
        write_cases(given.write_cases, given.cases)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [sys.executable, __file__, "--write-cases", name, "--cases", str(given.cases)]
        subprocess.run(words, check=True)
        measured = measure(folder, given.cases, given.runs)
    loop = statistics.median(measured["loop of register"])
    print(f"batch, {given.cases} cases of {SHAPE} voxels, {given.runs} runs each, median (wall seconds)")
    print(f"{'way':24}{'seconds':>9}{'a case':>9}{'to loop':>9}{'saves':>8}")
    for way, values in measured.items():
        seconds = statistics.median(values)
        print(f"{way:24}{seconds:9.2f}{seconds / given.cases:9.2f}{seconds / loop:9.2f}{1 - seconds / loop:8.0%}")
    if statistics.median(measured["batch"]) > (1 - WANTED) * loop:
        raise SystemExit(f"the batch saves less than {WANTED:.0%} of the loop")


def measure(folder: Path, cases: int, runs: int) -> dict[str, list[float]]:
    """Time each way in turn, on new outputs."""
    ways = {"loop of register": loop, "batch": batch}
    if (os.cpu_count() or 1) > 1:
        ways["batch --workers 2"] = lambda *place: batch(*place, "--workers", "2")
    measured: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(runs):
        for index, (way, run) in enumerate(ways.items()):
            began = time.perf_counter()
            run(folder, folder / f"out{number}-{index}", cases)
            measured[way].append(time.perf_counter() - began)
    return measured


def loop(folder: Path, output: Path, cases: int) -> None:
    """Register one case after another, each in a process of its own, as a shell script would."""
    for number in range(cases):
        place = output / str(number)
        place.mkdir(parents=True)
        scans = [str(folder / f"{part}{number}.nii.gz") for part in ("mr", "us", "gland")]
        words = ["register", scans[0], scans[1], "--fixed-mask", scans[2], "--initial", str(folder / f"{number}.tfm")]
        words += ["--output-transform", str(place / "transform.tfm"), "--report", str(place / "report.html")]
        call([*words, "--record", str(place / "record.json")])


def batch(folder: Path, output: Path, _cases: int, *options: str) -> None:
    """Register them with one command."""
    call(["batch", str(folder / "pairs.csv"), "-o", str(output), *options])


def call(words: list[str]) -> None:
    """Run the command line quietly in a process of its own."""
    subprocess.run([sys.executable, "-m", "crossalign", *words], check=True, stdout=subprocess.DEVNULL)


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
