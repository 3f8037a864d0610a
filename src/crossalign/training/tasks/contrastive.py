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
SEEN_SHARE = 0.5  # of the crop about a place
TOUCH_MM = 1e-3  # rounding of distances


@dataclass(frozen=True, eq=False)
class Matches:
    """Every place of a batch's fixed maps (m of them, in the order of `flatten`) and where it lies in the moving maps.

    Points are mm from the crop's centre, `index` is theirs in the moving map, continuous x, y, z. `usable` fixed
    places have their match inside the moving map (and seen there), `seen` are the usable places of the moving map.
    """

    fixed_mm: Float[Tensor, "m 3"]
    moving_mm: Float[Tensor, "b m 3"]
    index: Float[Tensor, "b m 3"]
    usable: Bool[Tensor, "b m"]
    seen: Bool[Tensor, "b m"]


def find_matches(moving: Volume, correction: Rigid, where: FeatureMap, spacing_mm: float, seen_only: bool) -> Matches:
    """Work out where the places of the fixed maps lie in the maps of the moving crops (b, 1, z, y, x).

    `correction` (b) maps the fixed crop's points to the moving crop's. With `seen_only` a place of the moving map
    counts where at least half of the crop about it is not empty (0).
    """
    fixed_mm = where.places_mm(spacing_mm).to(moving.device)
    moving_mm = correction.apply(fixed_mm.expand(len(moving), -1, -1))
    index = where.to_index(moving_mm, spacing_mm)
    last = torch.tensor(where.shape[::-1], device=moving.device) - 1
    inside = ((index >= -TOUCH_MM) & (index <= last + TOUCH_MM)).all(dim=-1)
    if not seen_only:
        return Matches(fixed_mm, moving_mm, index, inside, torch.ones_like(inside))
    kernel, padding = [2 * step - 1 for step in where.stride], [step - 1 for step in where.stride]
    share = F.avg_pool3d((moving > 0).float(), kernel, where.stride, padding, count_include_pad=False)
    usable = inside & (_at(share, index)[..., 0] >= SEEN_SHARE)
    return Matches(fixed_mm, moving_mm, index, usable, share.flatten(1) >= SEEN_SHARE)


@dataclass(frozen=True, eq=False)
class Places:
    """Where the contrast is taken: n places of each crop, `number` in the fixed map and `index` in the moving one.

    `usable` tells those that count, `case` which case a crop shows.
    """

    number: Int[Tensor, "b n"]
    index: Float[Tensor, "b n 3"]
    places_mm: Float[Tensor, "b n 3"]
    usable: Bool[Tensor, "b n"]
    case: Int[Tensor, " b"]

    def pick(self, fixed: Map, moving: Map) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """Take the features of two maps (b, c, z, y, x) at the places."""
        tokens = fixed.flatten(2).mT
        return tokens.gather(1, self.number[..., None].expand(-1, -1, tokens.shape[-1])), _at(moving, self.index)


def draw_places(matches: Matches, case: Int[Tensor, " b"], count: int, generator: torch.Generator) -> Places:
    """Draw `count` places of each crop without repetition, usable ones first; the generator lives on the CPU."""
    usable = matches.usable
    order = torch.rand(usable.shape, generator=generator).to(usable.device) + usable.float()
    number = order.topk(min(count, usable.shape[1]), dim=1).indices
    index = matches.index.gather(1, number[..., None].expand(-1, -1, 3))
    return Places(number, index, matches.fixed_mm[number], usable.gather(1, number), case)


def info_nce_loss(
    fixed: Embeddings, moving: Embeddings, places: Places, temperature: float, margin_mm: float
) -> Tensor:
    """Return the mean InfoNCE over usable places and both directions.

    A place must be more similar to the same place in the other image than to the batch's other usable places. Left out
    are those within `margin_mm` of it, and all of another crop of the same case: they may show the same tissue. Raises
    InputError where no place is usable.
    """
    used = places.usable.flatten()
    if not bool(used.any()):
        raise InputError("no place of this batch is usable: the moving crops are empty, or far from the fixed ones")
    logits = fixed.flatten(0, 1) @ moving.flatten(0, 1).mT / temperature
    logits = logits.masked_fill(_left_out(places, margin_mm), -math.inf)
    target = torch.arange(len(logits), device=logits.device)[used]
    forth, back = (F.cross_entropy(way[used], target) for way in (logits, logits.mT))
    return (forth + back) / 2


def _left_out(places: Places, margin_mm: float) -> Bool[Tensor, "bn bn"]:
    """Mark pairs (fixed place, moving place) that are neither positive nor negative."""
    crops, count = places.usable.shape
    device = places.usable.device
    near = torch.cdist(places.places_mm, places.places_mm) <= margin_mm + TOUCH_MM  # (b, n, n), within a crop
    same_case = places.case[:, None] == places.case
    left = same_case[:, None, :, None].expand(crops, count, crops, count).clone()
    own = torch.arange(crops, device=device)
    left[own, :, own] = near & ~torch.eye(count, dtype=torch.bool, device=device)
    used = places.usable.flatten()
    return left.reshape(crops * count, -1) | ~used | ~used[:, None]


def _at(maps: Map, index: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n c"]:
    return sample(maps, index[:, :, None, None])[..., 0, 0].mT


TOP = 5
VAL_PLACES = 1024  # fixed places of a case that are looked for; more add time, hardly precision


@dataclass(frozen=True)
class Retrieval:
    """How often the right place is found: shares in [0, 1] of fixed places whose match lies within `radius_mm`.

    `top1`: the most similar moving place; `top5`: any of the five most similar. `chance1` and `chance5`: drawn
    blindly. `stranger1`: top1 when the moving image is another case's (half the bank away: a patient's cases stand side
    by side), which the place in the crop and the anatomy that all share explain; NaN for one case alone.
    """

    radius_mm: float
    top1: float
    top5: float
    chance1: float
    chance5: float
    stranger1: float


def measure_retrieval(fixed: Embeddings, moving: Embeddings, matches: Matches, radius_mm: float) -> Retrieval:
    """Look for each usable fixed place among the seen places of the moving map; shares are over all places and cases.

    The embeddings are those of whole maps, in the order of `flatten`.
    """

    def found(case: int, other: int) -> Tensor:
        near = torch.cdist(matches.moving_mm[other], matches.fixed_mm) <= radius_mm + TOUCH_MM
        asked = (matches.usable[case] & matches.usable[other]).nonzero()[:, 0]
        asked = asked[:: max(1, math.ceil(len(asked) / VAL_PLACES))]
        among = matches.seen[other].nonzero()[:, 0]
        return _found(fixed[case][asked] @ moving[other][among].mT, near[asked][:, among].double())

    count = len(fixed)
    top1, top5, chance1, chance5 = torch.cat([found(case, case) for case in range(count)]).mean(0).tolist()
    strangers = [found(case, (case + count // 2) % count)[:, 0] for case in range(count)] if count > 1 else []
    stranger1 = float(torch.cat(strangers).mean()) if strangers else math.nan
    return Retrieval(radius_mm, top1, top5, chance1, chance5, stranger1)


def _found(similarity: Tensor, hits: Tensor) -> Tensor:
    """Return top1, top5 and their chances (m, 4) from two (m, n): how similar the places are, and 1 where right."""
    asked, among = similarity.shape
    if not among:
        return hits.new_zeros(asked, 4)
    top = hits.gather(1, similarity.topk(min(TOP, among), dim=1).indices)
    right = hits.sum(1)
    missed = torch.ones_like(right)
    for drawn in range(top.shape[1]):
        missed = missed * (among - right - drawn).clamp(min=0) / (among - drawn)
    return torch.stack((top[:, 0], top.amax(1), right / among, 1 - missed), dim=1)
