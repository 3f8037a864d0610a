"""What the benchmarks of networks share: the plain twin of Attention-Reg, measuring in turns, and tables.

The twin is that of the tests: the authors' network with softmax of a stored map, layer by layer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Measured(NamedTuple):
    """Processor seconds of one way, median, least and most, and its speed as a multiple of the baseline's, likewise."""

    seconds: tuple[float, float, float]
    ratio: tuple[float, float, float]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make the command line that the benchmarks share."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--threads", type=int, help="threads of torch and OpenMP; left out: as torch chooses")
    made.add_argument("--runs", type=int, default=5, help="counted runs of each way, after one warm-up")
    return with_rows(made)


def with_rows(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add what `run.py` gives to every benchmark."""
    made.add_argument("--rows", type=Path, help="JSON file for the rows of docs/performance.md's table")
    made.add_argument("--quick", action="store_true", help="small sizes and one run: figures that mean nothing")
    return made


def milliseconds(measured: Measured, each: int = 1) -> str:
    """Tell the median of `each` samples' processor milliseconds, for one."""
    return f"{1000 * measured.seconds[0] / each:.0f} ms"


def pin_threads(count: int | None) -> str:
    """Set the number of threads and describe the machine."""
    import torch

    if count is not None:
        torch.set_num_threads(count)
    busy = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors" if hasattr(os, "getloadavg") else ""
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, {busy}"


def in_turns(ways: Mapping[str, Callable[[], object]], baseline: str, runs: int) -> dict[str, Measured]:
    """Run every way once, then `runs` times in turns; ratios are of runs of one turn.

    Processor seconds of all threads of this process are measured: a busy machine lengthens them less than wall seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(runs + 1):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if turn:
                seconds[name].append(time.process_time() - began)
    base = seconds[baseline]
    return {
        name: Measured(spread(values), spread([one / other for one, other in zip(base, values, strict=True)]))
        for name, values in seconds.items()
    }


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return median, least and most."""
    return statistics.median(values), min(values), max(values)


def print_table(title: str, measured: Mapping[str, Measured], each: int = 1) -> None:
    """Print processor milliseconds of each way (of `each` samples) and its speed to the baseline's."""
    print(f"\n{title}\n\n| way | processor ms | least to most | speed to the first | least to most |")
    print("| --- | --- | --- | --- | --- |")
    for name, (seconds, ratio) in measured.items():
        middle, least, most = (1000 * value / each for value in seconds)
        print(
            f"| {name} | {middle:.0f} | {least:.0f} to {most:.0f} | {ratio[0]:.2f} | {ratio[1]:.2f} to {ratio[2]:.2f} |"
        )


class Cost(NamedTuple):
    """Seconds by the clock, of all processors together, and peak memory of one process."""

    wall: float
    processor: float
    peak_mib: float


def process_cost(words: Sequence[str], threads: int | None = None, python: str = sys.executable) -> Cost:
    """Run a Python, this one unless named, with these arguments, quietly; ends this process where that one fails.

    A child's peak memory starts from its parent's: call it from a process that stays small.
    """
    environment = dict(os.environ) if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    command = [python, *words]
    began = time.perf_counter()
    _, status, usage = os.wait4(os.posix_spawn(python, command, environment, file_actions=quiet), 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed with status {os.waitstatus_to_exitcode(status)}")
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def peak_mib(module: str, *words: str) -> float:
    """Run a module in a process of its own and return the peak memory (MiB) that it prints as its last line."""
    done = subprocess.run([sys.executable, "-m", module, *words], check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def own_growth_mib(work: Callable[[], object]) -> float:
    """Return by how much this process's peak memory grows over what it holds (MiB) while it works; on Linux."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: a child's is its parent's at first
    before = _peak_mib()
    work()
    return _peak_mib() - before


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
