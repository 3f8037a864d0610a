"""The page of a registration: both images before and after, the motion in words, errors, steps and settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from crossalign.geometry import mean_displacement_mm
from crossalign.images import Image, LabelMap
from crossalign.registration.result import RegistrationResult
from crossalign.report.page import Page, Privacy, write_page
from crossalign.report.viewer import ViewerData, contrast_window, display_grid, grey_bytes, grey_levels, mask_bytes
from crossalign.report.wording import Motion, content_motion, error_rows, parameter_rows, step_rows
from crossalign.types import Points

DISPLACEMENT_POINTS = 200_000  # at most, of the structure, for its mean displacement


@dataclass(frozen=True, eq=False)
class ReportInput:
    """What a report is about.

    `fixed_mask` and `moving_mask` mark the structure, each on its own image. `errors_mm` maps names to millimetres (a
    name that says deg, as 'angle deg after', to degrees); 'SRE before' and 'SRE after' become one row of a table.
    """

    fixed: Image
    moving: Image
    result: RegistrationResult
    fixed_mask: LabelMap | None = None
    moving_mask: LabelMap | None = None
    errors_mm: Mapping[str, float] | None = None

    def privacy(self) -> Privacy:
        """Name the images by their part in the registration, never by their files."""
        masks = {"the fixed mask": self.fixed_mask, "the moving mask": self.moving_mask}
        return Privacy.of({**masks, "the fixed image": self.fixed, "the moving image": self.moving})


def write_report(  # noqa: PLR0913 - the page's one entry: two images, what joins them, and what may be known besides
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
    report = ReportInput(fixed, moving, result, fixed_mask, moving_mask, errors_mm)
    write_page(path, lambda: registration_page(report), overwrite)


def registration_page(report: ReportInput) -> Page:
    """Gather the page."""
    result = report.result
    viewer = asdict(_viewer_data(report))
    return Page(
        name="registration",
        method=result.method,
        reasons=result.reasons,
        warnings=result.warnings,
        settings=result.settings,
        privacy=report.privacy(),
        context={**_context(report), "spacing_mm": viewer["spacing_mm"]},
        viewer=viewer,
    )


def _viewer_data(report: ReportInput) -> ViewerData:
    result, fixed_mask, moving_mask = report.result, report.fixed_mask, report.moving_mask
    structure = None if fixed_mask is None else fixed_mask.extremes_mm()
    grid = display_grid(report.fixed.grid, report.moving.grid, structure)
    transforms = {"before": result.initial, "after": result.fixed_to_moving}
    moving = {when: grey_levels(report.moving, grid, transform) for when, transform in transforms.items()}
    window = contrast_window(moving["after"])  # of both: before and after in the same shades
    scans = {"fixed": grey_bytes(grey_levels(report.fixed, grid))}
    scans |= {when: grey_bytes(grey, window) for when, grey in moving.items()}
    outlines: dict[str, Tensor] = {}
    if fixed_mask is not None:
        outlines["fixed"] = mask_bytes(fixed_mask, grid)
    if moving_mask is not None:
        outlines |= {when: mask_bytes(moving_mask, grid, transform) for when, transform in transforms.items()}
    return ViewerData.on_grid(grid, result.center_mm, scans, outlines)


def _context(report: ReportInput) -> dict[str, object]:
    result, center = report.result, report.result.center_mm
    points = None if report.fixed_mask is None else report.fixed_mask.sampled_points_mm(DISPLACEMENT_POINTS)
    return {
        "errors": error_rows(report.errors_mm or {}),
        "steps": step_rows(result, points),
        "seconds": result.seconds,
        "center": f"centre of the {'fixed image' if report.fixed_mask is None else 'structure'}",
        "correction": Motion.of(content_motion(result.initial, result.fixed_to_moving), center),
        "total": Motion.of(result.fixed_to_moving, center),
        "mean_displacement_mm": _mean_displacement_mm(result, points),
        "expected_sre_mm": result.expected_sre_mm,
        "bound_text": result.expectation.bound_text(),
        "trusted": result.trusted,
        "matrix": result.fixed_to_moving.matrix().cpu().double().tolist(),
        "parameters": parameter_rows(result),
        "has_fixed_mask": report.fixed_mask is not None,
        "has_moving_mask": report.moving_mask is not None,
        "torch_version": str(torch.__version__),
    }


def _mean_displacement_mm(result: RegistrationResult, points_mm: Points | None) -> float | None:
    if points_mm is None:
        return None
    return float(mean_displacement_mm(result.initial, result.fixed_to_moving, points_mm))
