"""How the cost of a registration grows with its work, and whether memory stays flat over many registrations.

    python -m benchmarks.bench_scaling [--threads 1] [--runs 3] [--registrations 1000] [--figures docs/figures]

Processor seconds and their medians: a pass of Attention-Reg by tokens and by batch; a registration by voxels of the
scans and by initialisations; and registrations of one process by cases, with its resident memory after each hundred.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measuring, rows

DEPTHS = (8, 16, 32, 48)
BATCHES = (1, 2, 4, 8)
SIDES = (48, 64, 96, 128)
STARTS = (1, 4, 16, 32)
EXTENT_MM, RADIUS = 115.0, 0.25
LAST = 100  # registrations after which memory should grow no more

Points = Mapping[float, float]


def main() -> None:
    """Print the figures and draw them."""
    command = measuring.parser(__doc__)
    command.add_argument("--registrations", type=int, default=1000)
    command.add_argument("--figures", type=Path, help="folder for performance-scaling.svg")
    command.set_defaults(runs=3)
    given = command.parse_args()
    if given.quick:
        given.runs, given.registrations = 1, 2 * LAST
    print(f"medians of {given.runs} runs; {measuring.pin_threads(given.threads)}")
    curves = {
        "tokens": ("a pass of Attention-Reg", "tokens", by_tokens(given.runs)),
        "batch": ("a pass of Attention-Reg, (16, 48, 48)", "pairs in the batch", by_batch(given.runs)),
        "voxels": ("correspondence-label, one registration", "million voxels of each scan", by_voxels(given.runs)),
        "initialisations": ("correspondence-label, scans of 64 cubed", "initialisations", by_starts(given.runs)),
    }
    for title, label, points in curves.values():
        times = ", ".join(f"{one:.4g}: {1000 * seconds:.0f}" for one, seconds in points.items())
        print(f"{title}, processor ms by {label}: {times}")
    seconds, memory = over_cases(given.registrations)
    print(f"registrations of one process, processor s by cases: {_text(seconds)}")
    print(f"resident memory, MiB by cases: {_text(memory)}")
    rows.written(given.rows, [flat(memory)])
    if given.figures is not None:
        draw(given.figures / "performance-scaling.svg", list(curves.values()), seconds, memory)


def flat(memory: Points) -> rows.Row:
    """Make the row of resident memory over many registrations of one process, after the first hundred and the last."""
    early, late = memory[float(LAST)], memory[max(memory)]
    what = f"resident memory after {max(memory):.0f} registrations in one process, to that after {LAST}"
    return rows.Row.at_most(what, f"{early:.0f} MiB", f"{late:.0f} MiB", (late / early,) * 3, 1.02)


def by_tokens(runs: int) -> Points:
    """Time passes over crops of growing depth."""
    return {float(z // 2 * 24 * 24): _pass((z, 96, 96), 1, runs) for z in DEPTHS}


def by_batch(runs: int) -> Points:
    """Time passes over growing batches of small crops."""
    return {float(batch): _pass((16, 48, 48), batch, runs) for batch in BATCHES}


def by_voxels(runs: int) -> Points:
    """Time registrations of scans of growing size and the same extent."""
    return {side**3 / 1e6: _median(registration(side), runs) for side in SIDES}


def by_starts(runs: int) -> Points:
    """Time registrations from a growing number of initialisations."""
    return {float(count): _median(registration(64, count), runs) for count in STARTS}


def over_cases(count: int) -> tuple[Points, Points]:
    """Register small scans again and again in this process: seconds and resident MiB by cases."""
    run, began = registration(32), time.process_time()
    seconds, memory = {}, {}
    for number in range(1, count + 1):
        run()
        if number == 1 or number % LAST == 0:
            gc.collect()
            seconds[float(number)], memory[float(number)] = time.process_time() - began, resident_mib()
    return seconds, memory


def registration(side: int, initialisations: int = 1) -> Callable[[], object]:
    """Return the registration of two scans of side^3 voxels, ellipsoids 5 mm apart, by a shipped network."""
    from dataclasses import replace

    import torch

    from crossalign.geometry import Grid, Rigid
    from crossalign.images import Image, LabelMap
    from crossalign.registration import named_method, register

    method: Any = named_method("correspondence-label")
    if initialisations > 1:
        method = method.with_run(replace(method.run, initialisations=initialisations))
    grid = Grid((side,) * 3, (EXTENT_MM / side,) * 3, (-EXTENT_MM / 2,) * 3)
    axis = torch.linspace(-1, 1, side)
    distance = axis[:, None, None] ** 2 + axis[:, None] ** 2 + (1.2 * axis) ** 2
    scan = Image(torch.cos(9 * distance) + 2, grid)
    mask = LabelMap((distance < RADIUS).long(), grid)
    shift = Rigid(torch.eye(3, dtype=torch.float64), torch.tensor([5.0, 0.0, 0.0], dtype=torch.float64))
    return lambda: register(scan, scan, method, shift, mask)


def resident_mib() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def draw(path: Path, curves: Sequence[tuple[str, str, Points]], seconds: Points, memory: Points) -> None:
    """Draw each cost against the work, and the memory against the cases."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    plots = figure.subplots(2, 3).flat
    panels = [(title, label, "processor seconds", points) for title, label, points in curves]
    panels += [("registrations of one process, 32 cubed", "cases", "processor seconds", seconds)]
    panels += [("the same process", "cases", "resident memory, MiB", memory)]
    for axes, (title, label, unit, points) in zip(plots, panels, strict=True):
        axes.plot(list(points), list(points.values()), marker="o", markersize=3)
        axes.set(title=title, xlabel=label, ylabel=unit, ylim=(0, None))
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def _pass(shape: tuple[int, int, int], batch: int, runs: int) -> float:
    import torch

    from crossalign.networks import AttentionReg

    network, crops = AttentionReg(shape).eval(), torch.rand(2, batch, 1, *shape)

    def run() -> None:
        with torch.inference_mode():
            network(*crops)

    return _median(run, runs)


def _median(run: Callable[[], object], runs: int) -> float:
    seconds = []
    for turn in range(runs + 1):
        began = time.process_time()
        run()
        if turn:
            seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def _text(points: Points) -> str:
    return ", ".join(f"{one:.0f}: {value:.1f}" for one, value in points.items())


if __name__ == "__main__":
    main()
