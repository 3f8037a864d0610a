"""`crossalign explain`: a pair, an initialisation and a trained model in; maps, tables and a report out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from crossalign.cli.checks import check_apart, collected, pick_device, weight_files
from crossalign.cli.initialisation import read_fixed_mask, read_initialisation, read_moving_mask, transform_file
from crossalign.cli.orientation import PRIORS, Scans, found_orientation
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.registration import ExplainRequest
from crossalign.cli.results.registration import ExplainResult, ParameterResult, PointResult, StageResult
from crossalign.data.case import read_landmarks
from crossalign.errors import InputError, OutputError
from crossalign.explanation import Explanation, StageExplanation, explain
from crossalign.explanation.map_files import PARAMETER_TABLE, check_point_names, map_volumes, tables, write_table
from crossalign.images import read_image, read_points, write_image
from crossalign.input import read_text
from crossalign.output import check_output, whole_files
from crossalign.registration import Initialisation, NetworkRegistration, Problem
from crossalign.registration.methods import default_method_name, named_method
from crossalign.registration.result import VERDICT
from crossalign.types import Vector

REPORT, FIGURE = "report.html", "figure.png"


def input_files(request: ExplainRequest) -> tuple[Path, ...]:
    """Every file that is read."""
    masks = request.fixed_mask, request.moving_mask
    paths = (request.fixed, request.moving, *masks, request.landmarks, transform_file(request.initial))
    return (*(path for path in paths if path is not None), *weight_files(request.method))


def run_explain(request: ExplainRequest) -> Outcome[ExplainResult]:
    """Explain one pair and write all of it into the folder, or nothing. Raises CrossalignError."""
    with collected() as input_warnings:
        points = _points(request)
        _check_folder(request)
        cascade = _cascade(request)
        problem, initial, doubts = _problem(request, cascade)
        explanation = explain(problem, cascade, points, request.steps)
    reasons = tuple(f"{VERDICT}: {reason}" for reason in (*doubts, *explanation.result.reasons))
    explanation = replace(explanation, warnings=(*input_warnings, *explanation.warnings))
    with _made(request.output):
        names = _write(request, explanation)
    result = _result(request, explanation, initial, doubts)
    outputs = tuple(request.output / name for name in names)
    lines = _lines(request, explanation, initial, len(names))
    return Outcome(tuple(lines), (*reasons, *explanation.warnings), 0, result, outputs)


def parse_point(text: str) -> Vector:
    """Read X,Y,Z in mm, (3,), float64; raises InputError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        raise InputError(f"--point '{text}': expected three numbers X,Y,Z in mm, LPS, such as --point=-12.5,40,8")
    return torch.tensor(numbers, dtype=torch.float64)


def _points(request: ExplainRequest) -> dict[str, Vector]:
    """Gather the points by name: those typed are called p1, p2, ..."""
    if request.point_name and request.landmarks is None:
        raise InputError("--point-name needs --landmarks: name the CSV file that holds the point")
    if request.landmarks is not None and not request.point_name:
        raise InputError("--landmarks needs --point-name: say which of its points to follow")
    found = [(f"p{number}", parse_point(text)) for number, text in enumerate(request.point, start=1)]
    known = {} if request.landmarks is None else _landmarks(request.landmarks)
    for name in request.point_name:
        if name not in known:
            raise InputError(f"no landmark is called '{name}': the file holds {', '.join(known) or 'none'}")
        found.append((name, known[name]))
    check_point_names([name for name, _ in found])
    return dict(found)


def _landmarks(path: Path) -> dict[str, Vector]:
    """Read the fixed points of a landmark file: pairs as a manifest's, or a points file of the fixed image."""
    header = read_text(path).partition("\n")[0]
    if header.count(",") == 6 and not header.lstrip().startswith(("{", "[")):  # JSON may be one line with commas
        pairs = read_landmarks(path)
        return {} if pairs is None else dict(zip(pairs.names, pairs.fixed_mm, strict=True))
    points = read_points(path)
    if points.frame == "moving":
        raise InputError(f"{path.name}: holds points of the moving image, expected those of the fixed image")
    return dict(zip(points.names, points.points_mm, strict=True))


def _check_folder(request: ExplainRequest) -> None:
    """Raise OutputError where the folder, or the files that are always in it, cannot be written."""
    folder = request.output
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, expected a folder")
    always = [folder / name for name in (REPORT, PARAMETER_TABLE, *([FIGURE] if request.figure else []))]
    check_apart(always, input_files(request))
    if not folder.exists():
        if folder.suffix.lower() in (".html", ".htm"):
            raise OutputError(f"{folder}: names a folder, in which the page is {REPORT}: leave out {folder.suffix}")
        check_output(folder)
        return
    for path in always:
        check_output(path, request.overwrite)


def _cascade(request: ExplainRequest) -> NetworkRegistration:
    name = request.method or default_method_name(request.fixed_mask is not None)  # surface has no networks to explain
    method = named_method(name, pick_device(request.device))
    if not isinstance(method, NetworkRegistration):
        raise InputError(
            f"'{name}' has no network whose attention could be explained: give trained weights (crossalign models "
            "lists them); what else it is judged by is in the report of crossalign register"
        )
    return method.with_run(request.run.over(method.run))


def _problem(request: ExplainRequest, method: NetworkRegistration) -> tuple[Problem, Initialisation, tuple[str, ...]]:
    fixed = read_image(request.fixed, series=request.fixed_series)
    moving = read_image(request.moving, series=request.moving_series)
    mask = read_fixed_mask(request.fixed_mask, request.mask_label, fixed)
    moving_mask = read_moving_mask(request.moving_mask, request.moving_mask_label, moving)
    initial = read_initialisation(request.initial, (fixed, moving), mask, moving_mask)
    orientation, initial = found_orientation(request, method, Scans(fixed, moving, mask, moving_mask), initial)
    axes = None if orientation is None else orientation.fixed_to_patient
    prior = PRIORS[request.rotation_prior]
    probability = None if orientation is None else orientation.probability
    problem = Problem(fixed, moving, initial.fixed_to_moving, mask, moving_mask, prior, axes, probability)
    doubts = () if orientation is None else orientation.reasons_beside(method.weighs_orientation)
    return problem, initial, doubts


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make the folder where it is missing, and take it away again where nothing came to lie in it."""
    fresh = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    try:
        yield
    except BaseException:
        if fresh:
            folder.rmdir()
        raise


def _write(request: ExplainRequest, explanation: Explanation) -> tuple[str, ...]:
    from crossalign.report.figures import write_explanation_figure  # slow to import
    from crossalign.report.pages.explanation import write_explanation_report

    images, rows = map_volumes(explanation), tables(explanation)
    names = (*images, *rows, REPORT, *([FIGURE] if request.figure else []))
    paths = [request.output / name for name in names]
    check_apart(paths, input_files(request))
    with whole_files(paths, request.overwrite) as partials:
        places = dict(zip(names, partials, strict=True))
        for name, image in images.items():
            write_image(image, places[name], overwrite=True)
        for name, table in rows.items():
            write_table(table, places[name])
        write_explanation_report(places[REPORT], explanation, overwrite=True)
        if request.figure:
            write_explanation_figure(places[FIGURE], explanation, overwrite=True)
    return names


def _result(
    request: ExplainRequest, explanation: Explanation, initial: Initialisation, doubts: tuple[str, ...]
) -> ExplainResult:
    reasons = (*doubts, *explanation.result.reasons)
    return ExplainResult(
        method=explanation.result.method,
        initial=initial.name,
        trusted=False if reasons else explanation.result.trusted,
        reasons=reasons,
        stages=tuple(_stage_result(stage) for stage in explanation.stages),
        folder=request.output,
        report=request.output / REPORT,
    )


def _stage_result(stage: StageExplanation) -> StageResult:
    parameters = (ParameterResult(one.name, one.unit, one.value, one.fixed_fraction) for one in stage.parameters)
    points = (
        PointResult(
            one.name,
            tuple(one.point_mm.tolist()),
            tuple(one.attended_mm.tolist()),
            None if one.matched_mm is None else tuple(one.matched_mm.tolist()),
        )
        for one in stage.attended_points
    )
    return StageResult(stage.crop.name, tuple(parameters), tuple(points))


def _lines(request: ExplainRequest, explanation: Explanation, initial: Initialisation, count: int) -> list[str]:
    reason = f" ({initial.reason})" if initial.reason else ""
    lines = [f"method   {explanation.result.method}", f"initial  {initial.name}{reason}"]
    for stage in explanation.stages:
        values = ", ".join(f"{one.name} {one.value:+.2f}" for one in stage.parameters)
        lines.append(f"{stage.crop.name}  {values} (mm, degrees)")
        for point in stage.attended_points:
            target = point.attended_mm if point.matched_mm is None else point.matched_mm
            words = "attends to" if point.matched_mm is None else "matches"
            position = ", ".join(f"{value:.1f}" for value in target.tolist())
            lines.append(f"         {point.name} {words} ({position}) mm of the moving image")
    lines.append(f"wrote    {count} files into {request.output}")
    lines.append(f"report   {request.output / REPORT}")
    return lines
