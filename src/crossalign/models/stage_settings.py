"""What a network is given. Standard library only: the command line makes its options from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from crossalign.fields import Bounds, check_bounds, check_choices, check_over_zero
from crossalign.networks.registry import check_crop_shape

FixedInput: TypeAlias = Literal["image", "label"]
SPACINGS: Bounds = dict.fromkeys(("crop_spacing_mm", "working_spacing_mm"), (1e-3, 1e3))  # a micrometre to a metre


@dataclass(frozen=True)
class StageSettings:
    """Which network, and its crop: isotropic, about the structure's centre, axes along L, P and S."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {"model": "network"}  # in files of earlier versions

    network: str = "attention-reg"
    """Network: attention-reg, feature-reg, correspondence, msreg, msreg-published or dvnet (a stand-in)."""

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
        check_over_zero(self, *SPACINGS)
        check_bounds(self, SPACINGS)
        check_choices(self)

    def extent_mm(self) -> float:
        """Length of the crop's longest side."""
        return max(self.crop_shape) * self.crop_spacing_mm

    def text(self) -> str:
        """Name the network, its crop and its input."""
        crop = "x".join(str(size) for size in self.crop_shape)
        return f"{self.network}, crop {crop} at {self.crop_spacing_mm:g} mm, fixed {self.fixed_input}"
