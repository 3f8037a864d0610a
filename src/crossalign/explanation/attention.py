"""Attention blocks of a network, and where one point of the fixed image attends in the moving image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.explanation.maps import CropMap, View, crop_map, spread
from crossalign.geometry import Grid
from crossalign.networks import AttentionReg, CorrespondenceReg
from crossalign.networks.attention_reg import feature_shape
from crossalign.networks.tokens import STRIDE
from crossalign.types import Shape, Vector

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


@dataclass(frozen=True, eq=False)
class AttendedPoint:
    """One fixed point in one stage; all points are (3,), LPS, mm.

    `position_mm` is the middle of the attention's position that holds the point, in the fixed image. `map` shows the
    shares of attention that it gives to each place of the moving image as the stage's start lays it over the fixed
    one. The rest lies in the moving image: `start_mm` where the start puts the point, `looks_at_mm` the mean place
    looked at, `matched_mm` the network's own match (None where it makes none), `answer_mm` where the stage's answer
    puts the point. `largest_share` is the largest value of the row, `positions` over how many of the `all_positions`
    places the row is spread (the exponential of its entropy).
    """

    name: str
    point_mm: Vector
    position_mm: Vector
    map: CropMap
    start_mm: Vector
    looks_at_mm: Vector
    matched_mm: Vector | None
    answer_mm: Vector
    largest_share: float
    positions: float
    all_positions: int


@torch.no_grad()
def attended_point(view: View, name: str, point_mm: Vector) -> AttendedPoint:
    """Follow a point (3,) of the fixed image; raises InputError outside the crop and for networks without attention."""
    positions = position_grid(view.stage.network, view.grid)
    check_in_crop(view, name, point_mm)
    index = _position(point_mm, positions)
    row, step_mm = _row(view, index)
    places = positions.points_mm().flatten(0, 2)
    to_moving = view.start.apply
    matched = None if step_mm is None else to_moving((point_mm + step_mm)[None])[0]
    shares = spread(row.reshape(positions.shape), positions, view.grid)
    title = f"{_row_words(view.stage.network)} of {name}"
    return AttendedPoint(
        name=name,
        point_mm=point_mm,
        position_mm=places[index],
        map=crop_map((f"point-{name}", title, "moving"), shares, view.grid, "share"),
        start_mm=to_moving(point_mm[None])[0],
        looks_at_mm=to_moving((row @ places)[None])[0],
        matched_mm=matched,
        answer_mm=view.found().apply(point_mm[None])[0],
        largest_share=float(row.max()),
        positions=float(torch.special.entr(row).sum().exp()),
        all_positions=len(row),
    )


def check_in_crop(view: View, name: str, point_mm: Vector) -> None:
    """Raise InputError where a point (3,) lies outside a stage's crop."""
    if not bool(view.grid.contains(point_mm[None])):
        half = torch.tensor(view.grid.spacing_mm, dtype=torch.float64) / 2
        corners = view.grid.corners_mm()
        raise InputError(
            f"point '{name}' at ({_in_words(point_mm)}) mm lies outside the crop of {view.name}: expected "
            f"({_in_words(corners.amin(0) - half)}) to ({_in_words(corners.amax(0) + half)}) mm, LPS, "
            "in the fixed image"
        )


def _position(point_mm: Vector, positions: Grid) -> int:
    """Return the number of the position nearest to the point."""
    x, y, z = (int(i) for i in positions.to_voxel(point_mm[None])[0].round().long())
    depth, height, width = positions.shape
    x, y, z = min(max(x, 0), width - 1), min(max(y, 0), height - 1), min(max(z, 0), depth - 1)
    return (z * height + y) * width + x


def _row(view: View, index: int) -> tuple[Tensor, Vector | None]:
    """Return one row of the attention, (n,), float64, and the step (mm) from the position to its match, if any."""
    model = view.stage.network
    if isinstance(model, AttentionReg) and model.moving_attention is not None:
        return _attention_row(model, model.moving_attention, view, index), None
    if isinstance(model, CorrespondenceReg):
        return _match_row(model, view, index)
    raise InputError(f"{view.name} has no attention to show for a point: give the weights of {ATTENTION_NETWORKS}")


def _attention_row(model: AttentionReg, block: nn.Module, view: View, index: int) -> Tensor:
    """Softmax over the moving map's keys for the query of one fixed position, as the moving block computes it."""
    fixed, moving = model.fixed_extractor(view.fixed), model.moving_extractor(view.moving)
    query = block.get_submodule("query")(fixed).flatten(2)[0, :, index]
    keys = block.get_submodule("key")(moving).flatten(2)[0]
    return torch.softmax((query @ keys).cpu().double(), dim=0)


def _match_row(model: CorrespondenceReg, view: View, index: int) -> tuple[Tensor, Vector]:
    """Softmax over the moving tokens for one fixed token, and the step to its refined match."""
    kept: list[Tensor] = []
    modules = (model.match_query, model.match_key)
    handles = [one.register_forward_hook(lambda _m, _i, output: kept.append(output)) for one in modules]
    try:
        places, matches, _ = model.correspondences(view.fixed, view.moving)
    finally:
        for handle in handles:
            handle.remove()
    queries, keys = (part[0] for part in kept)
    row = torch.softmax((keys @ queries[index]).cpu().double() / queries.shape[-1] ** 0.5, dim=0)
    return row, (matches - places)[0, index].cpu().double()


def _row_words(model: nn.Module) -> str:
    return "Match shares" if isinstance(model, CorrespondenceReg) else "Attention"


def _in_words(point_mm: Vector) -> str:
    return ", ".join(f"{value:.1f}" for value in point_mm.tolist())
