"""The page of an overlay: the PET in colour over the MR, both in full, with windows and an opacity that move."""

from __future__ import annotations

import os
from dataclasses import asdict

import torch

from crossalign.fusion.overlay import Overlay, blend, colour_table
from crossalign.fusion.overlay_settings import OverlaySettings
from crossalign.fusion.scaling import Scaling
from crossalign.images import Image
from crossalign.report.embedding import embed
from crossalign.report.overlay_planes import maximum_uptake
from crossalign.report.page import NIIVUE, Page, Privacy, write_page
from crossalign.report.stills import StillColumn, draw_stills
from crossalign.report.viewer import display_grid, unit_bytes
from crossalign.types import Vector

PERCENT = 100


def write_overlay_page(
    path: str | os.PathLike[str],
    overlay: Overlay,
    reasons: tuple[str, ...] = (),
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Write one self-contained HTML page with a PET over an MR; it loads nothing and names no file.

    `reasons` are why the alignment of both is not to be trusted, if anything is. Raises OutputError; no partial file
    is left.
    """
    write_page(path, lambda: overlay_page(overlay, reasons, title), overwrite)


def overlay_page(overlay: Overlay, reasons: tuple[str, ...] = (), title: str = "") -> Page:
    """Gather the page."""
    settings, center_mm = overlay.settings, torch.tensor(maximum_uptake(overlay)[0], dtype=torch.float64)
    to_fixed = None if overlay.fixed_to_pet is None else overlay.fixed_to_pet.inverse()
    x, y, z = center_mm.tolist()
    return Page(
        name="overlay",
        method="overlay",
        reasons=reasons,
        warnings=(),
        settings={},
        privacy=Privacy.of({"the MR": overlay.fixed, "the PET": overlay.pet}),
        context=_context(overlay, center_mm),
        viewer={
            "fixed": asdict(embed(overlay.fixed, window=_window(overlay.fixed_scaling))),
            "pet": asdict(embed(overlay.pet, to_fixed, _window(overlay.pet_scaling))),
            "colours": colour_table(settings)[:, :3].tolist(),
            "start_mm": [-x, -y, z],
            "unit": overlay.pet_scaling.unit,
        },
        scripts=NIIVUE,
        title=title,
    )


def _scaled(overlay: Overlay) -> Image:
    return Image(overlay.fixed_scaling.apply(overlay.fixed.voxels), overlay.fixed.grid, overlay.fixed.name)


def _window(scaling: Scaling) -> tuple[float, float]:
    return scaling.low, scaling.high


def _context(overlay: Overlay, center_mm: Vector) -> dict[str, object]:
    settings = overlay.settings
    parts = (("MR", overlay.fixed_scaling), ("PET", overlay.pet_scaling))
    return {
        "opacity": round(settings.opacity * PERCENT),
        "onset": round(settings.onset * PERCENT),
        "full": round(settings.full * PERCENT),
        "colour_map": settings.colour_map,
        "curve": curve_text(settings),
        "windows": tuple((name, one.unit or "of its file", f"{one.low:.6g}", f"{one.high:.6g}") for name, one in parts),
        "notes": overlay.notes,
        "stills": _stills(overlay, center_mm),
    }


def curve_text(settings: OverlaySettings) -> str:
    """Say the opacity curve in words."""
    return (
        f"0 up to {settings.onset:.0%} of the PET's window, rising evenly to {settings.opacity:.0%} at "
        f"{settings.full:.0%} of it, and the same above"
    )


def _stills(overlay: Overlay, center_mm: Vector) -> str:
    grid = display_grid(overlay.fixed.grid, overlay.pet.grid, None)
    grey = _scaled(overlay).resampled(grid, fill=0.0).voxels.clamp(0, 1)
    pet = Image(overlay.pet_scaling.apply(overlay.pet.voxels), overlay.pet.grid, overlay.pet.name)
    uptake = pet.resampled(grid, overlay.fixed_to_pet, fill=0.0).voxels.clamp(0, 1)
    columns = (
        StillColumn("MR", unit_bytes(grey), {}),
        StillColumn("PET over MR", blend(grey.numpy(), uptake.numpy(), overlay.settings), {}),
        StillColumn("PET", colour_table(overlay.settings)[:, :3][(uptake * 255).round().long().numpy()], {}),
    )
    return draw_stills(grid, center_mm, columns)
