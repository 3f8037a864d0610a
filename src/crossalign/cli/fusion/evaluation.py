"""`crossalign evaluate-fusion`: methods by pairs, as a table of scores."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from crossalign.cli.checks import check_apart, pick_device, weight_files
from crossalign.cli.console import Progress
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.fusion import EvaluateFusionRequest
from crossalign.cli.results.fusion import EvaluateFusionResult, FusionScoresEntry
from crossalign.errors import InputError
from crossalign.fusion import FusionMethod
from crossalign.fusion.evaluation import FusionRow, LoadPair, evaluate_fusion
from crossalign.fusion.manifest import read_fusion_manifest
from crossalign.fusion.methods import named_fusion_method
from crossalign.fusion.tables import (
    check_fusion_evaluation_output,
    fusion_markdown,
    fusion_paths,
    write_fusion_evaluation,
)
from crossalign.images import Image, read_image
from crossalign.input import excerpt


def run_evaluate_fusion(request: EvaluateFusionRequest) -> Outcome[EvaluateFusionResult]:
    """Fuse and score, and write the tables. Raises CrossalignError, before any fusion where it can."""
    check_fusion_evaluation_output(request.output, request.overwrite)
    device = pick_device(request.device)
    names = request.method
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--method: '{excerpt(twice[0])}' is given twice: give each method once")
    pairs, files = _pairs(request)
    weights = (path for name in names for path in weight_files(name.partition(":")[0]))
    check_apart(fusion_paths(request.output), (request.first, *files, *weights))
    methods = {name: _method(name, request) for name in names}
    total = len(pairs) * (2 * len(methods) + request.limit)
    with Progress(total, "fusion") as progress:

        def advance(row: FusionRow) -> None:
            progress.advance(f"{row.case} {row.method} {row.protocol}")

        evaluation = evaluate_fusion(pairs, methods, device if request.limit else None, advance)
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
        entropy_bits=scores.entropy_bits,
        spatial_frequency=scores.spatial_frequency,
        seconds=row.seconds,
    )


def _method(name: str, request: EvaluateFusionRequest) -> FusionMethod:
    """Make a method from `name` or `name:emphasis`."""
    base, _, emphasis = name.partition(":")
    return named_fusion_method(base, emphasis or None, pick_device(request.device))


def _pairs(request: EvaluateFusionRequest) -> tuple[Mapping[str, LoadPair], tuple[Path, ...]]:
    """Return what loads each pair, and every file that a pair consists of."""
    if request.pet is not None:
        return {"pair": partial(_load, request.first, request.pet, request)}, (request.pet,)
    if request.first.suffix != ".csv":
        raise InputError(f"{request.first.name}: give a manifest (.csv), or an MRI and then a PET")
    pairs = read_fusion_manifest(request.first)
    selected = {p.name: partial(_load, p.mri, p.pet, request) for p in pairs if request.split in ("all", p.split)}
    if not selected:
        raise InputError(f"the manifest has no pair with split '{request.split}': name another, or 'all'")
    return selected, tuple(path for pair in pairs for path in (pair.mri, pair.pet))


def _load(mri: Path, pet: Path, request: EvaluateFusionRequest) -> tuple[Image, Image]:
    return read_image(mri, series=request.mri_series), read_image(pet, series=request.pet_series)
