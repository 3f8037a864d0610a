"""`crossalign calibrate`: from a table of registrations whose answer is known to an expected error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from crossalign.cli.options import Outcome, check_apart, split_list
from crossalign.cli.running import parse_run
from crossalign.errors import InputError
from crossalign.evaluation.calibration import fit_calibration, judge_calibration, read_error_estimates, report_lines
from crossalign.models import load_model, save_model
from crossalign.output import check_output


@dataclass(frozen=True)
class CalibrateRequest:
    """The options of `crossalign calibrate`; `weights` are files joined with +, or a shipped name."""

    table: Path
    method: str | None = None
    threshold_mm: float | None = None
    keep: float = 0.8
    judge: Path | None = None
    weights: str | None = None
    run: str = ""
    output: Path | None = None
    overwrite: bool = False


def run_calibrate(request: CalibrateRequest) -> Outcome:
    """Fit, judge, and on request write the model anew with the calibration in it. Raises CrossalignError."""
    if (request.weights is None) != (request.output is None):
        raise InputError("--weights and --output belong together: the stage to calibrate, and the file to write")
    if request.output is not None:
        check_output(request.output, request.overwrite)
        weights = split_list(request.weights or "", "--weights", "+")
        read = (request.table, *([request.judge] if request.judge else []), *map(Path, weights))
        check_apart((request.output,), read)
    calibration = fit_calibration(
        read_error_estimates(request.table, request.method), request.threshold_mm, request.keep
    )
    judged = request.judge or request.table
    lines = report_lines(judge_calibration(calibration, read_error_estimates(judged, request.method)))
    lines.insert(0, f"fitted on {request.table}, judged on {judged}")
    if request.weights is not None and request.output is not None:
        model = load_model(split_list(request.weights, "--weights", "+"))
        model = replace(model, run=parse_run(request.run, model.run), calibration=calibration)
        save_model(model, request.output, request.overwrite)
        lines.append(f"wrote    {request.output} (the whole model, with: {model.run.text()})")
    return Outcome(tuple(lines))
