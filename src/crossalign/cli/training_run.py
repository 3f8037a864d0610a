"""What the commands that train share: checks ahead of a run, and its progress."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crossalign.cli.checks import check_apart
from crossalign.cli.console import Progress
from crossalign.errors import InputError
from crossalign.training import RunResult
from crossalign.training.run_folder import BEST, HISTORY, LAST, PREVIOUS, SETTINGS, check_run_folder, tensorboard_module

RUN_FILES = (SETTINGS, LAST, PREVIOUS, BEST, HISTORY)


def check_data(manifest: Path | None, simulate: int) -> None:
    """Raise InputError where there are data of two kinds, or none."""
    if (manifest is None) == (simulate == 0):
        raise InputError("give either a MANIFEST or --simulate COUNT: what is there to train on?")


def check_run(folder: Path, manifest: Path | None, simulate: int, patients: float = 1.0) -> None:
    """Raise InputError or OutputError where a run cannot begin: data of two kinds or none, or an unfit folder."""
    check_data(manifest, simulate)
    if simulate and patients != 1:
        raise InputError("--patients picks among a manifest's patients: with --simulate give a smaller COUNT instead")
    check_run_files(folder, (manifest,))


def check_run_files(folder: Path, inputs: Iterable[Path | None]) -> None:
    """Raise OutputError where a run cannot be kept in a folder, or one of its files is an input.

    Raises InputError where TensorBoard is not installed.
    """
    tensorboard_module()
    check_run_folder(folder)
    check_apart((folder / name for name in RUN_FILES), (path for path in inputs if path is not None))


def run_facts(folder: Path, result: RunResult) -> dict[str, Any]:
    """Return the entries of `cli.results.training.RunFacts`."""
    return {
        "folder": folder,
        "is_finished": result.finished,
        "steps": result.steps,
        "seconds": result.seconds,
        "samples_per_second": result.samples_per_second,
        "best_step": result.best_step,
        "best": result.best if math.isfinite(result.measure) else None,
    }


class RunBar:
    """Progress with the loss, the last validation and the time left; `label` shows the measure, as in `{:.2f} mm`."""

    def __init__(self, steps: int, measure: str, label: str) -> None:
        self.progress = Progress(steps, "step")
        self.measure, self.label, self.val = measure, label, ""

    def __enter__(self) -> RunBar:
        return self

    def __exit__(self, *_error: object) -> None:
        self.progress.__exit__(*_error)

    def watch(self, row: Mapping[str, int | float]) -> None:
        """Show one step."""
        if self.measure in row:
            pace = row.get("samples_per_second", math.nan)
            self.val = f", {self.label.format(row[self.measure])}, {pace:.0f} samples/s"
        self.progress.advance(f"loss {row['loss']:.3f}{self.val}", int(row["step"]))


def run_state(steps: int, finished: bool, seconds: float, pace: float) -> list[str]:
    """Return the lines that say how far a run is and how fast it was."""
    state = "finished" if finished else "stopped; the same command goes on from here"
    return [f"steps    {steps} ({state})", f"seconds  {seconds:.0f} ({pace:.0f} samples/s)"]
