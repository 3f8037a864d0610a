"""The page: gather what it shows, fill the template, write the file whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

import jinja2
import torch
from torch import Tensor

from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.images import Image, LabelMap
from crossalign.output import check_output, whole_file
from crossalign.registration.record import other_warnings, reasons_not_to_trust
from crossalign.registration.result import RegistrationResult
from crossalign.report.display import ViewerData, contrast_window, display_grid, mask_bytes, scan_bytes, scan_grey
from crossalign.report.private import Privacy
from crossalign.report.tables import ErrorRow, StepRow, error_rows, parameter_rows, step_rows
from crossalign.report.words import Motion

SHIFT_POINTS = 200_000  # at most, spread over the gland, tell its mean shift
SCRIPTS = ("volume.js", "paint.js", "planes.js", "viewer.js")


@dataclass(frozen=True, eq=False)
class ReportInput:
    """What a report is about.

    `fixed_mask` and `moving_mask` mark the gland, each on its own scan. `errors_mm` maps names to millimetres; the two
    names 'SRE before' and 'SRE after' become one row of a table.
    """

    fixed: Image
    moving: Image
    result: RegistrationResult
    fixed_mask: LabelMap | None = None
    moving_mask: LabelMap | None = None
    errors_mm: Mapping[str, float] | None = None

    def privacy(self) -> Privacy:
        """Name the scans by their part in the registration, never by their files."""
        masks = ((self.fixed_mask, "the fixed mask"), (self.moving_mask, "the moving mask"))
        names = {mask.name: words for mask, words in masks if mask is not None}
        return Privacy(names | {self.fixed.name: "the fixed image", self.moving.name: "the moving image"})


@dataclass(frozen=True, eq=False)
class _PageContext:
    """The page's text, free of file names: what the template reads."""

    method: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    settings: list[tuple[str, str]]
    errors: list[ErrorRow]
    steps: list[StepRow]
    seconds: float
    about: str
    correction: Motion
    total: Motion
    gland_mm: float | None
    expected_sre_mm: float | None
    trusted: bool | None
    matrix: list[list[float]]
    parameters: list[tuple[str, str, str]]
    has_fixed_mask: bool
    has_moving_mask: bool
    crossalign_version: str
    torch_version: str
    date: str


def write_report(  # noqa: PLR0913 - the page's one door: two scans, what joins them, and what may be known besides
    path: str | os.PathLike[str],
    *,
    fixed: Image,
    moving: Image,
    result: RegistrationResult,
    fixed_mask: LabelMap | None = None,
    moving_mask: LabelMap | None = None,
    errors_mm: Mapping[str, float] | None = None,
    overwrite: bool = False,
) -> None:
    """Write one self-contained HTML page about one registration; it loads nothing and names no file.

    See ReportInput for the arguments. Raises OutputError where the file exists (without `overwrite`) or cannot be
    written, ImageError where a mask is empty; no partial file is left.
    """
    check_output(path, overwrite)
    page = render_report(ReportInput(fixed, moving, result, fixed_mask, moving_mask, errors_mm))
    with whole_file(path, overwrite) as partial:
        Path(partial).write_bytes(page.encode("utf-8", "replace"))


def render_report(report: ReportInput) -> str:
    """Return the page as text, about 1 to 4 MB."""
    viewer, style = _viewer(report), _part("report.css")
    script = '"use strict";\n' + "\n".join(_part(name) for name in SCRIPTS)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        told=_page_context(report),
        viewer=viewer,
        viewer_json=asdict(viewer),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _part(name: str) -> str:
    text = files("crossalign.report").joinpath("templates", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")  # browsers hash the text with bare line feeds


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _viewer(report: ReportInput) -> ViewerData:
    result, fixed_mask, moving_mask = report.result, report.fixed_mask, report.moving_mask
    structure = None if fixed_mask is None else fixed_mask.extremes_mm()
    grid = display_grid(report.fixed.grid, report.moving.grid, structure)
    fixed = scan_grey(report.fixed, grid)
    before = scan_grey(report.moving, grid, result.initial)
    after = scan_grey(report.moving, grid, result.fixed_to_moving)
    shared = contrast_window(after)  # before and after in the same shades
    scans: dict[str, Tensor] = {
        "fixed": scan_bytes(fixed, contrast_window(fixed)),
        "before": scan_bytes(before, shared),
        "after": scan_bytes(after, shared),
    }
    outlines: dict[str, Tensor] = {}
    if fixed_mask is not None:
        outlines["fixed"] = mask_bytes(fixed_mask, grid)
    if moving_mask is not None:
        outlines["before"] = mask_bytes(moving_mask, grid, result.initial)
        outlines["after"] = mask_bytes(moving_mask, grid, result.fixed_to_moving)
    return ViewerData.on_grid(grid, result.center_mm.cpu().double(), scans, outlines)


def _page_context(report: ReportInput) -> _PageContext:
    result, clean = report.result, report.privacy().clean
    center = result.center_mm.cpu().double()
    points = None if report.fixed_mask is None else report.fixed_mask.spread_points_mm(SHIFT_POINTS)
    return _PageContext(
        method=clean(result.method),
        reasons=tuple(clean(text) for text in reasons_not_to_trust(result)),
        warnings=tuple(clean(text) for text in other_warnings(result)),
        settings=[(clean(str(key)), clean(str(value))) for key, value in result.settings.items()],
        errors=error_rows(report.errors_mm or {}, clean),
        steps=step_rows(result, points, clean),
        seconds=result.seconds,
        about="centre of the gland" if report.fixed_mask is not None else "centre of the fixed image",
        correction=Motion.of(seen_motion(result.initial, result.fixed_to_moving), center),
        total=Motion.of(result.fixed_to_moving, center),
        gland_mm=_mean_shift_mm(result, points),
        expected_sre_mm=result.expected_sre_mm,
        trusted=result.trusted,
        matrix=result.fixed_to_moving.matrix().cpu().double().tolist(),
        parameters=parameter_rows(result),
        has_fixed_mask=report.fixed_mask is not None,
        has_moving_mask=report.moving_mask is not None,
        crossalign_version=_crossalign_version(),
        torch_version=str(torch.__version__),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def seen_motion(before: Rigid, after: Rigid) -> Rigid:
    """Return how the moving image's content moves in the fixed image's space when `before` gives way to `after`.

    Both map fixed to moving points. Content m is seen at before^-1(m), then at after^-1(m).
    """
    return after.inverse() @ before


def _mean_shift_mm(result: RegistrationResult, points_mm: Tensor | None) -> float | None:
    if points_mm is None:
        return None
    return float(mean_displacement_mm(result.initial, result.fixed_to_moving, points_mm))


def _crossalign_version() -> str:
    try:
        return version("crossalign")
    except PackageNotFoundError:
        return "not installed"
