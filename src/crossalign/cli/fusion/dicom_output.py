"""`crossalign fuse --dicom-out FOLDER`: the fused volume and the overlay, each as a DICOM series in its own folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from crossalign.cli.dicom_output import judged, present
from crossalign.cli.requests.fusion import FuseRequest
from crossalign.fusion import FusionResult
from crossalign.fusion.overlay import blend
from crossalign.fusion.overlay_settings import OverlaySettings
from crossalign.fusion.scaling import Scaling
from crossalign.images.files.dicom.derived import OF_DERIVED, Derivation
from crossalign.images.files.dicom.output import DicomOutput
from crossalign.images.files.dicom.series import Series
from crossalign.input import excerpt

FUSED, OVERLAY = "fused", "overlay"
OVERLAY_NUMBER = 2000  # added to the number of the MRI's series


@dataclass(frozen=True, eq=False)
class FusedSeries:
    """What is written: the grey fused volume, and the PET in colours over the MRI."""

    fused: DicomOutput
    overlay: DicomOutput
    settings: OverlaySettings

    def write(self, result: FusionResult, folder: Path) -> None:
        """Write both into a folder of `whole_folder`."""
        for name in (FUSED, OVERLAY):
            (folder / name).mkdir()
        self.fused.write(result.fused, folder / FUSED)
        self.overlay.write_colours(overlay_colours(result, self.settings), result.fused.grid, folder / OVERLAY)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of them."""
        return self.fused.notes


def fused_series(
    request: FuseRequest,
    result: FusionResult,
    inputs: tuple[Series | None, Series | None],
    settings: OverlaySettings | None = None,
) -> FusedSeries | None:
    """Plan both series, filed with the MRI; None where they are not asked for.

    `inputs` are the series that MRI and PET were read from, None of other formats.
    """
    if request.dicom_out is None:
        return None
    settings = settings or OverlaySettings()
    mri, pet = inputs
    windows = f"MRI {_words(result.a_scaling)}, PET {_words(result.b_scaling)}"
    texts = {
        FUSED: f"MRI and PET fused by {excerpt(result.method, 100)}; values 0 to 1 without a unit. Windows: {windows}.",
        OVERLAY: f"PET in colours ({settings.colour_map}) over the MRI in grey. Windows: {windows}.",
    }
    names = {FUSED: "Fused MR and PET", OVERLAY: "PET over MR"}
    numbers = {FUSED: OF_DERIVED, OVERLAY: OVERLAY_NUMBER}
    outputs = []
    for part, text in texts.items():
        derivation = Derivation(text, names[part], present(mri, pet), None, numbers[part])
        outputs.append(DicomOutput.of(mri, judged(derivation, not result.reasons), request.dicom_identity))
    fused, overlay = outputs
    return FusedSeries(fused, overlay, settings)


def overlay_colours(result: FusionResult, settings: OverlaySettings) -> UInt8[ndarray, "z y x 3"]:
    """Return the overlay of a fusion's two inputs on the MRI's grid, slice by slice: red, green, blue, 0 to 255."""
    colours = np.empty((*result.a.grid.shape, 3), np.uint8)
    for index, (grey, uptake) in enumerate(zip(result.a.voxels.numpy(), result.b.voxels.numpy(), strict=True)):
        colours[index] = blend(grey, uptake, settings)
    return colours


def _words(scaling: Scaling) -> str:
    return f"{scaling.low:.4g} to {scaling.high:.4g} {scaling.unit}".rstrip()
