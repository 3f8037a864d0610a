"""`crossalign evaluate-fusion`: methods by pairs, as a table of scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from crossalign.cli.checks import check_apart, pick_device, weight_files
from crossalign.cli.console import Progress
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.fusion import EvaluateFusionRequest
from crossalign.cli.results.fusion import EvaluateFusionResult, FusionScoresEntry
from crossalign.errors import InputError
from crossalign.fusion import FusionMethod
from crossalign.fusion.evaluation import FusionProtocol, FusionRow, LoadMask, LoadPair, evaluate_fusion
from crossalign.fusion.manifest import FusionPair, read_fusion_manifest
from crossalign.fusion.methods import named_fusion_method
from crossalign.fusion.tables import (
    check_fusion_evaluation_output,
    fusion_markdown,
    fusion_paths,
    write_fusion_evaluation,
)
from crossalign.fusion.window_settings import WindowSettings
from crossalign.images import Image, read_image, read_label_map
from crossalign.input import excerpt


def run_evaluate_fusion(request: EvaluateFusionRequest) -> Outcome[EvaluateFusionResult]:
    """Fuse and score, and write the tables. Raises CrossalignError, before any fusion where it can."""
    check_fusion_evaluation_output(request.output, request.overwrite)
    device = pick_device(request.device)
    names = request.method
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--method: '{excerpt(twice[0])}' is given twice: give each method once")
    pairs, masks, files = _pairs(request)
    weights = (path for name in names for path in weight_files(name.partition(":")[0]))
    check_apart(fusion_paths(request.output), (request.first, *files, *weights))
    methods = {name: _method(name, request) for name in names}
    settings = FusionProtocol(request.windows.over(WindowSettings()), request.protocol == "both")
    total = len(pairs) * ((1 + settings.published_slice) * len(methods) + request.limit)
    with Progress(total, "fusion") as progress:

        def advance(row: FusionRow) -> None:
            progress.advance(f"{row.case} {row.method} {row.protocol}")

        limit_device = device if request.limit else None
        evaluation = evaluate_fusion(pairs, methods, limit_device, advance, masks, settings)
    written = write_fusion_evaluation(evaluation, request.output, request.overwrite)
    warnings = {f"{row.case}: {text}": None for row in evaluation.rows for text in row.warnings}
    lines = (fusion_markdown(evaluation), "", *(f"wrote    {path}" for path in written))
    result = EvaluateFusionResult(len(pairs), request.output, tuple(_entry(row) for row in evaluation.rows))
    return Outcome(lines, tuple(warnings), 0, result, written)


def _entry(row: FusionRow) -> FusionScoresEntry:
    scores = row.scores
    return FusionScoresEntry(
        case=row.case,
        method=row.method,
        protocol=row.protocol,
        mri={name: score.mri for name, score in scores.inputs.items()},
        pet={name: score.pet for name, score in scores.inputs.items()},
        qabf=scores.qabf,
        nabf=scores.nabf,
        entropy_bits=scores.entropy_bits,
        spatial_frequency=scores.spatial_frequency,
        lesion=None if row.lesion is None else row.lesion.values(),
        read_out=None if row.read_out is None else row.read_out.values(),
        seconds=row.seconds,
    )


def _method(name: str, request: EvaluateFusionRequest) -> FusionMethod:
    """Make a method from `name` or `name:emphasis`."""
    base, _, emphasis = name.partition(":")
    return named_fusion_method(base, emphasis or None, pick_device(request.device))


def _pairs(
    request: EvaluateFusionRequest,
) -> tuple[Mapping[str, LoadPair], Mapping[str, LoadMask], tuple[Path, ...]]:
    """Return what loads each pair, and the mask of those that have one, and every file that they consist of."""
    if request.pet is not None:
        pairs: tuple[FusionPair, ...] = (FusionPair("pair", request.first, request.pet, mask=request.mask),)
    elif request.first.suffix != ".csv":
        raise InputError(f"{request.first.name}: give a manifest (.csv), or an MRI and then a PET")
    elif request.mask is not None:
        raise InputError("--mask is for a single pair: name the masks in the manifest's column 'mask'")
    else:
        pairs = read_fusion_manifest(request.first)
    selected = [pair for pair in pairs if request.pet is not None or request.split in ("all", pair.split)]
    if not selected:
        raise InputError(f"the manifest has no pair with split '{request.split}': name another, or 'all'")
    masks = {pair.name: partial(read_label_map, pair.mask) for pair in selected if pair.mask is not None}
    files = (path for pair in pairs for path in (pair.mri, pair.pet, pair.mask) if path is not None)
    return {pair.name: partial(_load, pair.mri, pair.pet, request) for pair in selected}, masks, tuple(files)


def _load(mri: Path, pet: Path, request: EvaluateFusionRequest) -> tuple[Image, Image]:
    uptake = read_image(pet, series=request.pet_series)
    return read_image(mri, series=request.mri_series), replace(uptake, unit=request.unit or uptake.unit)
