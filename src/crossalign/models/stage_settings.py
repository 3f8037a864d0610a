"""What a network is given. Standard library only: the command line makes its options from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from crossalign.fields import Bounds, check_bounds, check_choices, check_over_zero
from crossalign.networks.registry import build_network, check_crop_shape, network_builder

if TYPE_CHECKING:
    from torch import nn

FixedInput: TypeAlias = Literal["image", "label"]
MovingInput: TypeAlias = Literal["image", "image-label"]
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

    moving_input: MovingInput = "image"
    """What the network is given of the moving image: the image, or the image and the structure's mask in it as a second
    channel (correspondence networks only)."""

    def __post_init__(self) -> None:
        check_crop_shape(self.network, self.crop_shape)
        check_over_zero(self, *SPACINGS)
        check_bounds(self, SPACINGS)
        check_choices(self)
        network_builder(self.network, self.moving_channels())

    def takes_moving_mask(self) -> bool:
        """Say whether the network is given the structure's mask in the moving image."""
        return self.moving_input == "image-label"

    def moving_channels(self) -> int:
        """Count the channels of the moving crop."""
        return 2 if self.takes_moving_mask() else 1

    def build(self) -> nn.Module:
        """Make the untrained network; its weights are drawn from torch's global generator."""
        return build_network(self.network, self.crop_shape, self.crop_spacing_mm, self.moving_channels())

    def extent_mm(self) -> float:
        """Length of the crop's longest side."""
        return max(self.crop_shape) * self.crop_spacing_mm

    def text(self) -> str:
        """Name the network, its crop and its input."""
        crop = "x".join(str(size) for size in self.crop_shape)
        moving = ", moving image and label" if self.takes_moving_mask() else ""
        return f"{self.network}, crop {crop} at {self.crop_spacing_mm:g} mm, fixed {self.fixed_input}{moving}"
