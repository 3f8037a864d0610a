"""How well the feature maps of a pair find one another's places."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.training.contrastive import TOUCH_MM, Embeddings, Matches

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
