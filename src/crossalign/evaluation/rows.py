"""The table of an evaluation: one row for each registration, and the columns that it becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crossalign.evaluation.error_parts import PATIENT_AXES, ErrorParts, axes_text
from crossalign.extras import optional_module
from crossalign.registration import Expectation

if TYPE_CHECKING:
    from pandas import DataFrame

RESIDUAL = ("residual_x_mm", "residual_y_mm", "residual_z_mm", "residual_rx_deg", "residual_ry_deg", "residual_rz_deg")


@dataclass(frozen=True)
class Scores:
    """How good one transform is. TRE is NaN for a case without landmarks, Dice NaN for one without a moving mask.

    `residual` is what is left to correct: the six parameters (tx, ty, tz in mm, rx, ry, rz in degrees) about the fixed
    structure's centroid of the motion D with transform = reference @ D, along the axes of the fixed image's world.
    Empty if not measured. `parts` is the same motion in parts that are read singly, along the patient's axes.
    """

    sre_mm: float
    tre_mm: float = math.nan
    dice: float = math.nan
    residual: tuple[float, ...] = ()
    parts: ErrorParts | None = None

    def part_columns(self, prefix: str = "") -> dict[str, float]:
        """Return the parts of the error by the names of the table's columns, NaN where they were not measured."""
        parts = self.parts or ErrorParts((math.nan,) * 3, math.nan)
        along = zip(PATIENT_AXES, parts.center_mm, strict=True)
        return {
            f"{prefix}center_error_mm": parts.distance_mm,
            **{f"{prefix}center_error_{axis}_mm": value for axis, value in along},
            f"{prefix}angle_error_deg": parts.angle_deg,
        }


@dataclass(frozen=True)
class StepScore:
    """SRE after one step of a method, and the seconds that the step took."""

    name: str
    sre_mm: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One registration.

    Where it failed, `error` says why, `after` is `before` (the initial transform stands), and `steps` is empty.
    `initialisation` is the range that the initial transform was drawn from, as text.
    """

    case: str
    patient: str
    split: str
    initialisation: str
    repeat: int
    method: str
    before: Scores
    after: Scores
    steps: tuple[StepScore, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    error: str = ""
    expectation: Expectation = field(default_factory=Expectation)

    def record(self, steps: int, evidence: Sequence[str] = ()) -> dict[str, object]:
        """Return the row as plain values by the names of the table's columns, with columns for so many steps.

        `evidence` names the evidence that has a column.
        """
        scores: dict[str, object] = {}
        for index in range(steps):
            step = self.steps[index] if index < len(self.steps) else None
            scores[f"sre_step_{index + 1}_mm"] = step.sre_mm if step else math.nan
            scores[f"seconds_step_{index + 1}"] = step.seconds if step else math.nan
        expected = self.expectation
        return {
            "case": self.case,
            "patient": self.patient,
            "split": self.split,
            "initialisation": self.initialisation,
            "repeat": self.repeat,
            "method": self.method,
            "initial_sre_mm": self.before.sre_mm,
            "sre_mm": self.after.sre_mm,
            **scores,
            "initial_tre_mm": self.before.tre_mm,
            "tre_mm": self.after.tre_mm,
            "initial_dice": self.before.dice,
            "dice": self.after.dice,
            **self.before.part_columns("initial_"),
            **self.after.part_columns(),
            **dict(zip(RESIDUAL, self.after.residual or [math.nan] * len(RESIDUAL), strict=True)),
            "expected_sre_mm": expected.expected_sre_mm,
            "trusted": expected.trusted,
            "dispersion_mm": expected.dispersion_mm,
            "network_sre_mm": expected.network_sre_mm,
            "bound_mm": expected.bound_mm,
            **{f"evidence_{name}": expected.evidence.get(name, math.nan) for name in evidence},
            "seconds": self.seconds,
            "steps": " > ".join(step.name for step in self.steps),
            "reasons": " | ".join(expected.reasons),
            "warnings": " | ".join(self.warnings),
            "error": self.error,
        }


@dataclass(frozen=True)
class Evaluation:
    """All rows in order (case, initialisation, repeat, method), and what they were made from.

    `axes` says in words which axes the errors of the centre are along.
    """

    rows: tuple[Row, ...]
    methods: tuple[str, ...]
    initialisations: tuple[str, ...]
    count: int
    seed: int
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    axes: str = axes_text(None)

    def failed(self) -> tuple[Row, ...]:
        """Return the rows of registrations that ended in an error."""
        return tuple(row for row in self.rows if row.error)

    def records(self) -> list[dict[str, object]]:
        """Return each row as plain values by column; steps are numbered from 1."""
        steps = max((len(row.steps) for row in self.rows), default=0)
        evidence = tuple(dict.fromkeys(name for row in self.rows for name in row.expectation.evidence))
        return [row.record(steps, evidence) for row in self.rows]

    def to_dataframe(self) -> DataFrame:
        """Return a pandas table with one row for each registration, and the columns of the CSV file (`rows_csv`).

        Raises InputError where pandas is not installed.
        """
        table: DataFrame = pandas_module().DataFrame(self.records())
        return table


def pandas_module() -> Any:
    """Import pandas, half a second that only tables should cost; raises InputError where it is not installed."""
    return optional_module("pandas", "tables of an evaluation need pandas", "evaluate")
