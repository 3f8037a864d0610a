"""The page about one fusion: gather what it shows, fill the template, write the file whole or not at all."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import jinja2
import numpy as np

from crossalign.fusion import FusionResult, Scaling
from crossalign.fusion.metrics.structure import qabf_score, ssim_score
from crossalign.output import check_output, whole_file
from crossalign.registration.record import other_warnings, reasons_not_to_trust
from crossalign.registration.result import RegistrationResult
from crossalign.report.display import ViewerData, packed
from crossalign.report.fusion_colour import COLOUR_MAP, LEVELS, colour_table
from crossalign.report.fusion_display import pet_range, show
from crossalign.report.private import Privacy

STYLES = ("report.css", "fusion.css")
SCRIPTS = ("volume.js", "paint.js", "planes.js", "fusion.js")


@dataclass(frozen=True)
class _PageContext:
    """The page's text, free of file names: what the template reads."""

    method: str
    trusted: bool | None
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    settings: dict[str, str]
    ssim_mean: str
    ssim_each: str
    qabf: str
    motion: str
    seconds: float
    scalings: tuple[tuple[str, ...], ...]
    pet_low: str
    pet_high: str
    unit: str
    crossalign_version: str
    date: str


def write_fusion_report(
    path: str | os.PathLike[str],
    result: FusionResult,
    moved: RegistrationResult | None = None,
    overwrite: bool = False,
) -> None:
    """Write one self-contained HTML page about one fusion; it loads nothing and names no file.

    `moved` is how the PET was brought to the MRI, where it was. Raises OutputError; no partial file is left.
    """
    check_output(path, overwrite)
    page = render_fusion_report(result, moved)
    with whole_file(path, overwrite) as partial:
        Path(partial).write_bytes(page.encode("utf-8", "replace"))


def render_fusion_report(result: FusionResult, moved: RegistrationResult | None = None) -> str:
    """Return the page as text, about 1 to 4 MB."""
    shown = show(result)
    low, high, unit = pet_range(result, shown)
    scans = {name: (volume * 255).round().byte() for name, volume in shown.volumes.items()}
    viewer = ViewerData.on_grid(shown.grid, shown.look_at_mm, {}, {})
    viewer_json = {
        **{name: getattr(viewer, name) for name in ("sizes", "spacing_mm", "origin_mm", "start_voxel")},
        "scans": {name: packed(volume) for name, volume in scans.items()},
        "table": _packed_bytes(colour_table()),
        "ramp": _packed_bytes(_ramp()),
        "levels": LEVELS,
        "pet_low": low,
        "pet_high": high,
        "unit": unit,
    }
    style = "\n".join(_part(name) for name in STYLES)
    script = '"use strict";\n' + "\n".join(_part(name) for name in SCRIPTS)
    return _template().render(
        told=_page_context(result, moved, (low, high, unit)),
        viewer_json=viewer_json,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("fusion.html.j2")


def _page_context(
    result: FusionResult, moved: RegistrationResult | None, pet: tuple[float, float, str]
) -> _PageContext:
    names = {result.a.name: "the MRI", result.b.name: "the PET"}
    clean = Privacy(names).clean
    fused, mri, pet_voxels = result.fused.voxels, result.a.voxels, result.b.voxels
    ssim = [float(ssim_score(fused, one)) for one in (mri, pet_voxels)]
    trusted, reasons, warnings = _said(result, moved)
    return _PageContext(
        method=clean(result.method),
        trusted=trusted,
        reasons=tuple(clean(text) for text in reasons),
        warnings=tuple(clean(text) for text in warnings),
        notes=tuple(clean(text) for text in result.notes),
        settings={clean(key): clean(value) for key, value in result.settings.items()},
        ssim_mean=f"{sum(ssim) / 2:.3f}",
        ssim_each=f"{ssim[0]:.3f} / {ssim[1]:.3f}",
        qabf=f"{float(qabf_score(fused, mri, pet_voxels)):.3f}",
        motion="" if moved is None else f"{moved.shift_mm():.1f} mm, {moved.angle_deg():.1f}°",
        seconds=result.seconds,
        scalings=(_scaling_row("MRI", result.a_scaling), _scaling_row("PET", result.b_scaling)),
        pet_low=f"{pet[0]:.4g}",
        pet_high=f"{pet[1]:.4g}",
        unit=pet[2],
        crossalign_version=version("crossalign"),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _said(
    result: FusionResult, moved: RegistrationResult | None
) -> tuple[bool | None, tuple[str, ...], tuple[str, ...]]:
    """Return whether the registration is trusted, why not, and all other warnings, each once."""
    if moved is None:
        return (False if result.reasons else result.trusted), result.reasons, result.warnings
    reasons = tuple(dict.fromkeys((*reasons_not_to_trust(moved), *result.reasons)))
    warnings = tuple(dict.fromkeys((*other_warnings(moved), *result.warnings)))
    return (False if reasons else moved.trusted), reasons, warnings


def _scaling_row(name: str, scaling: Scaling) -> tuple[str, ...]:
    unit = scaling.unit or "of its file"
    return name, f"{scaling.low:.6g}", f"{scaling.high:.6g}", unit, f"{scaling.clipped_share:.2%}"


def _ramp() -> np.ndarray:
    """Colours of a PET alone, (256, 3)."""
    import matplotlib as mpl

    return np.rint(mpl.colormaps[COLOUR_MAP](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)


def _packed_bytes(values: np.ndarray) -> str:
    return base64.b64encode(gzip.compress(values.tobytes(), compresslevel=9, mtime=0)).decode()


def _part(name: str) -> str:
    text = files("crossalign.report").joinpath("templates", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")  # browsers hash the text with bare line feeds


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
