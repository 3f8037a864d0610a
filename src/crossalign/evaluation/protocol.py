"""The protocol: cases x initialisations x methods -> one row each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from crossalign.arguments import checked
from crossalign.data import Case, LoadedCase, load_case
from crossalign.errors import CrossalignError, InputError
from crossalign.evaluation.accuracy import dice_score, surface_registration_error_mm, target_registration_error_mm
from crossalign.evaluation.conditions import given_besides, initial_transforms, registration_count
from crossalign.evaluation.error_parts import PATIENT_AXES, ErrorParts, axes_text, check_rotation, error_parts
from crossalign.evaluation.initialisations import (
    Start,
    check_distinct,
    parse_initialisations,
)
from crossalign.extras import optional_module
from crossalign.geometry import Rigid
from crossalign.registration import Expectation, Method, register

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


ProgressCallback = Callable[[int, int, Row], None]


@checked("cases", "methods", "initialisations", "count", "seed", "progress", "fixed_to_patient")
def evaluate(  # noqa: PLR0913 (what is evaluated, from where, and how its errors are told apart)
    cases: Sequence[Case | LoadedCase],
    methods: Mapping[str, Method] | Sequence[Method],
    initialisations: Sequence[Start] | str = "0-20",
    count: int = 40,
    seed: int = 0,
    progress: ProgressCallback | None = None,
    fixed_to_patient: Float[Tensor, "3 3"] | None = None,
) -> Evaluation:
    """Register every case from `count` initialisations of every range with every method, and measure.

    Methods go by the names of the mapping, or by their own, and are given the structure in the fixed image, as the
    papers' are. Ranges of the initial SRE may be given as text, such as "8,16,0-20" (mm), and the initialisations
    without a tracker by name: masks, mask-center and center, each once for a case. One case is in memory at a time.
    `progress(done, total, row)` is called after each registration. An error in a registration becomes a row; one in a
    case's files is raised, as are InputErrors about the request itself. `fixed_to_patient` (3, 3) rotates the axes of
    the fixed images to the patient's, along which errors of the centre are given, where their headers are wrong.
    Methods that use the moving mask (`Method.uses_moving_mask`) are given it and these axes; networks are not, and
    take the axes from how they are run.
    """
    ranges = parse_initialisations(initialisations) if isinstance(initialisations, str) else tuple(initialisations)
    named = _named(methods)
    _check_request(cases, named, ranges, count)
    check_rotation(fixed_to_patient)
    total = registration_count(len(cases), ranges, count, len(named))
    rows: list[Row] = []
    for case in cases:
        loaded = load_case(case) if isinstance(case, Case) else case
        for row in evaluate_case(loaded, named, ranges, count, seed, fixed_to_patient):
            rows.append(row)
            if progress is not None:
                progress(len(rows), total, row)
    settings = {name: dict(method.settings()) for name, method in named.items()}
    axes = axes_text(fixed_to_patient)
    return Evaluation(tuple(rows), tuple(named), tuple(map(str, ranges)), count, seed, settings, axes)


def evaluate_case(
    case: LoadedCase,
    methods: Mapping[str, Method],
    ranges: Sequence[Start],
    count: int,
    seed: int,
    fixed_to_patient: Float[Tensor, "3 3"] | None = None,
) -> Iterator[Row]:
    """Yield the rows of one case: for each initialisation, one for each method, so that all meet the same load."""
    for initial_range in ranges:
        for repeat, initial in enumerate(initial_transforms(case, initial_range, count, seed, fixed_to_patient)):
            before = scores_of(case, initial, fixed_to_patient)
            for name, method in methods.items():
                yield _row(case, (str(initial_range), repeat, name), method, (initial, before), fixed_to_patient)


def scores_of(case: LoadedCase, fixed_to_moving: Rigid, fixed_to_patient: Float[Tensor, "3 3"] | None = None) -> Scores:
    """Measure one transform against the case's reference, landmarks and structures.

    `fixed_to_patient` says what the patient's axes are, as for `evaluate`.
    """
    marks, structure = case.landmarks, case.moving_mask
    residual = (case.fixed_to_moving.inverse() @ fixed_to_moving).to_parameters(case.fixed_mask.centroid_mm())
    return Scores(
        surface_registration_error_mm(fixed_to_moving, case.fixed_to_moving, case.surface_mm),
        target_registration_error_mm(fixed_to_moving, marks.fixed_mm, marks.moving_mm) if marks else math.nan,
        dice_score(case.fixed_mask, structure, fixed_to_moving) if structure else math.nan,
        tuple(residual.tolist()),
        error_parts(fixed_to_moving, case, fixed_to_patient),
    )


def _row(
    case: LoadedCase,
    key: tuple[str, int, str],
    method: Method,
    began_with: tuple[Rigid, Scores],
    fixed_to_patient: Float[Tensor, "3 3"] | None,
) -> Row:
    initial, before = began_with
    identity = (case.name, case.patient, case.split, *key)
    began = time.perf_counter()
    try:
        mask, axes = given_besides(case, method, initial, fixed_to_patient)
        result = register(case.fixed, case.moving, method, initial, case.fixed_mask, mask, orientation=axes)
    except Exception as error:  # noqa: BLE001 - a night's table must outlive any fault of one method on one pair
        seconds = time.perf_counter() - began
        return Row(*identity, before, before, (), seconds, error=_message(error))
    steps = tuple(
        StepScore(
            step.name,
            surface_registration_error_mm(step.fixed_to_moving, case.fixed_to_moving, case.surface_mm),
            step.seconds,
        )
        for step in result.steps
    )
    after = scores_of(case, result.fixed_to_moving, fixed_to_patient)
    return Row(*identity, before, after, steps, result.seconds, result.warnings, expectation=result.expectation)


def _message(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, CrossalignError) else f"{type(error).__name__}: {text}"


def _named(methods: Mapping[str, Method] | Sequence[Method]) -> Mapping[str, Method]:
    if isinstance(methods, Mapping):
        return methods
    named = {method.name: method for method in methods}
    if len(named) < len(methods):
        raise InputError("two methods have one name: give a mapping that names each, {'name': method}")
    return named


def _check_request(
    cases: Sequence[Case | LoadedCase],
    methods: Mapping[str, Method],
    ranges: tuple[Start, ...],
    count: int,
) -> None:
    for what, given in (("case", cases), ("method", methods), ("initialisation", ranges)):
        if len(given) == 0:
            raise InputError(f"an evaluation needs 1 {what} or more, got none")
    if count < 1:
        raise InputError(f"ask for 1 initialisation or more for each case, got {count}")
    check_distinct(ranges)
    names = [case.name for case in cases]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"the case '{repeated[0]}' is given twice: its rows could not be told apart")
