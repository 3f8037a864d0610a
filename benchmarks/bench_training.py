"""A training step of Attention-Reg on a CPU beside a plain twin of it: time and memory, two samples of full size.

    python benchmarks/bench_training.py [--threads 1] [--runs 3]

A step resamples two pairs of crops at random shifts, which stands for the preparation of data, and runs the network
forwards and backwards; the optimiser's few milliseconds are left out. Ways take turns in one process; speeds are
ratios to the twin's of the same turn. Memory is the growth of a process's peak in one step, each way in a process of
its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import measuring  # type: ignore[import-not-found] # found beside this script

SHAPE, SAMPLES = (32, 96, 96), 2
TWIN = "plain twin, float32"


def main() -> None:
    """Print the tables."""
    command = measuring.parser(__doc__)
    command.add_argument("--memory-of", help=argparse.SUPPRESS)
    command.set_defaults(runs=3)
    given = command.parse_args()
    machine = measuring.pin_threads(given.threads)
    if given.memory_of:
        print(measuring.own_growth_mib(ways()[given.memory_of]))
        return
    print(f"Attention-Reg, steps of {SAMPLES} pairs of crops {SHAPE}, {given.runs} runs in turns; {machine}")
    measuring.print_table("A sample", measuring.in_turns(ways(), TWIN, given.runs), SAMPLES)
    print("\n| way | memory of a step, MiB | to the first |\n| --- | --- | --- |")
    words = [] if given.threads is None else ["--threads", str(given.threads)]
    peaks = {name: measuring.peak_mib(__file__, "--memory-of", name, *words) for name in ways()}
    for name, peak in peaks.items():
        print(f"| {name} | {peak:.0f} | {peak / peaks[TWIN]:.2f} |")


def ways() -> dict[str, Callable[[], object]]:
    """Return what is compared: steps of networks of random weights on the same scans."""
    import torch
    from tests.networks.originals import OriginalNetwork, scrambled

    from crossalign.geometry.resampling import sample
    from crossalign.networks import AttentionReg, crop_points

    generator = torch.Generator().manual_seed(0)
    scans = torch.rand(2, SAMPLES, 1, *SHAPE, generator=generator)
    wanted = torch.randn(SAMPLES, 6, generator=generator)
    points = crop_points(SHAPE, 1.0) + torch.tensor(SHAPE[::-1]).double() / 2

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

    twin, ours = scrambled(OriginalNetwork()).train(), scrambled(AttentionReg()).train()
    return {
        TWIN: way(twin, half=False),
        "crossalign, float32": way(ours, half=False),
        "crossalign, bfloat16": way(ours, half=True),
    }


if __name__ == "__main__":
    main()
