"""A training step of Attention-Reg on a CPU beside a plain twin of it: time and memory, two samples of full size.

    python -m benchmarks.bench_training [--threads 1] [--runs 3]

A step resamples two pairs of crops at random shifts, which stands for the preparation of data, and runs the network
forwards and backwards; the optimiser's few milliseconds are left out. Ways take turns in one process; speeds are
ratios to the twin's of the same turn. Memory is the growth of a process's peak in one step, each way in a process of
its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping

from benchmarks import measuring, rows

SHAPE, QUICK, SAMPLES = (32, 96, 96), (8, 16, 16), 2
TWIN = "plain twin, float32"


def main() -> None:
    """Print the tables."""
    command = measuring.parser(__doc__)
    command.add_argument("--memory-of", help=argparse.SUPPRESS)
    command.set_defaults(runs=3)
    given = command.parse_args()
    machine = measuring.pin_threads(given.threads)
    shape, runs = (QUICK, 1) if given.quick else (SHAPE, given.runs)
    if given.memory_of:
        print(measuring.own_growth_mib(ways(shape)[given.memory_of]))
        return
    print(f"Attention-Reg, steps of {SAMPLES} pairs of crops {shape}, {runs} runs in turns; {machine}")
    measured = measuring.in_turns(ways(shape), TWIN, runs)
    measuring.print_table("A sample", measured, SAMPLES)
    print("\n| way | memory of a step, MiB | to the first |\n| --- | --- | --- |")
    words = [] if given.threads is None else ["--threads", str(given.threads)]
    words += ["--quick"] if given.quick else []
    peaks = {name: measuring.peak_mib("benchmarks.bench_training", "--memory-of", name, *words) for name in measured}
    for name, peak in peaks.items():
        print(f"| {name} | {peak:.0f} | {peak / peaks[TWIN]:.2f} |")
    rows.written(given.rows, list(made(measured, peaks)))


def made(measured: Mapping[str, measuring.Measured], peaks: Mapping[str, float]) -> Iterator[rows.Row]:
    """Make the rows."""
    base = measuring.milliseconds(measured[TWIN], SAMPLES)
    for name in list(measured)[1:]:
        kind, ours = name.split()[-1], measuring.milliseconds(measured[name], SAMPLES)
        what = f"training Attention-Reg in {kind}, a sample: speed to a plain twin in float32"
        yield rows.Row.at_least(what, base, ours, measured[name].ratio, 5)
        share = peaks[name] / max(peaks[TWIN], 1e-9)
        cells = (f"memory of a step in {kind}, to the twin's", f"{peaks[TWIN]:.0f} MiB", f"{peaks[name]:.0f} MiB")
        yield rows.Row.at_most(*cells, (share,) * 3, 0.33)


def ways(shape: tuple[int, int, int]) -> dict[str, Callable[[], object]]:
    """Return what is compared: steps of networks of random weights on the same scans."""
    import torch
    from tests.networks.originals import OriginalNetwork, scrambled

    from crossalign.geometry.resampling import sample
    from crossalign.networks import AttentionReg, crop_points

    generator = torch.Generator().manual_seed(0)
    scans = torch.rand(2, SAMPLES, 1, *shape, generator=generator)
    wanted = torch.randn(SAMPLES, 6, generator=generator)
    points = crop_points(shape, 1.0) + torch.tensor(shape[::-1]).double() / 2

    def way(network: torch.nn.Module, half: bool) -> Callable[[], object]:
        def run() -> object:
            network.zero_grad()
            shift = torch.rand(SAMPLES, 1, 1, 1, 3, generator=generator, dtype=torch.float64)
            fixed, moving = (sample(scan, points + shift) for scan in scans)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = (network(fixed, moving).float() - wanted).square().mean()
            loss.backward()
            return loss.item()

        return run

    twin, ours = scrambled(OriginalNetwork(shape)).train(), scrambled(AttentionReg(shape)).train()
    return {
        TWIN: way(twin, half=False),
        "crossalign, float32": way(ours, half=False),
        "crossalign, bfloat16": way(ours, half=True),
    }


if __name__ == "__main__":
    main()
