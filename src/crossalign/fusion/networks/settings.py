"""Sizes of the fusion networks. Standard library only: the command line makes its options from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from crossalign.errors import SettingError
from crossalign.fields import check_bounds, check_choices

TOKEN = 4  # voxels along each axis


@dataclass(frozen=True)
class CompactSettings:
    """The size of `dcfb-compact` and of its twin in the plane."""

    channels: int = 32
    """Channels of a token of 4^3 voxels; a token of 8^3 has twice as many."""
    blocks: int = 1
    """Blocks of cross-attention on tokens of 4^3 voxels, in the encoder and in the decoder."""
    middle_blocks: int = 2
    """Blocks between them, on tokens of 8^3 voxels."""
    heads: int = 4
    """Heads of the attention; they divide the channels."""
    window: int = 2
    """Edge of the windows of attention, in tokens."""
    kernel: int = 5
    """Edge of the blocks' convolution, in tokens; odd."""
    context: int = 12
    """Channels that the blocks pass on to full resolution."""
    hidden: int = 16
    """Hidden channels at full resolution."""
    score_steps: int = 24
    """Steps towards structural similarity and Qabf after the network's first fused volume."""
    attention: bool = True
    """Whether the blocks attend at all; an ablation leaves it out."""
    offsets: bool = True
    """Whether the other modality is sampled at learned offsets; an ablation leaves it out."""

    def __post_init__(self) -> None:
        # Beyond these a network takes more memory than a workstation has.
        most = {"channels": 1024, "blocks": 64, "middle_blocks": 64, "heads": 64, "window": 16, "kernel": 31}
        most |= {"context": 1024, "hidden": 1024, "score_steps": 1024}
        check_bounds(self, {name: (1, value) for name, value in most.items()})
        if self.channels % self.heads:
            raise SettingError("heads", f"must divide the {self.channels} channels, got {self.heads}")
        if self.kernel % 2 == 0:
            raise SettingError("kernel", f"must be odd, got {self.kernel}")

    @property
    def multiple(self) -> int:
        """Volumes are padded to multiples of this on each axis, and tiles must start at multiples of it."""
        return 2 * TOKEN * self.window


@dataclass(frozen=True)
class DCFBSettings:
    """The size of `dcfb`: the paper's by default."""

    channels: int = 96
    """Channels of a token at the finest level; each level doubles them."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks of each level."""
    heads: tuple[int, ...] = (3, 6, 12, 24)
    """Heads of each level's attention; they divide its channels."""
    window: int = 2
    """Edge of the windows of attention, in tokens."""
    drop_path: float = 0.2
    """Rate at which the last block is left out in training; earlier ones less often."""

    def __post_init__(self) -> None:
        # Beyond these a network takes more memory than a workstation has.
        check_bounds(self, {"channels": (2, 1024), "window": (1, 16)})
        for name, most in (("depths", 64), ("heads", 1024)):
            values = getattr(self, name)
            if not 1 <= len(values) <= 6 or not 1 <= min(values) <= max(values) <= most:
                raise SettingError(name, f"must be 1 to 6 numbers, one for each level, from 1 to {most}, got {values}")
        if len(self.depths) != len(self.heads):
            raise SettingError("heads", f"must be as many as levels, {len(self.depths)}, got {self.heads}")
        if any((self.channels << level) % heads for level, heads in enumerate(self.heads)):
            raise SettingError(
                "heads", f"must divide the {self.channels} channels, doubled at each level, got {self.heads}"
            )
        if not 0 <= self.drop_path < 1:
            raise SettingError("drop_path", f"must be in [0, 1), got {self.drop_path}")

    @property
    def multiple(self) -> int:
        """Volumes are padded to multiples of this on each axis."""
        return TOKEN * 2 ** (len(self.depths) - 1) * self.window


@dataclass(frozen=True)
class FusionStageSettings:
    """Which network, and its size; the size of the others is not used."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {"model": "network", "paper": "dcfb"}

    network: Literal["dcfb-compact", "dcfb-compact-2d", "dcfb"] = "dcfb-compact"
    """Network: dcfb-compact, dcfb-compact-2d (slice by slice), or dcfb (the paper's)."""
    compact: CompactSettings = field(default_factory=CompactSettings)
    """Size of dcfb-compact and dcfb-compact-2d."""
    dcfb: DCFBSettings = field(default_factory=DCFBSettings)
    """Size of dcfb."""

    def __post_init__(self) -> None:
        check_choices(self)

    @property
    def multiple(self) -> int:
        """Tiles start at multiples of this and their sizes are multiples of it."""
        return self.dcfb.multiple if self.network == "dcfb" else self.compact.multiple
