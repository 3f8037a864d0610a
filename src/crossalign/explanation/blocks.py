"""Attention blocks: which modules of a network attend, and where their positions lie in the crop."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.geometry import Grid
from crossalign.models import AttentionReg, CorrespondenceReg
from crossalign.models.attention_reg import feature_shape
from crossalign.models.tokens import STRIDE
from crossalign.types import Shape

ATTENTION_NETWORKS = "attention-reg and correspondence"


@dataclass(frozen=True, eq=False)
class Block:
    """A module whose output is a map of one side, `fixed` or `moving`, made with attention to the other side."""

    name: str
    side: str
    module: nn.Module

    @property
    def title(self) -> str:
        """The block in words."""
        words = self.name.replace("-", " ").removesuffix(self.side).strip().replace("round", "round ")
        return f"attention block of the {self.side} side" + (f", {words}" if words else "")


def attention_blocks(model: nn.Module) -> tuple[Block, ...]:
    """List a network's attention blocks, the fixed side's first; empty for a network without attention."""
    if isinstance(model, AttentionReg) and model.fixed_attention is not None and model.moving_attention is not None:
        return (Block("fixed", "fixed", model.fixed_attention), Block("moving", "moving", model.moving_attention))
    if isinstance(model, CorrespondenceReg):
        sides = (("fixed", model.fixed_rounds), ("moving", model.moving_rounds))
        return tuple(
            Block(f"round{number}-{side}", side, _cross(one))
            for side, rounds in sides
            for number, one in enumerate(rounds, start=1)
        )
    return ()


def _cross(one_round: nn.Module) -> nn.Module:
    return one_round.get_submodule("cross")


def position_grid(model: nn.Module, crop: Grid) -> Grid:
    """Return where the attention's positions lie in the fixed image's space, given the crop's grid.

    Attention-Reg: position i of an axis is centred on crop voxel 2 i (z) or 4 i (y, x), the middle of what its two
    poolings see. Correspondence: where the network itself places its tokens, crop voxel 4 i + 1.5. Raises InputError
    for a network without attention.
    """
    if isinstance(model, AttentionReg) and model.fixed_attention is not None:
        return _every(crop, feature_shape(model.input_shape), (2, 4, 4), 0.0)
    if isinstance(model, CorrespondenceReg):
        return _every(crop, model.lattice, (STRIDE, STRIDE, STRIDE), (STRIDE - 1) / 2)
    raise InputError(
        f"this network ({type(model).__name__}) has no attention: give the weights of {ATTENTION_NETWORKS}"
    )


def as_map(output: Tensor, shape: Shape) -> Tensor:
    """Bring a block's output for one pair, (1, c, z, y, x) or tokens (1, n, c), into the form (c, z, y, x)."""
    return output[0] if output.ndim == 5 else output[0].mT.reshape(-1, *shape)


def _every(crop: Grid, shape: Shape, step: Shape, first_voxel: float) -> Grid:
    """Take every step-th voxel (z, y, x) of a grid with axes along L, P and S, from `first_voxel` on each axis."""
    spacing = tuple(mm * n for mm, n in zip(crop.spacing_mm, reversed(step), strict=True))
    origin = tuple(mm + first_voxel * step_mm for mm, step_mm in zip(crop.origin_mm, crop.spacing_mm, strict=True))
    return Grid(shape, (spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2]))
