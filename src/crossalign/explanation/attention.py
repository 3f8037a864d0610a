"""Where one point of the fixed image attends in the moving image."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from crossalign.errors import InputError
from crossalign.explanation.crops import CropMap, StageCrop, interpolate_tokens
from crossalign.geometry import Grid
from crossalign.networks.capabilities import shown_attention
from crossalign.types import Vector

ADVICE = "give a model whose network has attention, such as attention-reg or correspondence"


@dataclass(frozen=True, eq=False)
class AttendedPoint:
    """What one fixed point attends to in one stage; all points are (3,), LPS, mm.

    `token_mm` is the position of the nearest token, in the fixed image. `map` shows the weights that it gives to the
    tokens of the moving crop, in the fixed image's space. The rest lies in the moving image: `initial_mm` where the
    stage's initial transform puts the point, `attended_mm` the weighted mean of the tokens' positions, `matched_mm` the
    network's own match (None where it makes none), `answer_mm` where the stage's answer puts the point.
    `largest_weight` is the largest of the `tokens` weights, `effective_tokens` the number over which they are spread
    (the exponential of their entropy).
    """

    name: str
    point_mm: Vector
    token_mm: Vector
    map: CropMap
    initial_mm: Vector
    attended_mm: Vector
    matched_mm: Vector | None
    answer_mm: Vector
    largest_weight: float
    effective_tokens: float
    tokens: int


@torch.no_grad()
def attended_point(crop: StageCrop, name: str, point_mm: Vector) -> AttendedPoint:
    """Follow a point (3,) of the fixed image; raises InputError outside the crop and for networks without attention."""
    network = shown_attention(crop.stage.network)
    if network is None:
        raise InputError(f"{crop.name} has no attention to show for a point: {ADVICE}")
    check_in_crop(crop, name, point_mm)
    tokens = network.token_grid().on(crop.grid)
    positions = tokens.points_mm().flatten(0, 2)
    index = int((tokens.points_voxel().flatten(0, 2) - tokens.to_voxel(point_mm[None])).norm(dim=-1).argmin())
    row = network.attention_row(crop.fixed, crop.moving, index)
    weights, to_moving = row.weights, crop.initial.apply
    matched = None
    if row.match_offset_mm is not None:
        offset = torch.tensor(crop.grid.direction, dtype=torch.float64) @ row.match_offset_mm
        matched = to_moving((point_mm + offset)[None])[0]
    title = f"{'Attention' if matched is None else 'Match weights'} of {name}"
    values = interpolate_tokens(weights.reshape(tokens.shape), tokens, crop.grid)
    return AttendedPoint(
        name=name,
        point_mm=point_mm,
        token_mm=positions[index],
        map=CropMap.of(values, crop.grid, (f"point-{name}", title, "moving"), "weight"),
        initial_mm=to_moving(point_mm[None])[0],
        attended_mm=to_moving((weights @ positions)[None])[0],
        matched_mm=matched,
        answer_mm=crop.application.answer.apply(point_mm[None])[0],
        largest_weight=float(weights.max()),
        effective_tokens=float(torch.special.entr(weights).sum().exp()),
        tokens=len(weights),
    )


def check_in_crop(crop: StageCrop, name: str, point_mm: Vector) -> None:
    """Raise InputError where a point (3,) lies outside a stage's crop."""
    if not bool(crop.grid.contains(point_mm[None])):
        raise InputError(
            f"point '{name}' at ({_listed(point_mm)}) mm lies outside the crop of {crop.name}: expected a point of the "
            f"fixed image in {_box(crop.grid)}, LPS"
        )


def _box(grid: Grid) -> str:
    sizes = " x ".join(f"{n * mm:.1f}" for n, mm in zip(grid.shape[::-1], grid.spacing_mm, strict=True))
    return f"the box of {sizes} mm about ({_listed(grid.center_mm())}) mm"


def _listed(point_mm: Vector) -> str:
    return ", ".join(f"{value:.1f}" for value in point_mm.tolist())
