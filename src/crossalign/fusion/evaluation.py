"""Evaluation of fusion methods on pairs, in two protocols, and the limit of structural similarity."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch

from crossalign.errors import InputError
from crossalign.fusion.metrics.scores import FusionScores, score_fusion
from crossalign.fusion.preparation import resampled_to_cube
from crossalign.fusion.result import FusionMethod, fuse
from crossalign.images import Image
from crossalign.similarity import ssim_pair_score
from crossalign.types import Scan

LIMIT_STEPS = 120
RATE = 0.02


def similarity_limit(a: Scan, b: Scan, steps: int = LIMIT_STEPS, device: torch.device | None = None) -> Scan:
    """Return the volume in [0, 1] with the largest SSIM, mean over both inputs, that Adam finds from their average.

    Every method's SSIM is below its score, on this pair and scaling. From the maximum of the two, and by L-BFGS, the
    result is within 0.0003 of it. It is optimised for both references, so it is a bound, not a way to fuse.
    """
    x, y = (scan.to(device or torch.device("cpu"))[None, None] for scan in (a, b))
    voxels = ((x + y) / 2).requires_grad_()
    optimizer = torch.optim.Adam([voxels], lr=RATE)
    best, best_score = voxels.detach().clone(), -1.0
    for _ in range(steps):
        optimizer.zero_grad()
        scores = ssim_pair_score(voxels, x, y)
        score = (scores[0] + scores[1]) / 2
        if float(score.detach()) > best_score:
            best, best_score = voxels.detach().clone(), float(score.detach())
        (-score).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            voxels.clamp_(0, 1)
    return best[0, 0].cpu()


WHOLE_VOLUME, PUBLISHED_SLICE = "whole-volume", "published-slice"
PUBLISHED_INDEX = 64
LIMIT = "limit"

LoadPair = Callable[[], tuple[Image, Image]]


@dataclass(frozen=True)
class FusionRow:
    """One pair, fused and scored. `LIMIT` is no method: the voxels optimised for SSIM. `seconds` are the method's."""

    case: str
    method: str
    protocol: str
    scores: FusionScores
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FusionEvaluation:
    """All rows in order (case, protocol, method), and what the methods were."""

    rows: tuple[FusionRow, ...]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def evaluate_fusion(
    pairs: Mapping[str, LoadPair],
    methods: Mapping[str, FusionMethod],
    limit_device: torch.device | None = None,
    progress: Callable[[FusionRow], None] | None = None,
) -> FusionEvaluation:
    """Fuse every pair, MRI and PET registered, with every method, and score it in both protocols.

    One pair is in memory at a time. With `limit_device` the voxels themselves are optimised there for SSIM too (whole
    volume only: the bound for the methods). Raises InputError where there is nothing to do, and what `fuse` raises.
    """
    if not pairs or not methods:
        raise InputError(f"expected 1 pair and 1 method or more, got {len(pairs)} and {len(methods)}")
    rows: list[FusionRow] = []
    for case, load in pairs.items():
        for row in evaluate_pair(case, load(), methods, limit_device):
            rows.append(row)
            if progress is not None:
                progress(row)
    return FusionEvaluation(tuple(rows), {name: dict(method.settings()) for name, method in methods.items()})


def evaluate_pair(
    case: str, pair: tuple[Image, Image], methods: Mapping[str, FusionMethod], limit_device: torch.device | None = None
) -> Iterator[FusionRow]:
    """Yield the rows of one pair: the whole volume with every method (and the limit), then the published slice.

    The published slice: the pair is resampled to the paper's cube of 128 voxels, fused there, and scored on the axial
    plane of index 64 alone.
    """
    for name, method in methods.items():
        result = fuse(*pair, method)
        scores = score_fusion(result.fused.voxels, result.a.voxels, result.b.voxels)
        yield FusionRow(case, name, WHOLE_VOLUME, scores, result.seconds, result.warnings)
    if limit_device is not None:
        began = time.perf_counter()
        best = similarity_limit(result.a.voxels, result.b.voxels, device=limit_device)
        seconds = time.perf_counter() - began
        yield FusionRow(case, LIMIT, WHOLE_VOLUME, score_fusion(best, result.a.voxels, result.b.voxels), seconds)
    cube = resampled_to_cube(*pair)
    for name, method in methods.items():
        result = fuse(*cube, method)
        planes = (image.voxels[PUBLISHED_INDEX] for image in (result.fused, result.a, result.b))
        yield FusionRow(case, name, PUBLISHED_SLICE, score_fusion(*planes), result.seconds, result.warnings)
