"""The protocol: cases x starts x methods -> one row each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from crossalign.data import Case, LoadedCase, load_case
from crossalign.errors import CrossalignError, InputError
from crossalign.evaluation.initialisations import InitialisationRange, check_distinct, draw_initialisations
from crossalign.evaluation.metrics import dice_score, surface_registration_error_mm, target_registration_error_mm
from crossalign.geometry import Rigid
from crossalign.registration import Expectation, Method, RegistrationResult, register


@dataclass(frozen=True)
class Scores:
    """How good one transform is. TRE is NaN for a case without landmarks, Dice NaN for one without a moving mask.

    `residual` is what is left to correct: the six parameters (tx, ty, tz in mm, rx, ry, rz in degrees) about the fixed
    gland's centroid of the motion D with transform = reference @ D, along LPS axes. Empty where it was not measured.
    """

    sre_mm: float
    tre_mm: float = math.nan
    dice: float = math.nan
    residual: tuple[float, ...] = ()


@dataclass(frozen=True)
class StepScore:
    """SRE after one stage of a method, and the seconds that the stage took."""

    name: str
    sre_mm: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One registration. Where it failed, `error` says why, `after` is `before` (the start stands), `steps` is empty."""

    case: str
    patient: str
    split: str
    start: str
    repeat: int
    method: str
    before: Scores
    after: Scores
    steps: tuple[StepScore, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    error: str = ""
    expectation: Expectation = field(default_factory=Expectation)


@dataclass(frozen=True)
class Evaluation:
    """All rows in order (case, start, repeat, method), and what they were made from."""

    rows: tuple[Row, ...]
    methods: tuple[str, ...]
    starts: tuple[str, ...]
    count: int
    seed: int
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def failed(self) -> tuple[Row, ...]:
        """Return the rows of registrations that ended in an error."""
        return tuple(row for row in self.rows if row.error)


Progress = Callable[[int, int, Row], None]


def evaluate(
    cases: Sequence[Case | LoadedCase],
    methods: Mapping[str, Method],
    starts: Sequence[InitialisationRange],
    count: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Register every case from `count` starts of every range with every method, and measure.

    Methods are called by the names of the mapping, and are given the gland in the fixed image, as the papers' are. One
    case is in memory at a time. `progress(done, total, row)` is called after each registration. An error in a
    registration becomes a row; one in a case's files is raised, as are InputErrors about the request itself.
    """
    _check_request(cases, methods, tuple(starts), count)
    total = len(cases) * len(starts) * count * len(methods)
    rows: list[Row] = []
    for case in cases:
        loaded = load_case(case) if isinstance(case, Case) else case
        for row in evaluate_case(loaded, methods, starts, count, seed):
            rows.append(row)
            if progress is not None:
                progress(len(rows), total, row)
    settings = {name: dict(method.settings()) for name, method in methods.items()}
    return Evaluation(tuple(rows), tuple(methods), tuple(str(start) for start in starts), count, seed, settings)


def evaluate_case(
    case: LoadedCase, methods: Mapping[str, Method], starts: Sequence[InitialisationRange], count: int, seed: int
) -> Iterator[Row]:
    """Yield the rows of one case: for each start, one for each method, so that methods share the machine's moods."""
    for start_range in starts:
        for repeat, initial in enumerate(draw_initialisations(case, start_range, count, seed)):
            before = scores_of(case, initial)
            for name, method in methods.items():
                yield _row(case, (str(start_range), repeat, name), method, initial, before)


def scores_of(case: LoadedCase, fixed_to_moving: Rigid) -> Scores:
    """Measure one transform against the case's reference, landmarks and glands."""
    marks, gland = case.landmarks, case.moving_mask
    left = (case.fixed_to_moving.inverse() @ fixed_to_moving).to_parameters(case.fixed_mask.centroid_mm())
    return Scores(
        surface_registration_error_mm(fixed_to_moving, case.fixed_to_moving, case.surface_mm),
        target_registration_error_mm(fixed_to_moving, marks.fixed_mm, marks.moving_mm) if marks else math.nan,
        dice_score(case.fixed_mask, gland, fixed_to_moving) if gland else math.nan,
        tuple(left.tolist()),
    )


def _row(case: LoadedCase, key: tuple[str, int, str], method: Method, initial: Rigid, before: Scores) -> Row:
    identity = (case.name, case.patient, case.split, *key)
    began = time.perf_counter()
    try:
        result = register(case.fixed, case.moving, method, initial, case.fixed_mask)
    except Exception as error:  # noqa: BLE001 - a night's table must outlive any fault of one method on one pair
        seconds = time.perf_counter() - began
        return Row(*identity, before, before, (), seconds, error=_message(error))
    after = scores_of(case, result.fixed_to_moving)
    told = (result.seconds, tuple(result.warnings))
    return Row(*identity, before, after, _step_scores(case, result), *told, expectation=result.expectation)


def _step_scores(case: LoadedCase, result: RegistrationResult) -> tuple[StepScore, ...]:
    return tuple(
        StepScore(
            step.name,
            surface_registration_error_mm(step.fixed_to_moving, case.fixed_to_moving, case.surface_mm),
            step.seconds,
        )
        for step in result.steps
    )


def _message(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, CrossalignError) else f"{type(error).__name__}: {text}"


def _check_request(
    cases: Sequence[Case | LoadedCase],
    methods: Mapping[str, Method],
    starts: tuple[InitialisationRange, ...],
    count: int,
) -> None:
    for what, given in (("case", cases), ("method", methods), ("start", starts)):
        if len(given) == 0:
            raise InputError(f"an evaluation needs 1 {what} or more, got none")
    if count < 1:
        raise InputError(f"ask for 1 start or more for each case, got {count}")
    check_distinct(starts)
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the case '{twice[0]}' is given twice: its rows could not be told apart")
