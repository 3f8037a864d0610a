"""What the commands that train registration networks share: checks ahead of a run, and its progress."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from crossalign.cli.options import check_apart
from crossalign.cli.progress import Progress
from crossalign.errors import InputError
from crossalign.input import excerpt, whole_value
from crossalign.training.run_folder import BEST, HISTORY, LAST, PREVIOUS, SETTINGS, check_run_folder
from crossalign.types import Shape

LARGEST_CROP = 512
RUN_FILES = (SETTINGS, LAST, PREVIOUS, BEST, HISTORY)


def check_run(folder: Path, manifest: Path | None, simulate: int, minutes: float, patients: float) -> None:
    """Raise InputError or OutputError where a run cannot begin: data of two kinds or none, or an unfit folder."""
    if (manifest is None) == (simulate == 0):
        raise InputError("give either a MANIFEST or --simulate COUNT: what is there to train on?")
    if simulate < 0 or minutes < 0:
        raise InputError(f"--simulate and --minutes must be 0 or more, got {simulate} and {minutes}")
    if simulate and patients != 1:
        raise InputError("--patients picks among a manifest's patients: with --simulate give a smaller COUNT instead")
    check_run_files(folder, (manifest,))


def check_run_files(folder: Path, inputs: Iterable[Path | None]) -> None:
    """Raise OutputError where a run cannot be kept in a folder, or where one of its files is an input."""
    check_run_folder(folder)
    check_apart((folder / name for name in RUN_FILES), (path for path in inputs if path is not None))


def parse_crop(text: str) -> Shape:
    """Read a crop's size as z,y,x; raises InputError."""
    sizes = [whole_value(size, f"cannot read the crop '{excerpt(text)}'") for size in text.split(",")]
    if len(sizes) != 3 or not all(1 <= size <= LARGEST_CROP for size in sizes):
        raise InputError(
            f"cannot read the crop '{excerpt(text)}': expected voxels z,y,x as 32,32,32, each from 1 to {LARGEST_CROP}"
        )
    z, y, x = sizes
    return (z, y, x)


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
