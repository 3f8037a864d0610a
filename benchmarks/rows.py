"""Rows of the table of docs/performance.md: what a benchmark hands to `run.py`, and how the table is written."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- make bench: table -->", "<!-- make bench: end -->"
HEAD = (
    "| what | baseline | here | ratio (least to most) | goal | | command |\n| --- | --- | --- | --- | --- | --- | --- |"
)
LIBRARIES = ("torch", "SimpleITK", "onnxruntime")
SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` is median, least and most; `met` is None where there is no goal, or no figure."""

    what: str
    baseline: str
    here: str
    ratio: tuple[float, float, float] | None = None
    goal: str = ""
    met: bool | None = None

    @classmethod
    def at_least(cls, what: str, baseline: str, here: str, ratio: tuple[float, float, float], goal: float) -> Row:
        """Make the row of a ratio whose median has to reach a number."""
        return cls(what, baseline, here, ratio, f"{goal:g} or more", ratio[0] >= goal)

    @classmethod
    def at_most(cls, what: str, baseline: str, here: str, ratio: tuple[float, float, float], goal: float) -> Row:
        """Make the row of a ratio whose median may be a number at most."""
        return cls(what, baseline, here, ratio, f"{goal:g} or less", ratio[0] <= goal)


def written(path: Path | None, rows: Sequence[Row]) -> None:
    """Write a benchmark's rows, with its command, date and machine, for `run.py`; nothing without a path."""
    if path is None:
        return
    words = [word for word in sys.argv[1:] if word != "--rows" and word != str(path)]
    words = ["PYTHON" if Path(word).is_file() and os.access(word, os.X_OK) else word for word in words]
    module = f"benchmarks.{Path(sys.argv[0]).stem}"
    common = {
        "module": module,
        "command": shlex.join(["python", "-m", module, *words]),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
    }
    replaced(path, json.dumps([asdict(row) | common for row in rows], indent=1) + "\n")


def machine() -> str:
    """Describe the processor and the libraries."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {line.split(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    sets = [name for name in SETS if name in facts.get("flags", "").split()]
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES if _installed(name))
    name = facts.get("model name", platform.processor() or platform.machine())
    processor = f"{os.cpu_count()} cores of {name} ({', '.join(sets) or 'no vector sets known'})"
    return f"{processor}; {_gpu()}; {platform.system()}, Python {platform.python_version()}, {libraries}"


def _installed(name: str) -> bool:
    try:
        version(name)
    except ImportError:
        return False
    return True


def _gpu() -> str:
    """Name the first GPU, without importing torch."""
    found = shutil.which("nvidia-smi")
    if found is None:
        return "no GPU"
    words = [found, "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout.strip() else "no GPU"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the table, with what it was measured on above it."""
    machines = list(dict.fromkeys(row["machine"] for row in rows))
    dates = sorted({row["date"] for row in rows})
    measured_on = f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))} on " + "; and on ".join(machines) + "."
    return "\n".join([BEGIN, "", measured_on, "", HEAD, *map(_line, rows), "", END])


def _line(row: Mapping[str, Any]) -> str:
    middle, least, most = row["ratio"] or (None, None, None)
    ratio = "" if middle is None else f"{middle:.2f}" + ("" if least == most else f" ({least:.2f} to {most:.2f})")
    met = {None: "", True: "met", False: "**missed**"}[row["met"]]
    cells = (row["what"], row["baseline"], row["here"], ratio, row["goal"], met, f"`{row['command']}`")
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def with_table(page: str, made: str) -> str:
    """Return the page with a table in place of that between its markers. Raises ValueError without them."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page needs the lines {BEGIN} and {END}, once each and in this order")
    before, after = page.index(BEGIN), page.index(END) + len(END)
    return page[:before] + made + page[after:]


def replaced(path: Path, text: str) -> None:
    """Write a text file whole, or leave what is there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
