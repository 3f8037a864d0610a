"""The page of an adaptation: its verdict, errors before and after, and the learning curves of the stages."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import crossalign
from crossalign.output import whole_files, write_bytes
from crossalign.report.page import Privacy, content_hash, environment, read_part
from crossalign.training.adaptation.result import AdaptationResult, StageCurve


def write_adaptation_report(result: AdaptationResult, picture: Path, page: Path) -> None:
    """Write the learning curves (PNG) and the page (HTML), both or none; earlier ones are replaced.

    Raises OutputError.
    """
    drawn = BytesIO()
    draw_curves(result.curves).savefig(drawn, format="png", dpi=150, metadata={"Software": None})
    html = _html(result, drawn.getvalue())
    with whole_files((picture, page), overwrite=True) as (partial_picture, partial_page):
        write_bytes(drawn.getvalue(), partial_picture)
        write_bytes(html.encode("utf-8", "replace"), partial_page)


def draw_curves(curves: Sequence[StageCurve]) -> Figure:
    """Draw the val SRE of each stage by step, the best step filled."""
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for index, curve in enumerate(curves):
        steps, errors = zip(*curve.points, strict=True)
        axes.plot(steps, errors, "o-", color=f"C{index % 10}", markerfacecolor="none", label=f"stage {curve.number}")
        best = [point for point in curve.points if point[0] == curve.best_step]
        axes.plot([step for step, _ in best], [error for _, error in best], "o", color=f"C{index % 10}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step")
    axes.set_ylabel("val SRE of one use of the stage (mm)")
    axes.grid(alpha=0.3)
    if curves:
        axes.legend()
    return figure


def _html(result: AdaptationResult, picture: bytes) -> str:
    style, clean = read_part("page.css"), Privacy({}).clean
    name = result.folder.name if result.model is None else result.model.stem
    rows = [(str(curve.number), str(step), f"{sre_mm:.2f}") for curve in result.curves for step, sre_mm in curve.points]
    return (
        environment(clean)
        .get_template("adaptation.html.j2")
        .render(
            name=name,
            verdict=result.verdict[:1].upper() + result.verdict[1:],
            facts=list(result.facts().items()),
            notes=list(result.notes),
            rows=rows,
            picture=base64.b64encode(picture).decode(),
            crossalign_version=crossalign.__version__,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            style=style,
            style_hash=content_hash(style),
        )
    )
