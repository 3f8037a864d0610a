"""`crossalign models`, `calibrate` and `combine`: what models there are, and new model files of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crossalign.cli.checks import Outcome, check_apart
from crossalign.cli.requests.evaluation import CalibrateRequest, CombineRequest, ModelsRequest
from crossalign.errors import InputError
from crossalign.evaluation.calibration import fit_calibration, judge_calibration, report_lines
from crossalign.evaluation.error_estimates import read_error_estimates
from crossalign.models import Ensemble, RunSettings, combine, load_model, save_model
from crossalign.models.model import model_facts
from crossalign.models.pretrained import shipped_file, shipped_names, shipped_path
from crossalign.output import check_output
from crossalign.registration.methods import PLAIN_METHODS, default_method_name

HEADER = ("name", "for", "network", "MB", "licence", "sha256 of each stage")


def run_models(request: ModelsRequest) -> Outcome:
    """List every method and the shipped models as a table, or print one model card. Raises CrossalignError."""
    return Outcome(_card_lines(request.name) if request.name is not None else _table_lines())


def _table_lines() -> tuple[str, ...]:
    rows: list[tuple[str, ...]] = [HEADER]
    rows += [(name, "registration", "none", "", "", "needs no weights") for name in PLAIN_METHODS]
    registration = (default_method_name(), default_method_name(fixed_mask=True))
    defaults = {"registration": registration, "fusion": shipped_names("fusion")[:1], "recognition": ()}
    for task, names in defaults.items():
        rows += [_row(name, task, name in names) for name in shipped_names(task)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return (
        *lines,
        "",
        "* the default (of registration: with and without a fixed mask). A card: crossalign models NAME",
    )


def _row(name: str, task: str, default: bool) -> tuple[str, ...]:
    file = shipped_file(name)
    digests = " ".join(stage.sha256[:12] for stage in file.stages)
    network, licence = (text.split(",")[0].replace("`", "") for text in (file.card.network, file.card.licence))
    return (
        f"{name}{' *' if default else ''}",
        task,
        network,
        f"{file.path.stat().st_size / 1e6:.1f}",
        licence,
        digests,
    )


def _card_lines(name: str) -> tuple[str, ...]:
    file = shipped_file(name)
    lines = [*file.card.markdown().rstrip().splitlines(), "", "## File", ""]
    lines.append(f"- {file.path.name}: {file.path.stat().st_size / 1e6:.2f} MB")
    lines += [f"- stage {number}: SHA-256 {stage.sha256}" for number, stage in enumerate(file.stages, start=1)]
    if file.task == "registration":
        lines += [f"- {label}: {text}" for label, text in model_facts(file).items()]
    return tuple(lines)


def run_calibrate(request: CalibrateRequest) -> Outcome:
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
    lines = report_lines(judge_calibration(calibration, read_error_estimates(judged, request.method)))
    lines.insert(0, f"fitted on {request.table}, judged on {judged}")
    if request.output is not None:
        model = load_model(sources)
        model = replace(model, run=request.run.over(model.run), calibration=calibration)
        save_model(model, request.output, request.overwrite)
        lines.append(f"wrote    {request.output} (the whole model, with: {model.run.text()})")
    return Outcome(tuple(lines))


def run_combine(request: CombineRequest) -> Outcome:
    """Combine models and write the result; raises CrossalignError."""
    check_output(request.output, request.overwrite)
    check_apart((request.output,), _files(request.sources))
    run = request.run.over(RunSettings()) if request.run.values else None
    if request.ensemble:
        model = combine([load_model(source) for source in request.sources], Ensemble, run)
    else:
        model = load_model(request.sources, run=run)
    save_model(model, request.output, request.overwrite)
    facts = (f"{label}: {text}" for label, text in model.facts().items())
    return Outcome((*facts, f"wrote    {request.output}"))


def _files(sources: Sequence[str]) -> list[Path]:
    """Return the files of models, some of which may be named."""
    return [shipped_path(source) or Path(source) for source in sources]
