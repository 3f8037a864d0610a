"""A PET over an MR: the MR in grey, the PET in the colours of a perceptual map, as opaque as its uptake is high."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from crossalign.fusion.overlay_settings import OverlaySettings
from crossalign.fusion.scaling import Scaling
from crossalign.fusion.window_settings import WindowSettings
from crossalign.fusion.windows import scaling_of
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image
from crossalign.images.conversion import ImageLike, as_image
from crossalign.images.image import slabs
from crossalign.types import Scan

LEVELS = 256
GREY = 255.0


def opacity_of(settings: OverlaySettings, uptake: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the opacity of scaled uptakes in [0, 1]: 0 up to the onset, and nowhere falling."""
    x, y = zip(*settings.points(), strict=True)
    return np.interp(uptake, x, y).astype(np.float32)


def colour_table(settings: OverlaySettings) -> UInt8[np.ndarray, "256 4"]:
    """Return red, green, blue and opacity, 0 to 255, of 256 uptakes evenly from 0 to the top of the window."""
    import matplotlib as mpl  # slow to import

    level = np.linspace(0, 1, LEVELS)
    table = mpl.colormaps[settings.colour_map](level)
    table[:, 3] = opacity_of(settings, level)
    return np.rint(table * GREY).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Overlay:
    """A PET to be drawn over an MR: both as they were read, their windows, and the settings of the drawing.

    `pet` keeps its own grid and values; `fixed_to_pet` maps points of `fixed` to points of it, LPS mm, and None means
    that the two headers agree. `notes` say what was guessed about the windows.
    """

    fixed: Image
    pet: Image
    fixed_scaling: Scaling
    pet_scaling: Scaling
    fixed_to_pet: Rigid | None = None
    settings: OverlaySettings = field(default_factory=OverlaySettings)
    notes: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """The grid of the picture: that of `fixed`."""
        return self.fixed.grid

    def pet_on_fixed(self) -> Image:
        """Return the PET in its own values on the fixed image's grid, trilinear; beyond its field of view it is 0."""
        if self.fixed_to_pet is None and self.pet.grid.agrees_with(self.grid):
            return self.pet
        return self.pet.resampled(self.grid, self.fixed_to_pet, fill=self.pet_scaling.low)

    def scaled(self) -> tuple[Scan, Scan]:
        """Return both by their windows in [0, 1], on the fixed image's grid."""
        scaled = Image(self.pet_scaling.apply(self.pet.voxels), self.pet.grid, self.pet.name)
        if self.fixed_to_pet is not None or not self.pet.grid.agrees_with(self.grid):
            scaled = scaled.resampled(self.grid, self.fixed_to_pet, fill=0.0)
        return self.fixed_scaling.apply(self.fixed.voxels), scaled.voxels

    def rgb(self) -> UInt8[Tensor, "z y x 3"]:
        """Return red, green and blue, 0 to 255, on `grid`; where the uptake is 0 they are the MR's grey."""
        grey, uptake = self.scaled()
        parts = [
            torch.from_numpy(blend(of_grey.numpy(), of_uptake.numpy(), self.settings))
            for of_grey, of_uptake in zip(slabs(grey), slabs(uptake), strict=True)
        ]
        return torch.cat(parts)

    def record(self) -> dict[str, Any]:
        """Return what a viewer needs to draw the same: windows, colour map with its table, opacity curve; no names."""
        return {
            "format": "crossalign overlay 1",
            "fixed": {**asdict(self.fixed_scaling), "colour_map": "gray"},
            "pet": {**asdict(self.pet_scaling), "colour_map": self.settings.colour_map},
            "opacity_curve": [list(point) for point in self.settings.points()],
            "settings": asdict(self.settings),
            "colour_table": colour_table(self.settings).tolist(),
            "fixed_to_pet": None if self.fixed_to_pet is None else self.fixed_to_pet.matrix().tolist(),
            "meaning": (
                "grey = (fixed - low) / (high - low) and uptake = (pet - low) / (high - low), both clipped to 0..1; "
                "alpha = opacity_curve(uptake), straight lines between its points; "
                "colour = (1 - alpha) * grey + alpha * colour_map(uptake). "
                "colour_table has red, green, blue and alpha, 0 to 255, of 256 uptakes from 0 to 1; "
                "fixed_to_pet maps points of the fixed image to points of the PET, LPS mm"
            ),
            "note": "Research software, not a medical device.",
        }


def make_overlay(
    fixed: ImageLike,
    pet: ImageLike,
    fixed_to_pet: Rigid | None = None,
    settings: OverlaySettings | None = None,
    windows: WindowSettings | None = None,
    pet_unit: str = "",
) -> Overlay:
    """Make the overlay of a PET on an MR or CT, by the windows of `fuse`. Raises ImageError for a flat image."""
    fixed, pet, windows = as_image(fixed, "MRI"), as_image(pet, "PET"), windows or WindowSettings()
    (of_fixed, fixed_notes), (of_pet, pet_notes) = (
        scaling_of(windows, fixed, "a"),
        scaling_of(windows, pet, "b", pet_unit),
    )
    notes = (*fixed_notes, *pet_notes)
    return Overlay(fixed, pet, of_fixed, of_pet, fixed_to_pet, settings or OverlaySettings(), notes)


def blend(grey: NDArray[np.float32], uptake: NDArray[np.float32], settings: OverlaySettings) -> NDArray[np.uint8]:
    """Draw scaled uptakes over scaled greys, both in [0, 1] and of one shape; returns RGB with a last axis of 3."""
    table = colour_table(settings)[:, :3].astype(np.float32)
    colours = table[np.rint(np.clip(uptake, 0, 1) * (LEVELS - 1)).astype(np.uint8)]
    alpha = opacity_of(settings, uptake)[..., None]
    return np.rint((1 - alpha) * (GREY * np.clip(grey, 0, 1))[..., None] + alpha * colours).astype(np.uint8)
