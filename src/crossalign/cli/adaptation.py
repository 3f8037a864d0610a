"""`crossalign adapt`: a model made better for one site's pairs, or left as it was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from crossalign.cli.checks import check_apart, files_in, pick_device, weight_files
from crossalign.cli.console import Progress, print_note
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.training import AdaptRequest
from crossalign.cli.results.training import AdaptResult, ComparisonResult, CurveResult, ErrorsEntry
from crossalign.cli.training_run import RunBar
from crossalign.data.scan_pairs import read_scan_pairs
from crossalign.errors import InputError
from crossalign.evaluation import Row
from crossalign.report.pages.adaptation import write_adaptation_report
from crossalign.training import AdaptationResult, AdaptationSettings, adapt
from crossalign.training.adaptation.adapt import Watching
from crossalign.training.adaptation.comparison import Comparison
from crossalign.training.adaptation.folder import CURVE, FIGURE, MANIFEST, REPORT, VAL_TABLE
from crossalign.training.adaptation.orientation import HEADER, correction_of
from crossalign.training.adaptation.result import StageCurve
from crossalign.training.tasks.registration import MEASURE


def run_adapt(request: AdaptRequest) -> Outcome[AdaptResult]:
    """Adapt, or go on with the adaptation that the folder holds. Raises CrossalignError."""
    settings = _settings(request)
    outputs = (request.output / f"{request.name}.safetensors", request.output / MANIFEST)
    check_apart(outputs, (request.source, *weight_files(request.initial)))
    device = pick_device(request.device)
    with _Bars(settings.steps) as bars:
        watching = Watching(bars.pair, bars.step, bars.registration)
        minutes = request.minutes or math.inf
        result = adapt(
            request.source, request.initial, request.output, settings, request.name, minutes, device, watching
        )
    if result.curves:
        write_adaptation_report(result, request.output / FIGURE, request.output / REPORT)
    lines, written = _lines(request.output, result), files_in(request.output)
    return Outcome(tuple(lines), tuple(_warnings(result)), 0, _result(result), written)


def _result(result: AdaptationResult) -> AdaptResult:
    return AdaptResult(
        folder=result.folder,
        model=result.model,
        is_adapted=result.is_adapted,
        verdict=result.verdict,
        patients_trained_on=result.patients[0],
        patients_measured_on=result.patients[1],
        references={str(kind): count for kind, count in result.references.items()},
        left_out={one.name: one.reason for one in result.left_out},
        curves=tuple(_curve(curve) for curve in result.curves),
        comparison=None if result.comparison is None else _comparison(result.comparison),
        seconds=result.seconds,
        notes=result.notes,
    )


def _curve(curve: StageCurve) -> CurveResult:
    steps, values = zip(*curve.points, strict=True) if curve.points else ((), ())
    return CurveResult(curve.number, tuple(steps), tuple(values), curve.best_step)


def _comparison(found: Comparison) -> ComparisonResult:
    return ComparisonResult(
        patients=found.patients,
        initial=ErrorsEntry(**asdict(found.initial)),
        before=ErrorsEntry(**asdict(found.before)),
        after=ErrorsEntry(**asdict(found.after)),
        gain_mm=found.gain_mm,
        noise_mm=found.noise_mm,
        before_tre_mm=found.before_tre_mm,
        after_tre_mm=found.after_tre_mm,
    )


def _settings(request: AdaptRequest) -> AdaptationSettings:
    settings = request.settings.over(AdaptationSettings())
    codes = request.fixed_orientation, request.moving_orientation
    if set(codes) == {HEADER}:
        return settings
    if "orientation_correction" in request.settings.values:
        raise InputError("--orientation-correction and the orientations say the same in two ways: give one of them")
    return replace(settings, orientation_correction=correction_of(read_scan_pairs(request.source), *codes))


class _Bars:
    """One progress after the other: of each stage's steps, and of the registrations that compare the models."""

    def __init__(self, steps: int) -> None:
        self._steps, self._stage = steps, 0
        self._run: RunBar | None = None
        self._registrations: Progress | None = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_error: object) -> None:
        for bar in (self._run, self._registrations):
            if bar is not None:
                bar.__exit__()

    def pair(self, text: str) -> None:
        """Print what became of a pair."""
        print_note("reference", text)

    def step(self, stage: int, row: Mapping[str, float]) -> None:
        """Show a step of a stage."""
        if self._run is None or stage != self._stage:
            if self._run is not None:
                self._run.__exit__()
            print_note("training", f"stage {stage}")
            self._run, self._stage = RunBar(self._steps, MEASURE, "val SRE {:.2f} mm"), stage
        self._run.watch(row)

    def registration(self, _done: int, total: int, row: Row) -> None:
        """Show a registration of the comparison."""
        if self._registrations is None:
            self._registrations = Progress(total, "registration")
        note = f"{row.case} {row.method} {row.before.sre_mm:.1f} -> {row.after.sre_mm:.1f} mm"
        self._registrations.advance(note)


def _lines(folder: Path, result: AdaptationResult) -> list[str]:
    width = 10
    lines = [f"{label:{width}}{text}" for label, text in result.facts().items()]
    for curve in result.curves:
        points = ", ".join(f"{step}: {sre_mm:.2f}" for step, sre_mm in curve.points)
        lines.append(f"{f'stage {curve.number}':{width}}val SRE (mm) by step: {points}; best at {curve.best_step}")
    lines += [f"{'result':{width}}{result.verdict}", f"{'seconds':{width}}{result.seconds:.0f}"]
    lines += [f"{'note':{width}}{note}" for note in result.notes]
    if result.model is not None:
        lines.append(f"{'wrote':{width}}{result.model} (use it: crossalign register --method {result.model})")
    also = ", ".join(name for name in (CURVE, FIGURE, REPORT, VAL_TABLE, MANIFEST) if (folder / name).is_file())
    return [*lines, f"{'wrote':{width}}{folder} ({also})"]


def _warnings(result: AdaptationResult) -> list[str]:
    return [f"{one.name} was left out: {one.reason}" for one in result.left_out]
