"""`crossalign models`, `calibrate` and `combine`: what models there are, and new model files of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from crossalign.cli.checks import check_apart
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.evaluation import CalibrateRequest, CombineRequest, ModelsRequest
from crossalign.cli.results.evaluation import (
    CalibrateResult,
    CombineResult,
    ModelEntry,
    ModelsResult,
    ReliabilityResult,
)
from crossalign.errors import InputError
from crossalign.evaluation.calibration import CalibrationReport, fit_calibration, judge_calibration, report_lines
from crossalign.evaluation.error_estimates import read_error_estimates
from crossalign.models import Ensemble, RunSettings, combine, load_model, save_model
from crossalign.models.model import model_facts
from crossalign.models.pretrained import shipped_file, shipped_names, shipped_path
from crossalign.output import check_output
from crossalign.registration.methods import PLAIN_METHODS, default_method_name

HEADER = ("name", "for", "network", "MB", "licence", "sha256 of each stage")


def run_models(request: ModelsRequest) -> Outcome[ModelsResult]:
    """List every method and the shipped models as a table, or print one model card. Raises CrossalignError."""
    entries = _entries()
    if request.name is None:
        return Outcome(_table_lines(entries), result=ModelsResult(entries, None))
    lines = _card_lines(request.name)
    named = tuple(entry for entry in entries if entry.name == request.name)
    return Outcome(lines, result=ModelsResult(named, shipped_file(request.name).card.markdown()))


def _entries() -> tuple[ModelEntry, ...]:
    """List every method without weights, and the shipped models by task."""
    plain = [ModelEntry(name, "registration", None, None, None, False, ()) for name in PLAIN_METHODS]
    registration = (default_method_name(), default_method_name(fixed_mask=True))
    defaults = {"registration": registration, "fusion": shipped_names("fusion")[:1], "recognition": ()}
    shipped = [_entry(name, task, name in names) for task, names in defaults.items() for name in shipped_names(task)]
    return (*plain, *shipped)


def _table_lines(entries: Sequence[ModelEntry]) -> tuple[str, ...]:
    rows: list[tuple[str, ...]] = [HEADER, *(_row(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return (
        *lines,
        "",
        "* the default (of registration: with and without a fixed mask). A card: crossalign models NAME",
    )


def _entry(name: str, task: str, is_default: bool) -> ModelEntry:
    file = shipped_file(name)
    network, licence = (text.split(",")[0].replace("`", "") for text in (file.card.network, file.card.licence))
    digests = tuple(stage.sha256 for stage in file.stages)
    return ModelEntry(name, task, network, file.path.stat().st_size / 1e6, licence, is_default, digests)


def _row(entry: ModelEntry) -> tuple[str, ...]:
    return (
        f"{entry.name}{' *' if entry.is_default else ''}",
        entry.task,
        entry.network or "none",
        "" if entry.size_mb is None else f"{entry.size_mb:.1f}",
        entry.licence or "",
        " ".join(digest[:12] for digest in entry.stages_sha256) or "needs no weights",
    )


def _card_lines(name: str) -> tuple[str, ...]:
    file = shipped_file(name)
    lines = [*file.card.markdown().rstrip().splitlines(), "", "## File", ""]
    lines.append(f"- {file.path.name}: {file.path.stat().st_size / 1e6:.2f} MB")
    lines += [f"- stage {number}: SHA-256 {stage.sha256}" for number, stage in enumerate(file.stages, start=1)]
    if file.task == "registration":
        lines += [f"- {label}: {text}" for label, text in model_facts(file).items()]
    return tuple(lines)


def run_calibrate(request: CalibrateRequest) -> Outcome[CalibrateResult]:
    """Fit, judge, and on request write the model anew with the calibration in it. Raises CrossalignError."""
    if (request.model is None) != (request.output is None):
        raise InputError("--model and --output belong together: the model to calibrate, and the file to write")
    sources = () if request.model is None else tuple(request.model.split("+"))
    if request.output is not None:
        check_output(request.output, request.overwrite)
        read = (request.table, *([request.judge] if request.judge else []), *_files(sources))
        check_apart((request.output,), read)
    calibration = fit_calibration(
        read_error_estimates(request.table, request.method), request.threshold_mm, request.keep, request.probability
    )
    judged = request.judge or request.table
    report = judge_calibration(calibration, read_error_estimates(judged, request.method))
    lines = report_lines(report)
    lines.insert(0, f"fitted on {request.table}, judged on {judged}")
    if request.output is not None:
        model = load_model(sources)
        model = replace(model, run=request.run.over(model.run), calibration=calibration)
        save_model(model, request.output, request.overwrite)
        lines.append(f"wrote    {request.output} (the whole model, with: {model.run.text()})")
    outputs = () if request.output is None else (request.output,)
    return Outcome(tuple(lines), result=_calibrated(request.table, judged, report), outputs=outputs)


def _calibrated(fitted: Path, judged: Path, report: CalibrationReport) -> CalibrateResult:
    found = report.calibration
    return CalibrateResult(
        fitted_on=fitted,
        judged_on=judged,
        base_mm=found.base_mm,
        per_dispersion=found.per_dispersion,
        per_network=found.per_network,
        terms=tuple(asdict(term) for term in found.terms),
        threshold_mm=found.threshold_mm,
        bound_factor=found.bound_factor,
        bound_probability=found.bound_probability,
        trusted_count=report.trusted_count,
        within_bound_fraction=report.within_bound,
        trusted_sre_mm=report.trusted_sre_mm,
        untrusted_sre_mm=report.untrusted_sre_mm,
        rank_correlation=report.rank_correlation,
        reliability=tuple(ReliabilityResult(**asdict(one)) for one in report.reliability),
    )


def run_combine(request: CombineRequest) -> Outcome[CombineResult]:
    """Combine models and write the result; raises CrossalignError."""
    check_output(request.output, request.overwrite)
    check_apart((request.output,), _files(request.sources))
    run = request.run.over(RunSettings()) if request.run.values else None
    if request.ensemble:
        model = combine([load_model(source) for source in request.sources], Ensemble, run)
    else:
        model = load_model(request.sources, run=run)
    save_model(model, request.output, request.overwrite)
    facts = model.facts()
    lines = (*(f"{label}: {text}" for label, text in facts.items()), f"wrote    {request.output}")
    return Outcome(lines, result=CombineResult(request.output, facts), outputs=(request.output,))


def _files(sources: Sequence[str]) -> list[Path]:
    """Return the files of models, some of which may be named."""
    return [shipped_path(source) or Path(source) for source in sources]
