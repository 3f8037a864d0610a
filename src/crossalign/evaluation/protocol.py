"""The protocol: cases x initialisations x methods -> one row each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from crossalign.arguments import checked
from crossalign.data import Case, LoadedCase, load_case
from crossalign.errors import CrossalignError, InputError
from crossalign.evaluation.accuracy import dice_score, surface_registration_error_mm, target_registration_error_mm
from crossalign.evaluation.conditions import given_besides, initial_transforms, registration_count
from crossalign.evaluation.error_parts import axes_text, check_rotation, error_parts
from crossalign.evaluation.initialisations import (
    Start,
    check_distinct,
    parse_initialisations,
)
from crossalign.evaluation.rows import Evaluation, Row, Scores, StepScore
from crossalign.geometry import Rigid
from crossalign.registration import Method, register

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
