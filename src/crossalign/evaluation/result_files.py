"""The files of an evaluation: rows and summary as CSV, the papers' tables as Markdown and LaTeX, and figures."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from crossalign.cells import csv_text, markdown_cell
from crossalign.errors import OutputError
from crossalign.evaluation.paper_tables import paper_tables
from crossalign.evaluation.plots import box_plots, draw_figure, failure_curves, part_plots
from crossalign.evaluation.rows import Evaluation
from crossalign.evaluation.summary import NO_COUNTS, plain_records, summarise
from crossalign.output import check_output, whole_files, write_text

SUMMARY_SUFFIXES = (".summary.csv", ".summary.md", ".summary.tex")
FIGURE_SUFFIXES = (".boxes.png", ".boxes.svg", ".failures.png", ".failures.svg", ".parts.png", ".parts.svg")


def rows_csv(evaluation: Evaluation) -> str:
    """Write one line for each registration; mm, seconds; an undefined value is an empty cell.

    A failed registration repeats the errors of its initial transform and says why in `error`. Steps of a method are
    numbered from 1; `steps` names them, `reasons` and `warnings` are joined by a vertical bar. `expected_sre_mm`,
    `trusted` (1 or 0), `dispersion_mm` and `network_sre_mm` are what the method says of its own error; `crossalign
    calibrate` reads them. `center_error_left_mm`, `..._posterior_mm` and `..._superior_mm` are how far too far to the
    patient's left, posterior and superior the structure's centre is taken, `center_error_mm` is their length, and
    `angle_error_deg` the angle of the rotation that is left; `initial_...` those of the initial transform. The columns
    `residual_...` are the same motion as six parameters along the axes of the fixed image's world (see `Scores`).
    """
    records = evaluation.records()
    return csv_text([list(records[0]), *([_cell(value) for value in record.values()] for record in records)])


def summary_csv(evaluation: Evaluation, parameter_counts: Mapping[str, int] = NO_COUNTS) -> str:
    """Write one line for each method and initialisation range: the columns of `summarise`."""
    records = plain_records(summarise(evaluation, parameter_counts))
    lines = (
        [_cell(value, 6 if name.startswith("against_best") else 4) for name, value in record.items()]
        for record in records
    )
    return csv_text([list(records[0]), *lines])


def summary_markdown(evaluation: Evaluation, parameter_counts: Mapping[str, int] = NO_COUNTS) -> str:
    """Write the papers' tables, the measures beside them and the tests, with how they were made."""
    parts = [table.markdown() for table in paper_tables(evaluation, parameter_counts)]
    return "\n\n".join([*parts, _notes(evaluation), *settings_markdown(evaluation.settings)]) + "\n"


def summary_latex(evaluation: Evaluation, parameter_counts: Mapping[str, int] = NO_COUNTS) -> str:
    """Write the same tables for a paper; they need the LaTeX package booktabs."""
    parts = [table.latex() for table in paper_tables(evaluation, parameter_counts)]
    note = "\n".join(f"% {line}" for line in _notes(evaluation).splitlines())
    return "\n\n".join(["% Needs \\usepackage{booktabs}.", *parts, note]) + "\n"


def settings_markdown(settings: Mapping[str, Mapping[str, str]]) -> list[str]:
    """List the settings of each method, as a paragraph; none where there is no method."""
    lines = [
        "- "
        + markdown_cell(f"{name}: " + (", ".join(f"{key} = {value}" for key, value in used.items()) or "no settings"))
        for name, used in settings.items()
    ]
    return ["Settings:\n\n" + "\n".join(lines)] if lines else []


def _notes(evaluation: Evaluation) -> str:
    cases, patients = {row.case for row in evaluation.rows}, {row.patient for row in evaluation.rows}
    return (
        f"{len(cases)} cases of {len(patients)} patients; initialisations for each case and range: {evaluation.count}; "
        f"seed {evaluation.seed}.\n"
        "Mean ± sd over registrations (case x initialisation); 95 % intervals of means by bootstrap over patients.\n"
        "A failed registration counts with the errors of its initial transform.\n"
        f"Axes of the centre's errors: {evaluation.axes}.\n"
        "Tests pair registrations; Holm's family is the whole table. Those of one patient are not independent:\n"
        "read p beside the interval of the difference, which is by patient."
    )


def _cell(value: object, digits: int = 4) -> str:
    """Write a value of a table as text: nothing for an undefined one, 1 or 0 for a truth value."""
    if isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, float):
        return "" if value is None else str(value)
    if math.isnan(value):
        return ""
    return f"{value:.{digits}g}" if 0 < abs(value) < 1e-3 else f"{value:.{digits}f}"


def evaluation_paths(path: str | os.PathLike[str], figures: bool = False) -> tuple[Path, ...]:
    """Name the files that `write_evaluation` writes: `table.csv`, `table.summary.csv`, ...; raises OutputError."""
    path = Path(path)
    if path.suffix != ".csv":
        raise OutputError(f"{path}: the table is written as CSV: end the name in .csv")
    suffixes = SUMMARY_SUFFIXES + (FIGURE_SUFFIXES if figures else ())
    return (path, *(path.with_suffix(suffix) for suffix in suffixes))


def check_evaluation_output(path: str | os.PathLike[str], overwrite: bool = False, figures: bool = False) -> None:
    """Raise OutputError where one of the files could not be written: ask before the hours of work, not after."""
    for name in evaluation_paths(path, figures):
        check_output(name, overwrite)


def write_evaluation(
    evaluation: Evaluation,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    parameter_counts: Mapping[str, int] = NO_COUNTS,
    figures: bool = False,
) -> tuple[Path, ...]:
    """Write the row table to `path` and the summaries (and figures) beside it; return every path written.

    All of them appear, whole, or none does. `parameter_counts` says how many trainable parameters one stage of a method
    has, by the method's name. Raises OutputError.
    """
    check_evaluation_output(path, overwrite, figures)
    paths = evaluation_paths(path, figures)
    texts = (
        rows_csv(evaluation),
        summary_csv(evaluation, parameter_counts),
        summary_markdown(evaluation, parameter_counts),
        summary_latex(evaluation, parameter_counts),
    )
    drawn = (box_plots(evaluation), failure_curves(evaluation), part_plots(evaluation)) if figures else ()
    with whole_files(paths, overwrite) as partials:
        for partial, text in zip(partials, texts, strict=False):
            write_text(text, partial)
        for index, partial in enumerate(partials[len(texts) :]):
            draw_figure(drawn[index // 2], partial)
    return paths
