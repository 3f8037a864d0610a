"""Attention blocks of a network, and where one point of the fixed image attends in the moving image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.explanation.maps import CropMap, View, crop_map, spread
from crossalign.geometry import Grid
from crossalign.networks.capabilities import AttentionBlock, ShowsAttention, shown_attention
from crossalign.types import Shape, Vector

ATTENTION_NETWORKS = "attention-reg and correspondence"


def attention_blocks(network: nn.Module) -> tuple[AttentionBlock, ...]:
    """List a network's attention blocks, the fixed side's first; empty for a network without attention."""
    attention = shown_attention(network)
    return () if attention is None else attention.attention_blocks()


def position_grid(network: nn.Module, crop: Grid) -> Grid:
    """Return where the network's tokens lie in the fixed image's space; raises InputError without attention."""
    return _attention_of(network).token_grid().on(crop)


def _attention_of(network: nn.Module) -> ShowsAttention:
    attention = shown_attention(network)
    if attention is None:
        raise InputError(
            f"this network ({type(network).__name__}) has no attention: give the weights of {ATTENTION_NETWORKS}"
        )
    return attention


def as_map(output: Tensor, shape: Shape) -> Tensor:
    """Bring a block's output for one pair, (1, c, z, y, x) or tokens (1, n, c), into the form (c, z, y, x)."""
    return output[0] if output.ndim == 5 else output[0].mT.reshape(-1, *shape)


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
    found = _attention_of(view.stage.network).attention_row(view.fixed, view.moving, index)
    row, step_mm = found.weights, found.match_offset_mm
    places = positions.points_mm().flatten(0, 2)
    to_moving = view.start.apply
    matched = None if step_mm is None else to_moving((point_mm + step_mm)[None])[0]
    shares = spread(row.reshape(positions.shape), positions, view.grid)
    title = f"{'Attention' if step_mm is None else 'Match weights'} of {name}"
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


def _in_words(point_mm: Vector) -> str:
    return ", ".join(f"{value:.1f}" for value in point_mm.tolist())
