"""`crossalign evaluate`: methods by cases by initialisations, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from crossalign.cli.checks import check_apart, pick_device, weight_files
from crossalign.cli.console import Progress
from crossalign.cli.methods import configured
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.evaluation import EvaluateRequest
from crossalign.cli.results.evaluation import EvaluateResult
from crossalign.data import Case, in_split, read_manifest
from crossalign.errors import InputError
from crossalign.evaluation import (
    Evaluation,
    InitialisationRange,
    Row,
    check_evaluation_output,
    evaluate,
    evaluation_paths,
    summary_markdown,
    write_evaluation,
)
from crossalign.evaluation.conditions import registration_count
from crossalign.evaluation.initialisations import NamedInitialisation, Start, check_distinct
from crossalign.evaluation.rows import pandas_module
from crossalign.evaluation.summary import plain_records, summarise
from crossalign.geometry import quarter_turn, rotation_of_code
from crossalign.images import read_image
from crossalign.input import excerpt
from crossalign.networks import count_parameters
from crossalign.registration import Method, NetworkRegistration
from crossalign.registration.methods import named_method
from crossalign.registration.orientation import HEADER
from crossalign.registration.oriented import Oriented


def run_evaluate(request: EvaluateRequest) -> Outcome[EvaluateResult]:
    """Evaluate the methods and write the tables. Raises CrossalignError, before any registration where it can."""
    pandas_module()
    check_evaluation_output(request.output, request.overwrite, request.figures)
    ranges = _starts(request)
    cases = read_manifest(request.manifest)
    names = _names(request.method)
    check_apart(evaluation_paths(request.output, request.figures), _inputs(request.manifest, cases, names))
    if request.split != "all":
        cases = in_split(cases, request.split)
    device = pick_device(request.device)
    made = [named_method(name, device) for name in names.values()]
    methods = dict(zip(names, configured(made, request.run, request.mi, request.mind, request.surface), strict=True))
    total = registration_count(len(cases), ranges, request.count, len(methods))
    with Progress(total, "registration") as progress:

        def advance(_done: int, _total: int, row: Row) -> None:
            progress.advance(f"{row.case} {row.method} {row.before.sre_mm:.1f} -> {row.after.sre_mm:.1f} mm")

        axes = _fixed_to_patient(request, cases, methods.values())
        oriented = _oriented(request, methods)
        evaluation = evaluate(cases, oriented, ranges, request.count, request.initialisation_seed, advance, axes)
    counts = {
        name: count_parameters(m.model.stages[0].network)
        for name, m in methods.items()
        if isinstance(m, NetworkRegistration)
    }
    written = write_evaluation(evaluation, request.output, request.overwrite, counts, request.figures)
    lines = (summary_markdown(evaluation, counts), "", *(f"wrote    {path}" for path in written))
    summary = tuple(plain_records(summarise(evaluation, counts)))
    failed = len(evaluation.failed())
    result = EvaluateResult(len(cases), len(evaluation.rows), failed, request.output, summary)
    return Outcome(lines, _warnings(evaluation), 0, result, tuple(written))


def _starts(request: EvaluateRequest) -> tuple[Start, ...]:
    """Read from where is registered; raises InputError where nothing was said, or something twice."""
    starts: tuple[Start, ...] = (
        *(InitialisationRange.parse(text) for text in request.initial_sre_mm),
        *(NamedInitialisation(name, request.moving_orientation) for name in request.initial),
    )
    if request.moving_orientation != HEADER and not request.initial:
        raise InputError(
            "--moving-orientation is for --initial masks, mask-center or center: with --initial-sre-mm the true "
            "transforms say how the moving images lie"
        )
    if not starts:
        raise InputError("say from where to register: --initial-sre-mm 0-20, or --initial masks where none is tracked")
    check_distinct(starts)
    return starts


def _names(spelled: Sequence[str]) -> dict[str, str]:
    """Read methods such as `mi` or `mine=stage1.safetensors+stage2.safetensors`: their names by that of their row."""
    names: dict[str, str] = {}
    for text in spelled:
        label, equals, name = text.rpartition("=")
        if not name.strip() or (equals and not label.strip()):
            raise InputError(f"--method '{excerpt(text)}': expected NAME=METHOD, or a method alone")
        if (label or name) in names:
            raise InputError(
                f"--method: two methods are called '{excerpt(label or name)}', and their rows could not be told apart: "
                "write NAME=METHOD to name each"
            )
        names[label or name] = name
    return names


def _inputs(manifest: Path, cases: tuple[Case, ...], names: Mapping[str, str]) -> tuple[Path, ...]:
    """Name every file that is read: the manifest, what it names, and weights."""
    named = (p for c in cases for p in (c.fixed, c.moving, c.fixed_mask, c.reference, c.moving_mask, c.landmarks))
    weights = (path for name in names.values() for path in weight_files(name))
    return (manifest, *(path for path in named if path is not None), *weights)


def _oriented(request: EvaluateRequest, methods: Mapping[str, Method]) -> Mapping[str, Method]:
    """Return the methods with the orientations that were given."""
    given = request.fixed_orientation, request.moving_orientation
    return methods if set(given) == {HEADER} else {name: Oriented(method, *given) for name, method in methods.items()}


def _fixed_to_patient(request: EvaluateRequest, cases: Sequence[Case], methods: Iterable[Method]) -> Tensor:
    """Return the rotation (3, 3) that the errors of the centre need: as given, or as the networks agree.

    Of an orientation code it is that of the first case.
    """
    if request.axes_correction is not None:
        return quarter_turn(request.axes_correction // 90)
    if request.fixed_orientation != HEADER:
        return rotation_of_code(request.fixed_orientation, read_image(cases[0].fixed).grid)
    corrections = {m.run.orientation_correction for m in methods if isinstance(m, NetworkRegistration)}
    known = [degrees for degrees in corrections if degrees != "auto"]
    return quarter_turn(known[0] // 90 if len(corrections) == len(known) == 1 else 0)


def _warnings(evaluation: Evaluation) -> tuple[str, ...]:
    failed = evaluation.failed()
    if not failed:
        return ()
    first = f"{failed[0].case}, {failed[0].method}: {failed[0].error}"
    count = f"{len(failed)} of {len(evaluation.rows)}"
    return (f"{count} registrations failed (they keep their initialisation); the first: {first}",)
