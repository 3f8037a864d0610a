"""The page of a fusion: MRI, PET and the fused volume, in grey and in colour, scores, and the scaling."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

import torch

from crossalign.fusion import FusionResult, Scaling
from crossalign.fusion.metrics.scores import gradient_preservation_score, structural_similarity_score
from crossalign.fusion.preparation import foreground_box_mm
from crossalign.geometry import Grid
from crossalign.registration.result import RegistrationResult
from crossalign.report.colours import colour_fusion, colour_ramp
from crossalign.report.embedding import embed_levels
from crossalign.report.page import NIIVUE, Page, Privacy, write_page
from crossalign.report.stills import StillColumn, draw_stills
from crossalign.report.viewer import display_grid, unit_bytes
from crossalign.report.wording import Rows
from crossalign.types import Scan, Vector

TOP_PERCENTILE = 99.9
BACKGROUND = 0.05  # scaled values up to this do not count towards the percentile
STILLS = (("mri", "MRI"), ("pet", "PET"), ("fused", "Fused"))
ALIGNMENT = "their alignment is not trusted: look at both below, and align them again from another initial transform"


@dataclass(frozen=True, eq=False)
class FusionDisplay:
    """MRI, PET and fused volume on the display grid, each from 0 (black) to 1 (the brightest that is displayed).

    `tops` are the scaled values of the brightest, `center_mm` (3,) is the middle of the head, `pet_range` the PET's own
    values at both ends of its colours, `pet_unit` their unit.
    """

    grid: Grid
    volumes: dict[str, Scan]
    tops: dict[str, float]
    center_mm: Vector
    pet_range: tuple[float, float]
    pet_unit: str

    @staticmethod
    def of(result: FusionResult) -> FusionDisplay:
        """Resample a result onto the display grid (isotropic, axes along L, P and S)."""
        head = torch.stack(foreground_box_mm(result.a))
        grid = display_grid(result.a.grid, result.b.grid, head)
        images = {"mri": result.a, "pet": result.b, "fused": result.fused}
        tops = {name: _top(image.voxels) for name, image in images.items()}
        scaling = result.b_scaling
        return FusionDisplay(
            grid=grid,
            volumes={
                name: (image.resampled(grid, fill=0.0).voxels / tops[name]).clamp(0, 1)
                for name, image in images.items()
            },
            tops=tops,
            center_mm=head.mean(0),
            pet_range=(scaling.low, scaling.low + tops["pet"] * (scaling.high - scaling.low)),
            pet_unit=scaling.unit or "units of the PET file",
        )


def _top(voxels: Scan) -> float:
    values = voxels[voxels > BACKGROUND].sort().values
    return float(values[int((len(values) - 1) * TOP_PERCENTILE / 100)]) if len(values) else 1.0


def write_fusion_report(
    path: str | os.PathLike[str],
    result: FusionResult,
    alignment: RegistrationResult | None = None,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Write one self-contained HTML page about one fusion; it loads nothing and names no file.

    `alignment` is the registration of the PET to the MRI, where there was one; `title` is put on the page as it
    stands. Raises OutputError; no partial file is left.
    """
    write_page(path, lambda: fusion_page(result, alignment, title), overwrite)


def fusion_page(result: FusionResult, alignment: RegistrationResult | None = None, title: str = "") -> Page:
    """Gather the page."""
    display = FusionDisplay.of(result)
    privacy = Privacy.of({"the MRI": result.a, "the PET": result.b})
    reasons, warnings = _reasons_and_warnings(result, alignment)
    return Page(
        name="fusion",
        method=result.method,
        reasons=reasons,
        warnings=warnings,
        settings=result.settings,
        privacy=privacy,
        context=_context(result, alignment, display),
        viewer=_viewer(result, display),
        scripts=NIIVUE,
        title=title,
    )


def _viewer(result: FusionResult, display: FusionDisplay) -> dict[str, object]:
    """Return what the script reads: the three volumes in full, each in 256 levels of its own values."""
    volumes = {"mri": (result.a, result.a_scaling), "pet": (result.b, result.b_scaling), "fused": (result.fused, None)}
    x, y, z = display.center_mm.tolist()
    embedded: dict[str, object] = {}
    for name, (image, scaling) in volumes.items():
        low, high = (0.0, 1.0) if scaling is None else (scaling.low, scaling.high)
        brightest = low + display.tops[name] * (high - low)
        embedded[name] = asdict(embed_levels(image, (low, high), (low, brightest)))
    return {
        **embedded,
        "colours": colour_ramp().tolist(),
        "unit": display.pet_unit,
        "start_mm": [-x, -y, z],
    }


def _stills(display: FusionDisplay) -> str:
    columns = [StillColumn(words, unit_bytes(display.volumes[name]), {}) for name, words in STILLS]
    colours = colour_ramp()[unit_bytes(display.volumes["pet"]).numpy()]
    columns[1] = StillColumn("PET", colours, {})
    mixed = colour_fusion(display.volumes["mri"].numpy(), display.volumes["pet"].numpy())
    columns.append(StillColumn("MRI lightness, PET colour", mixed, {}))
    return draw_stills(display.grid, display.center_mm, columns)


def _context(result: FusionResult, alignment: RegistrationResult | None, display: FusionDisplay) -> dict[str, object]:
    fused, mri, pet = result.fused.voxels, result.a.voxels, result.b.voxels
    ssim = [float(structural_similarity_score(fused, one)) for one in (mri, pet)]
    return {
        "notes": result.notes,
        "ssim_mean": f"{sum(ssim) / 2:.3f}",
        "ssim_each": f"{ssim[0]:.3f} / {ssim[1]:.3f}",
        "qabf": f"{float(gradient_preservation_score(fused, mri, pet)):.3f}",
        "motion": "" if alignment is None else f"{alignment.shift_mm():.1f} mm, {alignment.angle_deg():.1f}°",
        "seconds": result.seconds,
        "scalings": _scaling_rows({"MRI": result.a_scaling, "PET": result.b_scaling}),
        "stills": _stills(display),
    }


def _reasons_and_warnings(
    result: FusionResult, alignment: RegistrationResult | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return why the registration is not to be trusted, and all other warnings, each once."""
    trusted, reasons, warnings = result.trusted, result.reasons, result.warnings
    if alignment is not None:
        trusted = alignment.trusted
        reasons = (*alignment.reasons, *reasons)
        warnings = (*alignment.warnings, *warnings)
    if trusted is False and not reasons:
        reasons = (ALIGNMENT,)
    return tuple(dict.fromkeys(reasons)), tuple(dict.fromkeys(warnings))


def _scaling_rows(scalings: dict[str, Scaling]) -> Rows:
    return tuple(
        (name, one.unit or "of its file", f"{one.low:.6g}", f"{one.high:.6g}", f"{one.clipped_fraction:.2%}")
        for name, one in scalings.items()
    )
