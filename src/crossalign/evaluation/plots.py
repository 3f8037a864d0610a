"""Pictures of an evaluation: box plots of the errors, whole and in parts, and failure curves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossalign.evaluation.error_parts import PATIENT_AXES
from crossalign.evaluation.initialisations import initialisation_title
from crossalign.evaluation.rows import Evaluation, Scores
from crossalign.output import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INITIAL = "initial"
LINES = ("-", "--", "-.", ":")
CURVE_MM = 20.0


def box_plots(evaluation: Evaluation) -> Figure:
    """Draw the final SRE of every method, one panel for each initialisation range; the first box is the initial SRE.

    A box spans the quartiles, its line is the median, the whiskers reach 1.5 of the quartiles' distance, the triangle
    is the mean.
    """
    figure, panels = _panels(evaluation, width=1.2 + 0.7 * (len(evaluation.methods) + 1))
    for panel, initialisation in zip(panels, evaluation.initialisations, strict=True):
        samples = _samples(evaluation, initialisation)
        panel.boxplot(list(samples.values()), tick_labels=list(samples), showmeans=True, flierprops={"markersize": 3})
        panel.tick_params(axis="x", rotation=30)
        panel.set_title(f"from {initialisation_title(initialisation)}")
        panel.grid(axis="y", alpha=0.3)
    panels[0].set_ylim(bottom=0)  # once all are drawn: the panels share it, and it ends the automatic scale
    panels[0].set_ylabel("SRE (mm)")
    return figure


def failure_curves(evaluation: Evaluation) -> Figure:
    """Draw the fraction of registrations that end within x mm of the truth, a panel for each initialisation range."""
    figure, panels = _panels(evaluation, width=3.6)
    for panel, initialisation in zip(panels, evaluation.initialisations, strict=True):
        for index, (name, errors_mm) in enumerate(_samples(evaluation, initialisation).items()):
            x, y = fraction_within(errors_mm)
            color = "black" if name == INITIAL else f"C{(index - 1) % 10}"
            panel.plot(x, y, LINES[index % len(LINES)], color=color, label=name, drawstyle="steps-post")
        panel.set_title(f"from {initialisation_title(initialisation)}")
        panel.set_xlabel("SRE (mm)")
        panel.set_xlim(0, CURVE_MM)
        panel.set_ylim(0, 1.02)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("fraction of registrations under x mm")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    return figure


def part_plots(evaluation: Evaluation) -> Figure:
    """Draw the errors of the centre along the patient's axes, with their signs, and of the rotation.

    A row of panels for each initialisation range, and in each panel a box for the initial errors and for every method,
    as in `box_plots`. Errors that were not measured leave their box empty.
    """
    from matplotlib.figure import Figure

    ranges, columns = evaluation.initialisations, _part_columns()
    width = 1.2 + 0.5 * (len(evaluation.methods) + 1)
    figure = Figure(figsize=(width * len(columns), 3.4 * len(ranges)), layout="constrained")
    panels = figure.subplots(len(ranges), len(columns), sharey="col", squeeze=False)
    for line, initialisation in zip(panels, ranges, strict=True):
        for panel, (title, column) in zip(line, columns.items(), strict=True):
            samples = _samples(evaluation, initialisation, partial(_part, column))
            known = [[value for value in values if not np.isnan(value)] for values in samples.values()]
            panel.boxplot(known, tick_labels=list(samples), showmeans=True, flierprops={"markersize": 3})
            panel.tick_params(axis="x", rotation=30)
            panel.axhline(0, color="black", linewidth=0.5)
            panel.set_title(title, fontsize="medium")
            panel.grid(axis="y", alpha=0.3)
        line[0].set_ylabel(f"from {initialisation_title(initialisation)}")
    return figure


def _part(column: str, scores: Scores) -> float:
    return scores.part_columns()[column]


def _part_columns() -> dict[str, str]:
    centers = {f"centre to {axis} (mm)": f"center_error_{axis}_mm" for axis in PATIENT_AXES}
    return centers | {"rotation (deg)": "angle_error_deg"}


def fraction_within(errors_mm: list[float]) -> tuple[list[float], list[float]]:
    """Return the steps of the fraction of errors at or below x: x from 0 to past the figure's edge, y from 0 to 1."""
    ordered = sorted(errors_mm)
    fractions = (np.arange(1, len(ordered) + 1) / len(ordered)).tolist()
    return [0.0, *ordered, max(CURVE_MM, ordered[-1])], [0.0, *fractions, 1.0]


def write_figure(figure: Figure, path: Path, overwrite: bool = False) -> None:
    """Write a figure in the format of its suffix (.png or .svg), the same bytes each time. Raises OutputError."""
    with whole_file(path, overwrite) as partial:
        draw_figure(figure, partial)


def draw_figure(figure: Figure, partial: Path) -> None:
    """Draw a figure to a temporary path of `whole_file` or `whole_files`, in the format of its suffix."""
    import matplotlib as mpl  # half a second that only figures should cost

    kind = partial.suffix.removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "crossalign"}):
        figure.savefig(partial, format=kind, dpi=150, metadata=metadata)


def _panels(evaluation: Evaluation, width: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure  # as above

    # A Figure made without pyplot draws with Agg, needs no display and is freed with its last reference.
    figure = Figure(figsize=(width * len(evaluation.initialisations) + 0.6, 4.0), layout="constrained")
    panels = figure.subplots(1, len(evaluation.initialisations), sharey=True, squeeze=False)
    return figure, list(panels[0])


def _sre_mm(scores: Scores) -> float:
    return scores.sre_mm


def _samples(
    evaluation: Evaluation, initialisation: str, measure: Callable[[Scores], float] = _sre_mm
) -> dict[str, list[float]]:
    rows = [row for row in evaluation.rows if row.initialisation == initialisation]
    samples = {INITIAL: [measure(row.before) for row in rows if row.method == evaluation.methods[0]]}
    for method in evaluation.methods:
        samples[method] = [measure(row.after) for row in rows if row.method == method]
    return samples
