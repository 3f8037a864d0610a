"""What an adaptation left, in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossalign.training.adaptation.comparison import Comparison
from crossalign.training.adaptation.references import KINDS, LeftOut, ReferenceKind

NO_STEP_BETTER = "not adapted: no step of training was better than the starting model, which is kept as it was"
KEPT = "not adapted: the error is not smaller by more than chance, so the starting model is kept as it was"


@dataclass(frozen=True)
class StageCurve:
    """How the val SRE of one use of a stage went: (step, mm), step 0 being the starting weights."""

    number: int
    points: tuple[tuple[int, float], ...]
    best_step: int
    finished: bool


@dataclass(frozen=True)
class AdaptationResult:
    """What an adaptation left in its folder.

    `model` is the file to use, None while the training is not finished. `is_adapted` says whether it holds adapted
    weights, `verdict` why or why not. `patients` counts those trained on and those measured on; `references` counts the
    pairs by where their reference is from. `comparison` is None where no step was better than the starting weights, and
    while the training is not finished.
    """

    folder: Path
    model: Path | None
    verdict: str
    is_adapted: bool
    patients: tuple[int, int]
    references: Mapping[ReferenceKind, int]
    left_out: tuple[LeftOut, ...]
    curves: tuple[StageCurve, ...]
    comparison: Comparison | None
    seconds: float
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """Return what it was made from and how good it is, by label."""
        kinds = ", ".join(f"{count} {KINDS[kind]}" for kind, count in self.references.items() if count)
        facts = {
            "pairs": f"references: {kinds}" + (f"; {len(self.left_out)} left out" if self.left_out else ""),
            "patients": f"{self.patients[0]} to train on, {self.patients[1]} to measure on",
        }
        if (one := self.comparison) is not None:
            facts |= {"initial": one.initial.text(), "before": one.before.text(), "after": one.after.text()}
            facts["gain"] = one.text()
            if not math.isnan(one.before_tre_mm):
                facts["TRE"] = f"{one.before_tre_mm:.2f} mm before, {one.after_tre_mm:.2f} mm after"
        return facts
