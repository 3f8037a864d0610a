"""A pass of Attention-Reg on a CPU beside a plain twin of it: time and memory, at the paper's size.

    python -m benchmarks.bench_networks [--threads 1] [--runs 5]

The twin stores the attention map and runs layer by layer, as the authors' code does; it is the tests' reference too.
All ways take turns in one process; speeds are ratios to the twin's of the same turn. Memory is the growth of a
process's peak in one pass, each way in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping

from benchmarks import measuring, rows

SHAPE, QUICK = (32, 96, 96), (8, 16, 16)
TWIN = "plain twin, float32"
BFLOAT16 = {TWIN: "plain twin, bfloat16", "crossalign, float32": "crossalign, bfloat16"}


def main() -> None:
    """Print the tables."""
    command = measuring.parser(__doc__)
    command.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = command.parse_args()
    machine = measuring.pin_threads(given.threads)
    shape, runs = (QUICK, 1) if given.quick else (SHAPE, given.runs)
    if given.memory_of:
        print(measuring.own_growth_mib(ways(shape)[given.memory_of]))
        return
    print(f"Attention-Reg, one pair of crops {shape}, {runs} runs in turns; {machine}")
    measured = measuring.in_turns(ways(shape), TWIN, runs)
    measuring.print_table("A pass", measured)
    print("\n| way | memory of a pass, MiB | to the first |\n| --- | --- | --- |")
    words = [] if given.threads is None else ["--threads", str(given.threads)]
    words += ["--quick"] if given.quick else []
    peaks = {name: measuring.peak_mib("benchmarks.bench_networks", "--memory-of", name, *words) for name in measured}
    for name, peak in peaks.items():
        print(f"| {name} | {peak:.0f} | {peak / peaks[TWIN]:.2f} |")
    rows.written(given.rows, [*speeds(measured), *memories(peaks)])


def speeds(measured: Mapping[str, measuring.Measured]) -> Iterator[rows.Row]:
    """Make the rows of time."""
    for name, goal in (("crossalign, float32", 3.5), ("crossalign, bfloat16", 6)):
        twin, ours = measuring.milliseconds(measured[TWIN]), measuring.milliseconds(measured[name])
        what = f"a pass of Attention-Reg in {name.split()[-1]}: speed to a plain twin in float32"
        yield rows.Row.at_least(what, twin, ours, measured[name].ratio, goal)


def memories(peaks: Mapping[str, float]) -> Iterator[rows.Row]:
    """Make the rows of memory."""
    for name in ("crossalign, float32", "crossalign, bfloat16"):
        what = f"its memory in {name.split()[-1]}, to the twin's"
        share = peaks[name] / max(peaks[TWIN], 1e-9)
        yield rows.Row.at_most(what, f"{peaks[TWIN]:.0f} MiB", f"{peaks[name]:.0f} MiB", (share,) * 3, 0.25)


def ways(shape: tuple[int, int, int]) -> dict[str, Callable[[], object]]:
    """Return what is compared: passes of networks of random weights over the same pair."""
    import torch
    from tests.networks.originals import OriginalNetwork, scrambled

    from crossalign.networks import AttentionReg

    fixed, moving = torch.rand(2, 1, 1, *shape, generator=torch.Generator().manual_seed(0))
    networks = {TWIN: scrambled(OriginalNetwork(shape)), "crossalign, float32": scrambled(AttentionReg(shape))}

    def way(network: torch.nn.Module, half: bool) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
                return network(fixed, moving)

        return run

    made = {name: way(network, half=False) for name, network in networks.items()}
    return made | {BFLOAT16[name]: way(network, half=True) for name, network in networks.items()}


if __name__ == "__main__":
    main()
