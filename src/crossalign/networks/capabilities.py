"""What some networks can do besides registering: predict their error, show their fit and their attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from crossalign.geometry import Grid
from crossalign.geometry.fit import MatchMoments
from crossalign.types import Distances, Parameters, Shape, Vector, Volume


@runtime_checkable
class ExpectsError(Protocol):
    """A network that also predicts the error of its own answer."""

    def forward_with_error(self, fixed: Volume, moving: Volume) -> tuple[Parameters, Distances]:
        """Return what `forward` returns, (b, 6), and the SRE (b,) in mm that the network expects of it."""
        ...


@runtime_checkable
class ShowsFit(Protocol):
    """A network whose correction is the closed-form fit of matches, which can be repeated with a prior on it."""

    def forward_with_fit(self, fixed: Volume, moving: Volume) -> tuple[MatchMoments, Distances]:
        """Return the moments of the matches, mm from the crops' centres, and the SRE (b,), mm, that it expects."""
        ...


@dataclass(frozen=True, eq=False)
class AttentionBlock:
    """A module whose output is a map of one side, `fixed` or `moving`, made with attention to the other side.

    `layer` counts from 1 where a network has several; 0 where it has one. The output for one pair is (1, c, z, y, x) or
    tokens (1, n, c).
    """

    side: str
    module: nn.Module
    layer: int = 0

    @property
    def name(self) -> str:
        """Short name, part of file names."""
        return f"layer{self.layer}-{self.side}" if self.layer else self.side

    @property
    def title(self) -> str:
        """The block in words."""
        return f"attention block of the {self.side} side" + (f", layer {self.layer}" if self.layer else "")


@dataclass(frozen=True)
class TokenGrid:
    """Where a network's tokens lie: how many along each axis (z, y, x), and on which voxels of its crop.

    Token i of an axis lies on crop voxel `first_voxel` + i * `stride`.
    """

    shape: Shape
    stride: Shape
    first_voxel: float = 0.0

    def on(self, crop: Grid) -> Grid:
        """Return the tokens' positions as a grid, given the grid of the crop's voxels."""
        x, y, z = (mm * step for mm, step in zip(crop.spacing_mm, reversed(self.stride), strict=True))
        first = crop.to_physical(torch.full((1, 3), self.first_voxel, dtype=torch.float64))[0].tolist()
        return Grid(self.shape, (x, y, z), (first[0], first[1], first[2]), crop.direction)


@dataclass(frozen=True, eq=False)
class AttentionRow:
    """The attention of one fixed token: weights (n,), float64, of the moving tokens, which sum to 1.

    `match_offset_mm` (3,) leads from the token to its match, for a network that matches tokens.
    """

    weights: Tensor
    match_offset_mm: Vector | None = None


@runtime_checkable
class ShowsAttention(Protocol):
    """A network whose attention can be shown."""

    def attention_blocks(self) -> tuple[AttentionBlock, ...]:
        """List the attention blocks, the fixed side's first; empty for a variant without attention."""
        ...

    def token_grid(self) -> TokenGrid:
        """Return where the tokens of both crops lie."""
        ...

    def attention_row(self, fixed: Volume, moving: Volume, token: int) -> AttentionRow:
        """Return the attention of one token of the fixed crop, for one pair of crops (1, 1, z, y, x)."""
        ...


def shown_attention(network: nn.Module) -> ShowsAttention | None:
    """Return a network whose attention can be shown as one; None where it has none."""
    return network if isinstance(network, ShowsAttention) and network.attention_blocks() else None
