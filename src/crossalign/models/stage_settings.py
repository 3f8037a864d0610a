"""What a network is given. Standard library only: the command line makes its options from these."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

from crossalign.errors import InputError
from crossalign.networks.registry import check_crop_shape

FixedInput: TypeAlias = Literal["image", "label"]
SPACING_MM = 1e-3, 1e3  # of crops: of a micrometre to a metre


@dataclass(frozen=True)
class StageSettings:
    """Which network, and its crop: isotropic, about the structure's centre, axes along L, P and S."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {"model": "network"}  # in files of earlier versions

    network: str = "attention-reg"
    """Name of the network."""

    crop_shape: tuple[int, int, int] = (32, 32, 32)
    """Size of the crop in voxels: z, y, x."""

    crop_spacing_mm: float = 2.5
    """Spacing of the crop's voxels, mm."""

    working_spacing_mm: float = 1.5
    """Spacing to which both images are resampled, smoothed against aliasing, before crops are sampled from them, mm."""

    fixed_input: FixedInput = "image"
    """What the network is given of the fixed image: the image, or the structure's mask (the papers' label mode)."""

    def __post_init__(self) -> None:
        check_crop_shape(self.network, self.crop_shape)
        spacings = (self.crop_spacing_mm, self.working_spacing_mm)
        if not all(math.isfinite(value) and value > 0 for value in spacings):
            raise InputError(f"spacings must be over 0 mm and finite, got {spacings[0]} and {spacings[1]}")
        if not all(SPACING_MM[0] <= value <= SPACING_MM[1] for value in spacings):
            raise InputError(
                f"spacings must lie in {SPACING_MM[0]:g}..{SPACING_MM[1]:g} mm, got {spacings[0]} and {spacings[1]}"
            )
        if self.fixed_input not in get_args(FixedInput):
            raise InputError(f"the fixed input is 'image' or 'label', got '{self.fixed_input}'")

    def extent_mm(self) -> float:
        """Length of the crop's longest side."""
        return max(self.crop_shape) * self.crop_spacing_mm

    def text(self) -> str:
        """Name the network, its crop and its input."""
        crop = "x".join(str(size) for size in self.crop_shape)
        return f"{self.network}, crop {crop} at {self.crop_spacing_mm:g} mm, fixed {self.fixed_input}"
