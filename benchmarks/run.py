"""Run the benchmarks one after another and write their table into docs/performance.md.

    python -m benchmarks.run [--only networks,training] [--ants PYTHON] [--quick --page PAGE --results FILE]

Each benchmark may also run alone; it prints more than its rows. The rows lie in docs/performance.json: with `--only`
those of other benchmarks stay. Where one fails neither file changes. `--quick` takes small sizes and one run, to try
the benchmarks out: its figures mean nothing, so that it has to be given files of its own. `--ants` names a Python with
antspyx, to measure ANTs too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import rows

PLAN = {
    "networks": ("benchmarks.bench_networks", "--threads", "1"),
    "variants": ("benchmarks.bench_variants", "--threads", "1"),
    "training": ("benchmarks.bench_training", "--threads", "1"),
    "register": ("benchmarks.bench_register", "--threads", "1"),
    "onnx": ("benchmarks.bench_onnx",),
    "fuse": ("benchmarks.bench_fuse",),
    "batch": ("benchmarks.bench_batch",),
    "scaling": ("benchmarks.bench_scaling", "--threads", "1"),
    "gpu": ("benchmarks.bench_gpu",),
}
PAGE, RESULTS = rows.ROOT / "docs" / "performance.md", rows.ROOT / "docs" / "performance.json"


def main() -> None:
    """Run what was asked for and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PLAN), help="benchmarks, separated by commas")
    parser.add_argument("--ants", metavar="PYTHON", help="to measure ANTs too: a Python that has antspyx")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run: figures that mean nothing")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := set(names) - set(PLAN):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PLAN)}")
    if given.quick and (given.page == PAGE or given.results == RESULTS):
        parser.error("--quick measures nothing: name other files with --page and --results")
    rows.with_table(given.page.read_text(), "")  # fails before the hours, not after
    more = {"register": ("--ants", given.ants)} if given.ants else {}
    measured = {name: run(name, given.quick, more.get(name, ())) for name in PLAN if name in names}
    kept = json.loads(given.results.read_text()) if given.results.exists() else []
    by_module: dict[str, list[Any]] = {}
    for row in kept:
        by_module.setdefault(row["module"], []).append(row)
    every = [row for name in PLAN for row in measured.get(name, by_module.get(PLAN[name][0], []))]
    page = rows.with_table(given.page.read_text(), rows.table(every))
    rows.replaced(given.results, json.dumps(every, indent=1) + "\n")
    rows.replaced(given.page, page)
    print(f"wrote {given.page} and {given.results}")


def run(name: str, quick: bool, more: tuple[str, ...] = ()) -> list[Any]:
    """Run a benchmark in a process of its own, its tables to the terminal, and return its rows."""
    module, *words = PLAN[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", module, *words, *more, *(["--quick"] if quick else [])]
        print(f"== {' '.join(command[1:])}", flush=True)
        done = subprocess.run([*command, "--rows", str(path)], check=False)
        if done.returncode:
            raise SystemExit(f"{module} failed with status {done.returncode}: no file was changed")
        found: list[Any] = json.loads(path.read_text())
    return found


if __name__ == "__main__":
    main()
