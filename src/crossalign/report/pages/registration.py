"""The page of a registration: both images before and after, the motion in words, errors, steps and settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from crossalign.geometry import Grid, Rigid, mean_displacement_mm, orientation_code
from crossalign.images import Image, LabelMap
from crossalign.registration.landmarks import LandmarkPairs
from crossalign.registration.patient_axes import along_patient, patient_turn, turned_grid
from crossalign.registration.result import RegistrationResult
from crossalign.report.embedding import embed_mask, ras_affine
from crossalign.report.page import NIIVUE, Page, Privacy, write_page
from crossalign.report.reduction import ShownImage, reduce_image, reduce_mask
from crossalign.report.stills import FIXED_LINE, MOVING_LINE, StillColumn, checkerboard, draw_stills
from crossalign.report.viewer import contrast_window, display_grid, grey_bytes, grey_levels, mask_bytes
from crossalign.report.wording import Motion, error_rows, parameter_rows, step_rows
from crossalign.types import Points, Vector

BEFORE, AFTER = "before", "after"
DISPLACEMENT_POINTS = 200_000  # at most, of the structure, for its mean displacement


@dataclass(frozen=True, eq=False)
class ReportInput:
    """What a report is about.

    `title` is put on the page as it stands. `reduced` makes a page of 2 MB or so: the volumes of its viewer are cropped
    to what lies about the structure, at most 600 000 voxels each, in 256 levels. `landmarks` are corresponding points.
    `fixed_mask` and `moving_mask` mark the structure, each on its own image. `errors_mm` maps names to millimetres (a
    name that says deg, as 'angle deg after', to degrees); 'SRE before' and 'SRE after' become one row of a table.
    """

    fixed: Image
    moving: Image
    result: RegistrationResult
    fixed_mask: LabelMap | None = None
    moving_mask: LabelMap | None = None
    errors_mm: Mapping[str, float] | None = None
    landmarks: LandmarkPairs | None = None
    title: str = ""
    reduced: bool = False

    def privacy(self) -> Privacy:
        """Name the images by their part in the registration, never by their files."""
        masks = {"the fixed mask": self.fixed_mask, "the moving mask": self.moving_mask}
        return Privacy.of({**masks, "the fixed image": self.fixed, "the moving image": self.moving})

    def turned(self, turn: Rigid) -> ReportInput:
        """Return the same in worlds that are both turned by a rotation about the origin."""
        marks = self.landmarks
        return replace(
            self,
            fixed=replace(self.fixed, grid=turned_grid(self.fixed.grid, turn)),
            moving=replace(self.moving, grid=turned_grid(self.moving.grid, turn)),
            result=along_patient(self.result, turn),
            fixed_mask=_turned_mask(self.fixed_mask, turn),
            moving_mask=_turned_mask(self.moving_mask, turn),
            landmarks=None
            if marks is None
            else LandmarkPairs(marks.names, turn.apply(marks.fixed_mm.double()), turn.apply(marks.moving_mm.double())),
        )


def _turned_mask(mask: LabelMap | None, turn: Rigid) -> LabelMap | None:
    return None if mask is None else replace(mask, grid=turned_grid(mask.grid, turn))


def write_report(  # noqa: PLR0913 - the page's one entry: two images, what joins them, and what may be known besides
    path: str | os.PathLike[str],
    *,
    fixed: Image,
    moving: Image,
    result: RegistrationResult,
    fixed_mask: LabelMap | None = None,
    moving_mask: LabelMap | None = None,
    errors_mm: Mapping[str, float] | None = None,
    landmarks: LandmarkPairs | None = None,
    title: str = "",
    reduced: bool = False,
    overwrite: bool = False,
) -> None:
    """Write one self-contained HTML page about one registration; it loads nothing and names no file.

    See ReportInput for the arguments. Raises OutputError where the file exists (without `overwrite`) or cannot be
    written, ImageError where a mask is empty; no partial file is left.
    """
    report = ReportInput(fixed, moving, result, fixed_mask, moving_mask, errors_mm, landmarks, title, reduced)
    write_page(path, lambda: registration_page(report), overwrite)


def registration_page(report: ReportInput) -> Page:
    """Gather the page: its pictures, letters and words are along the patient's axes, whatever the fixed header says."""
    result, turn = report.result, patient_turn(report.result)
    drawn = report if turn is None else report.turned(turn)
    shown = _shown(drawn)
    return Page(
        name="registration",
        method=result.method,
        reasons=result.reasons,
        warnings=result.warnings,
        settings=result.settings,
        privacy=report.privacy(),
        context=_context(drawn) | _of_files(report, turn) | {"reduced": shown.done()},
        viewer=_viewer(drawn, shown) | ({} if turn is None else {"to_header": turn.rotation.mT.tolist()}),
        scripts=NIIVUE,
        title=report.title,
    )


def _viewer(report: ReportInput, shown: _Shown) -> dict[str, object]:
    """Return what the script reads: volumes and masks, matrices of the moving ones, points; millimetres are RAS."""
    result = report.result
    to_fixed = {BEFORE: result.initial.inverse(), AFTER: result.fixed_to_moving.inverse()}
    moving_grid = shown.moving.image.grid
    embedded: dict[str, object] = {
        "fixed": asdict(shown.fixed.embedded()),
        "moving": asdict(shown.moving.embedded(to_fixed[AFTER])),
        "affines": {when: ras_affine(moving_grid, one).tolist() for when, one in to_fixed.items()},
        "start_mm": ras_point(result.center_mm),
        "landmarks": [asdict(one) for one in landmark_rows(report)],
    }
    if (mask := shown.fixed_mask) is not None:
        embedded |= {"fixed_mask": embed_mask(mask), "fixed_mask_affine": ras_affine(mask.grid).tolist()}
    if (mask := shown.moving_mask) is not None:
        affines = {when: ras_affine(mask.grid, one).tolist() for when, one in to_fixed.items()}
        embedded |= {"moving_mask": embed_mask(mask, to_fixed[AFTER]), "moving_mask_affines": affines}
    return embedded


@dataclass(frozen=True, eq=False)
class _Shown:
    """What the viewer draws: both images, in full or reduced, and their masks likewise."""

    fixed: ShownImage
    moving: ShownImage
    fixed_mask: LabelMap | None
    moving_mask: LabelMap | None

    def done(self) -> dict[str, str]:
        """Say what was done to either image for a small page; {} where they are in full."""
        return {name: one.done for name, one in (("fixed", self.fixed), ("moving", self.moving)) if one.done}


def _shown(report: ReportInput) -> _Shown:
    masks = report.fixed_mask, report.moving_mask
    if not report.reduced:
        return _Shown(ShownImage(report.fixed), ShownImage(report.moving), *masks)
    result, corners = report.result, _grid(report).corners_mm()
    there = torch.cat([one.apply(corners) for one in (result.initial, result.fixed_to_moving)])
    fixed_mask, moving_mask = (
        None if mask is None else reduce_mask(mask, points)
        for mask, points in zip(masks, (corners, there), strict=True)
    )
    return _Shown(reduce_image(report.fixed, corners), reduce_image(report.moving, there), fixed_mask, moving_mask)


@dataclass(frozen=True)
class LandmarkRow:
    """A landmark: where it is in the fixed image, and its partner before and after, RAS mm; its errors, mm."""

    name: str
    fixed: list[float]
    before: list[float]
    after: list[float]
    error_before_mm: float
    error_after_mm: float


def landmark_rows(report: ReportInput) -> list[LandmarkRow]:
    """Measure each landmark in the moving image's space; the partner is drawn where the fixed image has it."""
    marks, result = report.landmarks, report.result
    if marks is None:
        return []
    fixed, moving = marks.fixed_mm.double(), marks.moving_mm.double()
    transforms = [one.to("cpu", torch.float64) for one in (result.initial, result.fixed_to_moving)]
    errors = [(one.apply(fixed) - moving).norm(dim=-1).tolist() for one in transforms]
    drawn = [[ras_point(point) for point in one.inverse().apply(moving)] for one in transforms]
    points = [ras_point(point) for point in fixed]
    return [
        LandmarkRow(*row) for row in zip(marks.names, points, drawn[0], drawn[1], errors[0], errors[1], strict=True)
    ]


def ras_point(point_mm: Vector) -> list[float]:
    """Return a point (3,), LPS mm, in NiiVue's RAS."""
    x, y, z = point_mm.cpu().double().tolist()
    return [-x, -y, z]


def _grid(report: ReportInput) -> Grid:
    structure = None if report.fixed_mask is None else report.fixed_mask.extremes_mm()
    return display_grid(report.fixed.grid, report.moving.grid, structure)


def _zoom(report: ReportInput) -> float:
    """Return the first magnification: what shows the structure and some of its surroundings, else the whole image."""
    whole = torch.stack((report.fixed.grid.corners_mm().amin(0), report.fixed.grid.corners_mm().amax(0)))
    shown = _grid(report).corners_mm()
    ratio = float((whole[1] - whole[0]).max() / (shown.amax(0) - shown.amin(0)).max().clamp(min=1.0))
    return round(min(max(ratio, 1.0), 4.0), 1)


def _stills(report: ReportInput) -> str:
    result, fixed_mask, moving_mask, grid = report.result, report.fixed_mask, report.moving_mask, _grid(report)
    transforms = {BEFORE: result.initial, AFTER: result.fixed_to_moving}
    levels = {when: grey_levels(report.moving, grid, transform) for when, transform in transforms.items()}
    window = contrast_window(levels[AFTER])  # of both: before and after in the same shades
    moving = {when: grey_bytes(grey, window) for when, grey in levels.items()}
    fixed = grey_bytes(grey_levels(report.fixed, grid))
    outlines: dict[str, Tensor] = {} if fixed_mask is None else {FIXED_LINE: mask_bytes(fixed_mask, grid)}
    both = {when: dict(outlines) for when in transforms}
    if moving_mask is not None:
        for when, transform in transforms.items():
            both[when][MOVING_LINE] = mask_bytes(moving_mask, grid, transform)
    board = checkerboard(fixed.numpy(), moving[AFTER].numpy())
    columns = (
        StillColumn("fixed", fixed, outlines),
        StillColumn("moving, before", moving[BEFORE], both[BEFORE]),
        StillColumn("moving, after", moving[AFTER], both[AFTER]),
        StillColumn("both, after", board, both[AFTER]),
    )
    return draw_stills(grid, result.center_mm, columns)


def _context(report: ReportInput) -> dict[str, object]:
    result, center = report.result, report.result.center_mm
    points = None if report.fixed_mask is None else report.fixed_mask.sampled_points_mm(DISPLACEMENT_POINTS)
    return {
        "errors": error_rows(report.errors_mm or {}),
        "steps": step_rows(result, points),
        "seconds": result.seconds,
        "center": f"centre of the {'fixed image' if report.fixed_mask is None else 'structure'}",
        "correction": Motion.of(result.initial.inverse() @ result.fixed_to_moving, center),
        "total": Motion.of(result.fixed_to_moving, center),
        "mean_displacement_mm": _mean_displacement_mm(result, points),
        "expected_sre_mm": result.expected_sre_mm,
        "bound_text": result.expectation.bound_text(),
        "trusted": result.trusted,
        "has_fixed_mask": report.fixed_mask is not None,
        "has_moving_mask": report.moving_mask is not None,
        "landmarks": landmark_rows(report),
        "zoom": _zoom(report),
        "stills": _stills(report),
        "torch_version": str(torch.__version__),
    }


def _of_files(report: ReportInput, turn: Rigid | None) -> dict[str, object]:
    """Return what stays in the files' own coordinates, and the axes of a fixed image whose header was not believed.

    `axes` are the codes of its voxel axes, by its header and by the registration, and why.
    """
    result, grid = report.result, report.fixed.grid
    axes: dict[str, str] | None = None
    if turn is not None:
        chosen = "orientation correction" if result.orientation is None else result.orientation.chosen
        axes = {
            "header": orientation_code(grid),
            "patient": orientation_code(turned_grid(grid, turn)),
            "chosen": chosen,
        }
    return {
        "matrix": result.fixed_to_moving.matrix().cpu().double().tolist(),
        "parameters": parameter_rows(result),
        "axes": axes,
    }


def _mean_displacement_mm(result: RegistrationResult, points_mm: Points | None) -> float | None:
    if points_mm is None:
        return None
    return float(mean_displacement_mm(result.initial, result.fixed_to_moving, points_mm))
