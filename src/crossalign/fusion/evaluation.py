"""Evaluation of fusion methods on pairs, in two protocols, and the limit of structural similarity."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch

from crossalign.errors import InputError
from crossalign.fusion.metrics.lesions import LesionScores, body_mask, lesion_masks, score_lesion
from crossalign.fusion.metrics.read_out import ReadOutScores, read_out_scores
from crossalign.fusion.metrics.scores import FusionScores, score_fusion
from crossalign.fusion.preparation import resampled_to_cube
from crossalign.fusion.result import FusionMethod, FusionResult, fuse
from crossalign.fusion.window_settings import WindowSettings
from crossalign.images import Image, LabelMap
from crossalign.similarity import ssim_pair_score
from crossalign.types import Mask, Scan

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
LoadMask = Callable[[], LabelMap]


@dataclass(frozen=True)
class FusionRow:
    """One pair, fused and scored. `LIMIT` is no method: the voxels optimised for SSIM. `seconds` are the method's.

    `read_out` and, of a pair with a mask, `lesion` are of whole volumes only.
    """

    case: str
    method: str
    protocol: str
    scores: FusionScores
    seconds: float
    warnings: tuple[str, ...] = ()
    lesion: LesionScores | None = None
    read_out: ReadOutScores | None = None


@dataclass(frozen=True)
class FusionEvaluation:
    """All rows in order (case, protocol, method), and what the methods were."""

    rows: tuple[FusionRow, ...]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class FusionProtocol:
    """The windows of both inputs, and whether the published slice is scored beside the whole volume."""

    windows: WindowSettings = field(default_factory=WindowSettings)
    published_slice: bool = True


def evaluate_fusion(
    pairs: Mapping[str, LoadPair],
    methods: Mapping[str, FusionMethod],
    limit_device: torch.device | None = None,
    progress: Callable[[FusionRow], None] | None = None,
    masks: Mapping[str, LoadMask] | None = None,
    settings: FusionProtocol | None = None,
) -> FusionEvaluation:
    """Fuse every pair, MRI and PET registered, with every method, and score it in both protocols.

    One pair is in memory at a time. With `limit_device` the voxels themselves are optimised there for SSIM too (whole
    volume only: the bound for the methods). `masks` of lesions, by case, add how far they stand out. Raises InputError
    where there is nothing to do, and what `fuse` raises.
    """
    if not pairs or not methods:
        raise InputError(f"expected 1 pair and 1 method or more, got {len(pairs)} and {len(methods)}")
    rows: list[FusionRow] = []
    for case, load in pairs.items():
        mask = masks[case]() if masks is not None and case in masks else None
        for row in evaluate_pair(case, load(), methods, limit_device, mask, settings):
            rows.append(row)
            if progress is not None:
                progress(row)
    return FusionEvaluation(tuple(rows), {name: dict(method.settings()) for name, method in methods.items()})


def evaluate_pair(
    case: str,
    pair: tuple[Image, Image],
    methods: Mapping[str, FusionMethod],
    limit_device: torch.device | None = None,
    mask: LabelMap | None = None,
    settings: FusionProtocol | None = None,
) -> Iterator[FusionRow]:
    """Yield the rows of one pair: the whole volume with every method (and the limit), then the published slice.

    The published slice: the pair is resampled to the paper's cube of 128 voxels, fused there by the same windows, and
    scored on the axial plane of index 64 alone.
    """
    settings = settings or FusionProtocol()
    places = None
    for name, method in methods.items():
        result = fuse(*pair, method, windows=settings.windows)
        places = places or _Places.of(result, pair[1], mask)
        yield _row(case, name, result, places)
    if limit_device is not None:
        began = time.perf_counter()
        best = similarity_limit(result.a.voxels, result.b.voxels, device=limit_device)
        limit = replace(result, fused=Image(best, result.a.grid), seconds=time.perf_counter() - began, warnings=())
        yield _row(case, LIMIT, limit, places or _Places.of(result, pair[1], mask))
    if not settings.published_slice:
        return
    of_a, of_b = result.a_scaling, result.b_scaling
    windows = WindowSettings(window_a=(of_a.low, of_a.high), window_b=(of_b.low, of_b.high))
    cube = resampled_to_cube(*pair)
    for name, method in methods.items():
        result = fuse(*cube, method, windows=windows)
        planes = (image.voxels[PUBLISHED_INDEX] for image in (result.fused, result.a, result.b))
        yield FusionRow(case, name, PUBLISHED_SLICE, score_fusion(*planes), result.seconds, result.warnings)


@dataclass(frozen=True, eq=False)
class _Places:
    """Where a pair is scored: the body, and the lesion with its surroundings where the pair has a mask."""

    body: Mask
    lesion: tuple[Mask, Mask] | None = None

    @staticmethod
    def of(result: FusionResult, pet: Image, mask: LabelMap | None) -> _Places:
        scaled = result.a.voxels
        lesion = None if mask is None else lesion_masks(mask, scaled, result.a.grid, pet.grid)
        return _Places(body_mask(scaled), lesion)


def _row(case: str, name: str, result: FusionResult, places: _Places) -> FusionRow:
    volumes = result.fused.voxels, result.a.voxels, result.b.voxels
    return FusionRow(
        case=case,
        method=name,
        protocol=WHOLE_VOLUME,
        scores=score_fusion(*volumes),
        seconds=result.seconds,
        warnings=result.warnings,
        lesion=None if places.lesion is None else score_lesion(*volumes, *places.lesion),
        read_out=read_out_scores(*volumes, places.body),
    )
