"""Contrast between the feature maps of pairs whose alignment is known: what corresponds, what is drawn, the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, sample
from crossalign.models.extractors import FeatureMap
from crossalign.types import Map, Volume

Embeddings: TypeAlias = Float[Tensor, "b n w"]  # of length 1
FOREGROUND_FRACTION = 0.5  # of the crop about a token
TOUCH_MM = 1e-3  # rounding of distances
TOP = 5
VAL_TOKENS = 1024  # fixed tokens of a case that are looked for; more add time, hardly precision


@dataclass(frozen=True, eq=False)
class Matches:
    """Every token of a batch's fixed maps (m of them, in the order of `flatten`) and where it lies in the moving maps.

    Points are mm from the crop's centre, `index` is theirs in the moving map, continuous x, y, z. `usable` fixed tokens
    have their match inside the moving map (and in its foreground), `candidates` are those of the moving map.
    """

    fixed_mm: Float[Tensor, "m 3"]
    moving_mm: Float[Tensor, "b m 3"]
    index: Float[Tensor, "b m 3"]
    usable: Bool[Tensor, "b m"]
    candidates: Bool[Tensor, "b m"]


def find_matches(
    moving: Volume, correction: Rigid, grid: FeatureMap, spacing_mm: float, foreground_only: bool
) -> Matches:
    """Work out where the tokens of the fixed maps lie in the maps of the moving crops (b, 1, z, y, x).

    `correction` (b) maps the fixed crop's points to the moving crop's. With `foreground_only` a token of the moving map
    counts where at least half of the crop about it is not empty (0).
    """
    fixed_mm = grid.positions_mm(spacing_mm).to(moving.device)
    moving_mm = correction.apply(fixed_mm.expand(len(moving), -1, -1))
    index = grid.to_index(moving_mm, spacing_mm)
    last = torch.tensor(grid.shape[::-1], device=moving.device) - 1
    inside = ((index >= -TOUCH_MM) & (index <= last + TOUCH_MM)).all(dim=-1)
    if not foreground_only:
        return Matches(fixed_mm, moving_mm, index, inside, torch.ones_like(inside))
    kernel, padding = [2 * step - 1 for step in grid.stride], [step - 1 for step in grid.stride]
    fraction = F.avg_pool3d((moving > 0).float(), kernel, grid.stride, padding, count_include_pad=False)
    usable = inside & (_at(fraction, index)[..., 0] >= FOREGROUND_FRACTION)
    return Matches(fixed_mm, moving_mm, index, usable, fraction.flatten(1) >= FOREGROUND_FRACTION)


@dataclass(frozen=True, eq=False)
class DrawnTokens:
    """The tokens that are contrasted: n of each crop, `number` in the fixed map and `index` in the moving one.

    `usable` marks those that count, `case` says which case a crop shows.
    """

    number: Int[Tensor, "b n"]
    index: Float[Tensor, "b n 3"]
    positions_mm: Float[Tensor, "b n 3"]
    usable: Bool[Tensor, "b n"]
    case: Int[Tensor, " b"]

    def select(self, fixed: Map, moving: Map) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """Take the features of two maps (b, c, z, y, x) at the tokens."""
        tokens = fixed.flatten(2).mT
        return tokens.gather(1, self.number[..., None].expand(-1, -1, tokens.shape[-1])), _at(moving, self.index)


def draw_tokens(matches: Matches, case: Int[Tensor, " b"], count: int, generator: torch.Generator) -> DrawnTokens:
    """Draw `count` tokens of each crop without repetition, usable ones first; the generator lives on the CPU."""
    usable = matches.usable
    order = torch.rand(usable.shape, generator=generator).to(usable.device) + usable.float()
    number = order.topk(min(count, usable.shape[1]), dim=1).indices
    index = matches.index.gather(1, number[..., None].expand(-1, -1, 3))
    return DrawnTokens(number, index, matches.fixed_mm[number], usable.gather(1, number), case)


def info_nce_loss(
    fixed: Embeddings, moving: Embeddings, tokens: DrawnTokens, temperature: float, margin_mm: float
) -> Tensor:
    """Return the mean InfoNCE over usable tokens and both directions.

    A token must be more similar to the same position in the other image than to the batch's other usable tokens. Left
    out are those within `margin_mm` of it, and all of another crop of the same case: they may show the same tissue.
    Raises InputError where no token is usable.
    """
    usable = tokens.usable.flatten()
    if not bool(usable.any()):
        raise InputError("no token of this batch is usable: the moving crops are empty, or far from the fixed ones")
    logits = fixed.flatten(0, 1) @ moving.flatten(0, 1).mT / temperature
    logits = logits.masked_fill(_ignored(tokens, margin_mm), -math.inf)
    target = torch.arange(len(logits), device=logits.device)[usable]
    forth, back = (F.cross_entropy(one[usable], target) for one in (logits, logits.mT))
    return (forth + back) / 2


def _ignored(tokens: DrawnTokens, margin_mm: float) -> Bool[Tensor, "bn bn"]:
    """Mark pairs (fixed token, moving token) that are neither positive nor negative."""
    crops, count = tokens.usable.shape
    device = tokens.usable.device
    near = torch.cdist(tokens.positions_mm, tokens.positions_mm) <= margin_mm + TOUCH_MM  # (b, n, n), within a crop
    same_case = tokens.case[:, None] == tokens.case
    ignored = same_case[:, None, :, None].expand(crops, count, crops, count).clone()
    own = torch.arange(crops, device=device)
    ignored[own, :, own] = near & ~torch.eye(count, dtype=torch.bool, device=device)
    usable = tokens.usable.flatten()
    return ignored.reshape(crops * count, -1) | ~usable | ~usable[:, None]


def _at(maps: Map, index: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n c"]:
    return sample(maps, index[:, :, None, None])[..., 0, 0].mT


@dataclass(frozen=True)
class Retrieval:
    """How often the right token is found: fractions of fixed tokens whose match lies within `radius_mm`.

    `top1`: the most similar moving token; `top5`: any of the five most similar. `chance1` and `chance5`: of random
    draws. `other_case1`: top1 when the moving image is another case's (half the dataset away: a patient's cases stand
    side by side), which the position in the crop and the anatomy that all share explain; NaN for one case alone.
    """

    radius_mm: float
    top1: float
    top5: float
    chance1: float
    chance5: float
    other_case1: float


def measure_retrieval(fixed: Embeddings, moving: Embeddings, matches: Matches, radius_mm: float) -> Retrieval:
    """Look for each usable fixed token among the candidates of the moving map; fractions are over all tokens and cases.

    The embeddings are those of whole maps, in the order of `flatten`.
    """

    def found(case: int, other: int) -> Tensor:
        near = torch.cdist(matches.moving_mm[other], matches.fixed_mm) <= radius_mm + TOUCH_MM
        queries = (matches.usable[case] & matches.usable[other]).nonzero()[:, 0]
        queries = queries[:: max(1, math.ceil(len(queries) / VAL_TOKENS))]
        among = matches.candidates[other].nonzero()[:, 0]
        return _found(fixed[case][queries] @ moving[other][among].mT, near[queries][:, among].double())

    count = len(fixed)
    top1, top5, chance1, chance5 = torch.cat([found(case, case) for case in range(count)]).mean(0).tolist()
    others = [found(case, (case + count // 2) % count)[:, 0] for case in range(count)] if count > 1 else []
    return Retrieval(radius_mm, top1, top5, chance1, chance5, float(torch.cat(others).mean()) if others else math.nan)


def _found(similarity: Tensor, right: Tensor) -> Tensor:
    """Return top1, top5 and their chances (m, 4) from two (m, n): how similar the tokens are, and 1 where right."""
    queries, among = similarity.shape
    if not among:
        return right.new_zeros(queries, 4)
    top = right.gather(1, similarity.topk(min(TOP, among), dim=1).indices)
    number = right.sum(1)
    missed = torch.ones_like(number)
    for drawn in range(top.shape[1]):
        missed = missed * (among - number - drawn).clamp(min=0) / (among - drawn)
    return torch.stack((top[:, 0], top.amax(1), number / among, 1 - missed), dim=1)
