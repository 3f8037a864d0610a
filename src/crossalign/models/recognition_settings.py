"""What the recognition network is given. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from crossalign.fields import Bounds, check_bounds

BOUNDS: Bounds = {
    "width": (2, 64),
    "crop_size": (24, 24),
    "crop_spacing_mm": (1, 20),
    "working_spacing_mm": (0.5, 20),
    "rotation_deg": (0, 45),
}


@dataclass(frozen=True)
class RecognitionSettings:
    """The network's width and its crops: cubes about the structure, or about the middle of a field of view."""

    width: int = 6
    """Width of the layers."""
    crop_size: int = 24
    """Voxels on a side of a crop."""
    crop_spacing_mm: float = 4.5
    """Spacing of the crop's voxels, mm."""
    working_spacing_mm: float = 3.0
    """Spacing to which images are resampled before crops are sampled from them, mm."""
    rotation_deg: float = 20.0
    """How far, about each axis, the moving image's axes may be off in the right orientation, degrees."""

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS)

    def extent_mm(self) -> float:
        """Length of a crop's side."""
        return self.crop_size * self.crop_spacing_mm
