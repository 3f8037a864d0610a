"""An evaluation as text: the rows as CSV, the summary as CSV, and the papers' tables as Markdown and LaTeX."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from crossalign.cells import csv_text, markdown_cell
from crossalign.errors import OutputError
from crossalign.evaluation.figures import box_plots, draw_figure, failure_curves
from crossalign.evaluation.layout import Table, comparison_table, detail_table, result_table, stage_table, trust_table
from crossalign.evaluation.protocol import Evaluation, Row
from crossalign.evaluation.statistics import Spread
from crossalign.evaluation.summary import Comparison, Summary, compare_with_best, summarize
from crossalign.output import check_output, whole_files, write_text
from crossalign.registration import Expectation

NO_COUNTS: Mapping[str, int] = {}
RESIDUAL = ("residual_x_mm", "residual_y_mm", "residual_z_mm", "residual_rx_deg", "residual_ry_deg", "residual_rz_deg")
LATEX = str.maketrans(
    {letter: f"\\{letter}" for letter in "%#_&{}$"}
    | {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "±": "$\\pm$",
        "<": "$<$",
        ">": "$>$",
    }
)


def rows_csv(evaluation: Evaluation) -> str:
    """Write one line for each registration; mm, seconds; an undefined value is an empty cell.

    A failed registration repeats its start's errors and says why in `error`. Stages of one cell are numbered from 1;
    `steps` names them, `warnings` are joined by a vertical bar. `expected_sre_mm`, `trusted` (1 or 0), `dispersion_mm`
    and `network_sre_mm` are what the method says of its own error; `crossalign calibrate` reads them. The columns
    `residual_...` are the motion about the gland's centroid that the result is still off by (see `Scores`).
    """
    depth = max((len(row.steps) for row in evaluation.rows), default=0)
    stages = [
        f"{what}_{index + 1}{unit}"
        for index in range(depth)
        for what, unit in (("sre_step", "_mm"), ("seconds_step", ""))
    ]
    header = ["case", "patient", "split", "start", "repeat", "method", "start_sre_mm", "sre_mm", *stages]
    header += ["start_tre_mm", "tre_mm", "start_dice", "dice", *RESIDUAL]
    header += ["expected_sre_mm", "trusted", "dispersion_mm", "network_sre_mm", "seconds", "steps", "warnings", "error"]
    return csv_text([header, *(_row_cells(row, depth) for row in evaluation.rows)])


def summary_csv(evaluation: Evaluation, parameter_counts: Mapping[str, int] = NO_COUNTS) -> str:
    """Write one line for each method and start: Tables 1 and 2 in numbers, with the test against the best."""
    summaries = summarize(evaluation)
    comparisons = {(item.method, item.start): item for item in compare_with_best(evaluation)}
    depth = max(len(summary.stages) for summary in summaries)
    lines = [
        _summary_cells(summary, depth, parameter_counts)
        | _comparison_cells(comparisons.get((summary.method, summary.start)))
        for summary in summaries
    ]
    return csv_text([list(lines[0]), *(list(line.values()) for line in lines)])


def summary_markdown(evaluation: Evaluation, parameter_counts: Mapping[str, int] = NO_COUNTS) -> str:
    """Write the papers' Tables 1 and 2, the measures beside them and the tests, with how they were made."""
    parts = [_markdown(table) for table in _tables(evaluation, parameter_counts)]
    settings = [
        "- "
        + markdown_cell(f"{name}: " + (", ".join(f"{key} = {value}" for key, value in used.items()) or "no settings"))
        for name, used in evaluation.settings.items()
    ]
    listed = ["Settings:\n\n" + "\n".join(settings)] if settings else []
    return "\n\n".join([*parts, _notes(evaluation), *listed]) + "\n"


def summary_latex(evaluation: Evaluation, parameter_counts: Mapping[str, int] = NO_COUNTS) -> str:
    """Write the same tables for a paper; they need the LaTeX package booktabs."""
    parts = [_latex(table) for table in _tables(evaluation, parameter_counts)]
    note = "\n".join(f"% {line}" for line in _notes(evaluation).splitlines())
    return "\n\n".join(["% Needs \\usepackage{booktabs}.", *parts, note]) + "\n"


def _tables(evaluation: Evaluation, parameter_counts: Mapping[str, int]) -> list[Table]:
    summaries = summarize(evaluation)
    tables = [result_table(summaries), stage_table(summaries, parameter_counts), detail_table(summaries)]
    if any(summary.trust for summary in summaries):
        tables.append(trust_table(summaries))
    comparisons = compare_with_best(evaluation)
    return [*tables, comparison_table(comparisons)] if comparisons else tables


def _notes(evaluation: Evaluation) -> str:
    cases, patients = {row.case for row in evaluation.rows}, {row.patient for row in evaluation.rows}
    return (
        f"{len(cases)} cases of {len(patients)} patients; starts for each case and range: {evaluation.count}; "
        f"seed {evaluation.seed}.\n"
        "Mean ± sd over registrations (case x start); 95 % intervals of means by bootstrap over patients.\n"
        "A failed registration counts with its start's errors.\n"
        "Tests pair registrations; Holm's family is the whole table. Those of one patient are not independent:\n"
        "read p beside the interval of the difference, which is by patient."
    )


def _row_cells(row: Row, depth: int) -> list[str]:
    steps: list[str] = []
    for index in range(depth):
        known = index < len(row.steps)
        steps += [_number(row.steps[index].sre_mm), _number(row.steps[index].seconds)] if known else ["", ""]
    return [
        *(row.case, row.patient, row.split, row.start, str(row.repeat), row.method),
        *(_number(row.before.sre_mm), _number(row.after.sre_mm), *steps),
        *(_number(row.before.tre_mm), _number(row.after.tre_mm), _number(row.before.dice), _number(row.after.dice)),
        *([_number(value) for value in row.after.residual] or [""] * len(RESIDUAL)),
        *_expectation_cells(row.expectation),
        *(_number(row.seconds), " > ".join(step.name for step in row.steps), " | ".join(row.warnings), row.error),
    ]


def _expectation_cells(told: Expectation) -> list[str]:
    """Write what the method expects; trusted is 1 or 0."""
    return [
        "" if told.expected_sre_mm is None else _number(told.expected_sre_mm),
        "" if told.trusted is None else str(int(told.trusted)),
        "" if told.dispersion_mm is None else _number(told.dispersion_mm),
        "" if told.network_sre_mm is None else _number(told.network_sre_mm),
    ]


def _summary_cells(summary: Summary, depth: int, parameter_counts: Mapping[str, int]) -> dict[str, str]:
    cells = {
        "method": summary.method,
        "start": summary.start,
        "n": str(summary.registrations),
        "patients": str(summary.patients),
        "failed": str(summary.failed),
        "parameters": str(parameter_counts.get(summary.method, "")),
    }
    cells |= _spread_cells("start_sre_mm", summary.start_sre_mm) | _spread_cells("sre_mm", summary.sre_mm)
    for index in range(depth):
        stage = summary.stages[index] if index < len(summary.stages) else None
        cells |= _spread_cells(f"stage_{index + 1}_sre_mm", stage.sre_mm if stage else None)
        cells[f"stage_{index + 1}_seconds_median"] = _number(stage.seconds.median) if stage else ""
    cells |= _spread_cells("start_tre_mm", summary.start_tre_mm) | _spread_cells("tre_mm", summary.tre_mm)
    cells |= _spread_cells("start_dice", summary.start_dice) | _spread_cells("dice", summary.dice)
    cells["share_improved"] = _number(summary.share_improved)
    cells["share_under_5mm"] = _number(summary.share_under_5mm)
    trust = summary.trust
    for name in ("rank_correlation", "expected_sre_mm", "kept", "flagged", "kept_sre_mm", "flagged_sre_mm"):
        cells[f"trust_{name}"] = _number(float(getattr(trust, name))) if trust else ""
    return cells | _spread_cells("seconds", summary.seconds)


def _spread_cells(name: str, sample: Spread | None) -> dict[str, str]:
    parts = ("mean", "sd", "median", "low", "high")
    return {f"{name}_{part}": _number(getattr(sample, part)) if sample else "" for part in parts}


def _comparison_cells(item: Comparison | None) -> dict[str, str]:
    """Cells of the test against the best; the best itself has none."""
    numbers = ("difference_mm", "low_mm", "high_mm", "t_p", "t_p_holm", "wilcoxon_p", "wilcoxon_p_holm")
    named = {f"against_best_{name}": _number(getattr(item, name), 6) if item else "" for name in numbers}
    return {"best": item.best if item else ""} | named


def _number(value: float, digits: int = 4) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.{digits}g}" if 0 < abs(value) < 1e-3 else f"{value:.{digits}f}"


def _markdown(table: Table) -> str:
    lines = [table.header, tuple("---" for _ in table.header)]
    for row in table.rows:
        texts = [markdown_cell(cell.text) for cell in row]
        lines.append(tuple(f"**{text}**" if cell.bold else text for text, cell in zip(texts, row, strict=True)))
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table.caption}\n\n{body}"


def _latex(table: Table) -> str:
    lines = []
    for index, row in enumerate(table.rows):
        if index in table.rules:
            lines.append("\\midrule")
        texts = [f"\\textbf{{{_escaped(cell.text)}}}" if cell.bold else _escaped(cell.text) for cell in row]
        lines.append(" & ".join(texts) + " \\\\")
    return "\n".join(
        [
            "\\begin{table}",
            f"\\caption{{{_escaped(table.caption)}}}",
            f"\\begin{{tabular}}{{{'l' * len(table.header)}}}",
            "\\toprule",
            " & ".join(_escaped(title) for title in table.header) + " \\\\",
            "\\midrule",
            *lines,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    )


def _escaped(text: str) -> str:
    return " ".join(text.split()).translate(LATEX)


SUMMARY_SUFFIXES = (".summary.csv", ".summary.md", ".summary.tex")
FIGURE_SUFFIXES = (".boxes.png", ".boxes.svg", ".failures.png", ".failures.svg")


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

    All of them appear, whole, or none does. `parameter_counts` says
    how many trainable parameters one stage of a method has, by the method's name. Raises OutputError.
    """
    check_evaluation_output(path, overwrite, figures)
    paths = evaluation_paths(path, figures)
    texts = (
        rows_csv(evaluation),
        summary_csv(evaluation, parameter_counts),
        summary_markdown(evaluation, parameter_counts),
        summary_latex(evaluation, parameter_counts),
    )
    drawn = (box_plots(evaluation), failure_curves(evaluation)) if figures else ()
    with whole_files(paths, overwrite) as partials:
        for partial, text in zip(partials, texts, strict=False):
            write_text(text, partial)
        for index, partial in enumerate(partials[len(texts) :]):
            draw_figure(drawn[index // 2], partial)
    return paths
