"""Cohorts for the tests of `batch`, and methods that end their process once, or each time, as a crash would."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from crossalign.cli.batch.work import Names
from crossalign.cli.requests.registration import CaseOptions, RegisterRequest
from crossalign.registration import Method

FAST = ("--method", "identity", "--recognition", "off")
RESULTS = ("transform.tfm", "moved.nii.gz")


def write_cohort(folder: Path, pair: Path, names: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """Write a manifest of cases that are all of one pair, the first with an initial transform."""
    rows = [f"{name},{pair}/mr.nii.gz,{pair}/us.nii.gz,{pair}/gland.nii.gz,{pair}/start.tfm" for name in names]
    (folder / "pairs.csv").write_text("\n".join(["case,fixed,moving,fixed_mask,initial", *rows]) + "\n")
    return folder / "pairs.csv"


def contents(folder: Path, names: tuple[str, ...] = RESULTS) -> dict[str, bytes]:
    """Return the results of every case by their place."""
    return {str(path.relative_to(folder)): path.read_bytes() for name in names for path in folder.glob(f"*/{name}")}


@dataclass(frozen=True)
class Deadly(Names):
    """Methods whose loading notes the case in a log, and kills the process at one case once, at another always."""

    log: Path = Path()
    once: str = ""
    always: str = ""

    def load(self, options: CaseOptions) -> dict[str, Method]:
        assert isinstance(options, RegisterRequest)
        case = options.output_transform.parent.name
        tried = (self.log / "tried.txt").read_text().split() if (self.log / "tried.txt").exists() else []
        with (self.log / "tried.txt").open("a") as file:
            file.write(f"{case}\n")
        if case == self.always or (case == self.once and case not in tried):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(options)

    def tried(self) -> list[str]:
        return sorted((self.log / "tried.txt").read_text().split())
