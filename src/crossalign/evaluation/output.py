"""The files of an evaluation, beside one another under one name."""

import os
from collections.abc import Mapping
from pathlib import Path

from crossalign.errors import OutputError
from crossalign.evaluation.figures import box_plots, draw_figure, failure_curves
from crossalign.evaluation.protocol import Evaluation
from crossalign.evaluation.tables import NO_COUNTS, rows_csv, summary_csv, summary_latex, summary_markdown
from crossalign.output import check_output, whole_files, write_text

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
