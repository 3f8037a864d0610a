"""What the commands that train registration networks share: checks ahead of a run, and its progress."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from crossalign.errors import InputError, OutputError
from crossalign.types import Shape


def check_run(folder: Path, manifest: Path | None, simulate: int, minutes: float, patients: float) -> None:
    """Raise InputError or OutputError where a run cannot begin: data of two kinds or none, or an unfit folder."""
    if (manifest is None) == (simulate == 0):
        raise InputError("give either a MANIFEST or --simulate COUNT: what is there to train on?")
    if simulate < 0 or minutes < 0:
        raise InputError(f"--simulate and --minutes must be 0 or more, got {simulate} and {minutes}")
    if simulate and patients != 1:
        raise InputError("--patients picks among a manifest's patients: with --simulate give a smaller COUNT instead")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, expected a folder for the run")
    if not folder.absolute().parent.is_dir():
        raise OutputError(f"{folder}: {folder.parent} is not a folder that exists: make it first")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "settings.json").is_file():
        raise OutputError(f"{folder}: holds other files than a run: name a new folder")


def parse_crop(text: str) -> Shape:
    """Read a crop's size as z,y,x; raises InputError."""
    try:
        z, y, x = (int(size) for size in text.split(","))
    except ValueError as error:
        raise InputError(f"cannot read the crop '{text}': expected voxels z,y,x as 32,32,32") from error
    return (z, y, x)


class RunBar:
    """Progress with the loss, the last validation and the time left; `label` shows the measure, as in `{:.2f} mm`."""

    def __init__(self, steps: int, measure: str, label: str) -> None:
        self.bar = tqdm(total=steps, unit="step", disable=None, smoothing=0.05)
        self.measure, self.label, self.val = measure, label, ""

    def __enter__(self) -> RunBar:
        return self

    def __exit__(self, *_error: object) -> None:
        self.bar.close()

    def watch(self, row: Mapping[str, int | float]) -> None:
        """Show one step."""
        if self.measure in row:
            pace = row.get("samples_per_second", math.nan)
            self.val = f", {self.label.format(row[self.measure])}, {pace:.0f} samples/s"
        if self.bar.n == 0:  # a run that goes on starts in the middle
            self.bar.initial = self.bar.n = int(row["step"]) - 1
        self.bar.set_postfix_str(f"loss {row['loss']:.3f}{self.val}", refresh=False)
        self.bar.update(int(row["step"]) - self.bar.n)


def run_state(steps: int, finished: bool, seconds: float, pace: float) -> list[str]:
    """Return the lines that say how far a run is and how fast it was."""
    state = "finished" if finished else "stopped; the same command goes on from here"
    return [f"steps    {steps} ({state})", f"seconds  {seconds:.0f} ({pace:.0f} samples/s)"]
