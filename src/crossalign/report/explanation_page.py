"""The page about one explanation: gather what it shows, fill the template, write the file whole or not at all."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from crossalign.explanation import Explanation
from crossalign.output import check_output, whole_file
from crossalign.report.explanation_view import explanation_view
from crossalign.report.parts import colour_ramp, content_hash, packed_bytes, part, template
from crossalign.report.private import Privacy
from crossalign.types import Vector

STYLES = ("report.css", "explanation.css")
SCRIPTS = ("volume.js", "paint.js", "explanation.js")
COLOUR_MAP = "inferno"

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _PageContext:
    """The page's text, free of file names: what the template reads."""

    method: str
    warnings: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    motion: str
    stages: tuple[str, ...]
    has_mask: bool
    attention: Rows
    parameters: Rows
    points: Rows
    crossalign_version: str
    date: str


def write_explanation_report(path: str | os.PathLike[str], explanation: Explanation, overwrite: bool = False) -> None:
    """Write one self-contained HTML page about one explanation; it loads nothing and names no file.

    Raises OutputError where the file exists (without `overwrite`) or cannot be written; no partial file is left.
    """
    check_output(path, overwrite)
    page = render_explanation_report(explanation)
    with whole_file(path, overwrite) as partial:
        Path(partial).write_bytes(page.encode("utf-8", "replace"))


def render_explanation_report(explanation: Explanation) -> str:
    """Return the page as text, about 1 to 4 MB."""
    view = explanation_view(explanation)
    style = "\n".join(part(name) for name in STYLES)
    script = '"use strict";\n' + "\n".join(part(name) for name in SCRIPTS)
    return template("explanation.html.j2").render(
        told=_page_context(explanation),
        maps=view.maps,
        viewer=view.viewer,
        viewer_json={**view.as_json(), "ramp": packed_bytes(colour_ramp(COLOUR_MAP))},
        style=style,
        script=script,
        style_hash=content_hash(style),
        script_hash=content_hash(script),
    )


def _page_context(explanation: Explanation) -> _PageContext:
    problem, result = explanation.problem, explanation.result
    names = {} if problem.fixed_mask is None else {problem.fixed_mask.name: "the fixed mask"}
    names |= {problem.fixed.name: "the fixed image", problem.moving.name: "the moving image"}
    clean = Privacy(names).clean
    return _PageContext(
        method=clean(result.method),
        warnings=tuple(clean(text) for text in explanation.warnings),
        settings=tuple((clean(key), clean(value)) for key, value in result.settings.items()),
        motion=f"{result.shift_mm():.1f} mm, {result.angle_deg():.1f}°",
        stages=tuple(stage.view.name for stage in explanation.stages),
        has_mask=problem.fixed_mask is not None,
        attention=_attention_rows(explanation),
        parameters=_parameter_rows(explanation),
        points=_point_rows(explanation),
        crossalign_version=version("crossalign"),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _attention_rows(explanation: Explanation) -> Rows:
    return tuple(
        (str(stage.view.number), cam.title, f"{cam.peak:.3g} mm", _share(inside), _share(stage.mask_share))
        for stage in explanation.stages
        for cam, inside in zip(stage.cams, stage.cams_inside, strict=True)
    )


def _parameter_rows(explanation: Explanation) -> Rows:
    return tuple(
        (
            str(stage.view.number),
            one.name,
            _signed(one.value, one.unit),
            _share(one.fixed_share),
            _share(one.moving_share),
            _share(one.inside_fraction),
            _share(one.mask_share),
            _signed(one.gap, one.unit),
        )
        for stage in explanation.stages
        for one in stage.parameters
    )


def _point_rows(explanation: Explanation) -> Rows:
    rows: list[tuple[str, ...]] = []
    for stage in explanation.stages:
        for look in stage.attended_points:
            match = "none" if look.matched_mm is None else _place(look.matched_mm)
            spread = f"{look.positions:.0f} of {look.all_positions}"
            places = (_place(look.point_mm), _place(look.looks_at_mm), match, _place(look.answer_mm))
            rows.append((str(stage.view.number), look.name, *places, f"{look.largest_share:.2%}", spread))
    return tuple(rows)


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0%}"


def _signed(value: float, unit: str) -> str:
    return f"{value:+.2f}{'°' if unit == 'degrees' else ' mm'}".replace("-", "\u2212")


def _place(point_mm: Vector) -> str:
    return ", ".join(f"{value:.1f}" for value in point_mm.tolist()).replace("-", "\u2212")
