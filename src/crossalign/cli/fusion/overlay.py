"""`crossalign fuse --overlay`: the PET in colours over the MRI, as a volume, a picture, and what a viewer needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from crossalign.cli.requests.fusion import FuseRequest
from crossalign.errors import InputError
from crossalign.fusion import FusionResult
from crossalign.fusion.overlay import Overlay
from crossalign.fusion.overlay_settings import OverlaySettings
from crossalign.geometry import Rigid
from crossalign.images import Image
from crossalign.images.files.colours import COLOUR_SUFFIXES, check_colour_output, write_colours
from crossalign.output import check_output, write_text


def overlay_files(request: FuseRequest) -> tuple[Path, ...]:
    """Name the volume in colour, the picture of its planes, the JSON file and the page; none where not asked for."""
    if request.overlay is None:
        return ()
    path = request.overlay
    suffix = next((one for one in COLOUR_SUFFIXES if path.name.endswith(one)), path.suffix)
    base = path.name.removesuffix(suffix)
    return path, *(path.with_name(f"{base}{ending}") for ending in (".png", ".json", ".html"))


def check_overlay(request: FuseRequest) -> None:
    """Raise OutputError where a file of the overlay cannot be written, InputError for options without --overlay."""
    if request.overlay is None:
        given = (*request.colours.options(), *(() if request.overlay_point is None else ("--overlay-point",)))
        if given and (request.dicom_out is None or request.overlay_point is not None):
            raise InputError(f"{given[0]} needs --overlay: without it no overlay is made")
        return
    check_colour_output(request.overlay, request.overwrite)
    for path in overlay_files(request)[1:]:
        check_output(path, request.overwrite)


def overlay_settings(request: FuseRequest) -> OverlaySettings:
    """Return how the PET is coloured."""
    return request.colours.over(OverlaySettings())


def overlay_of(
    request: FuseRequest, result: FusionResult, mri: Image, pet: Image, mri_to_pet: Rigid | None
) -> Overlay | None:
    """Make the overlay of the two images, by the windows of the fusion; None where it is not asked for."""
    if request.overlay is None:
        return None
    return Overlay(mri, pet, result.a_scaling, result.b_scaling, mri_to_pet, overlay_settings(request))


def write_overlay(request: FuseRequest, overlay: Overlay, result: FusionResult, places: Mapping[Path, Path]) -> None:
    """Write the files of the overlay to the temporary paths of `whole_files`."""
    from crossalign.report.overlay_planes import maximum_uptake, write_overlay_planes  # slow to import
    from crossalign.report.pages.overlay import write_overlay_page

    volume, picture, record, page = overlay_files(request)
    note = f"PET in {overlay.settings.colour_map} over MRI; research software"
    write_colours(overlay.rgb(), overlay.grid, places[volume], note)
    write_overlay_planes(places[picture], overlay, request.overlay_point, overwrite=True)
    write_overlay_page(places[page], overlay, result.reasons, request.title, overwrite=True)
    point, highest = maximum_uptake(overlay)
    content = {
        **overlay.record(),
        "highest_uptake": {"value": highest, "point_mm": list(point)},
        "trusted": result.trusted,
    }
    write_text(json.dumps(content, indent=1) + "\n", places[record])
