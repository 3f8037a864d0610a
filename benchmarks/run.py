"""Run the benchmarks one after another and write their table into docs/performance.md.

    python benchmarks/run.py [--only networks,training] [--quick --page PAGE --results FILE]

Each benchmark may also run alone; it prints more than its rows. The rows lie in docs/performance.json: with `--only`
those of other benchmarks stay. Where one fails neither file changes. `--quick` takes small sizes and one run, to try
the benchmarks out: its figures mean nothing, so that it has to be given files of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import rows  # type: ignore[import-not-found] # found beside this script

PLAN = {
    "networks": ("bench_networks.py", "--threads", "1"),
    "variants": ("bench_variants.py", "--threads", "1"),
    "training": ("bench_training.py", "--threads", "1"),
    "register": ("bench_register.py", "--threads", "1"),
    "onnx": ("bench_onnx.py",),
    "fuse": ("bench_fuse.py",),
    "batch": ("bench_batch.py",),
    "scaling": ("bench_scaling.py", "--threads", "1"),
    "gpu": ("bench_gpu.py",),
}
PAGE, RESULTS = rows.ROOT / "docs" / "performance.md", rows.ROOT / "docs" / "performance.json"


def main() -> None:
    """Run what was asked for and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PLAN), help="benchmarks, separated by commas")
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
    measured = {name: run(name, given.quick) for name in PLAN if name in names}
    kept = json.loads(given.results.read_text()) if given.results.exists() else []
    by_script: dict[str, list[Any]] = {}
    for row in kept:
        by_script.setdefault(row["script"], []).append(row)
    every = [row for name in PLAN for row in measured.get(name, by_script.get(PLAN[name][0], []))]
    page = rows.with_table(given.page.read_text(), rows.table(every))
    rows.replaced(given.results, json.dumps(every, indent=1) + "\n")
    rows.replaced(given.page, page)
    print(f"wrote {given.page} and {given.results}")


def run(name: str, quick: bool) -> list[Any]:
    """Run a benchmark in a process of its own, its tables to the terminal, and return its rows."""
    script, *words = PLAN[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, str(Path(__file__).with_name(script)), *words, *(["--quick"] if quick else [])]
        print(f"== {' '.join(command[1:])}", flush=True)
        done = subprocess.run([*command, "--rows", str(path)], check=False)
        if done.returncode:
            raise SystemExit(f"{script} failed with status {done.returncode}: no file was changed")
        found: list[Any] = json.loads(path.read_text())
    return found


if __name__ == "__main__":
    main()
