"""`crossalign evaluate-fusion`: methods by pairs, as a table of scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from crossalign.cli.options import Outcome, pick_device
from crossalign.errors import InputError
from crossalign.evaluation.fusion_protocol import FusionRow, LoadPair, evaluate_fusion
from crossalign.evaluation.fusion_tables import (
    check_fusion_evaluation_output,
    fusion_markdown,
    write_fusion_evaluation,
)
from crossalign.fusion import FusionMethod
from crossalign.fusion.named import named_fusion_method
from crossalign.fusion.pairs import read_fusion_manifest
from crossalign.images import Image, read_image


@dataclass(frozen=True)
class EvaluateFusionRequest:
    """The options of `crossalign evaluate-fusion`: a manifest alone, or an MRI and a PET."""

    first: Path
    pet: Path | None
    methods: str
    output: Path
    split: str = "all"
    limit: bool = False
    device: str = "auto"
    overwrite: bool = False


def run_evaluate_fusion(request: EvaluateFusionRequest) -> Outcome:
    """Fuse and score, and write the tables. Raises CrossalignError, before any fusion where it can."""
    check_fusion_evaluation_output(request.output, request.overwrite)
    device = pick_device(request.device)
    methods = {name: _method(name, request) for name in _names(request.methods)}
    pairs = _pairs(request)
    total = len(pairs) * (2 * len(methods) + request.limit)
    with tqdm(total=total, unit="fusion", disable=None) as bar:

        def advance(row: FusionRow) -> None:
            bar.set_postfix_str(f"{row.case} {row.method} {row.protocol}")
            bar.update()

        evaluation = evaluate_fusion(pairs, methods, device if request.limit else None, advance)
    written = write_fusion_evaluation(evaluation, request.output, request.overwrite)
    warnings = {f"{row.case}: {text}": None for row in evaluation.rows for text in row.warnings}
    return Outcome((fusion_markdown(evaluation), "", *(f"wrote    {path}" for path in written)), tuple(warnings))


def _names(methods: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if not names:
        raise InputError("--method names no method: write one, or several with commas between them")
    return names


def _method(name: str, request: EvaluateFusionRequest) -> FusionMethod:
    """Make a method from `name` or `name:emphasis`."""
    base, _, emphasis = name.partition(":")
    return named_fusion_method(base, emphasis or None, pick_device(request.device))


def _pairs(request: EvaluateFusionRequest) -> Mapping[str, LoadPair]:
    if request.pet is not None:
        return {"pair": partial(_load, request.first, request.pet)}
    if request.first.suffix != ".csv":
        raise InputError(f"{request.first.name}: give a manifest (.csv), or an MRI and then a PET")
    pairs = read_fusion_manifest(request.first)
    chosen = {p.name: partial(_load, p.mri, p.pet) for p in pairs if request.split in ("all", p.split)}
    if not chosen:
        raise InputError(f"the manifest has no pair with split '{request.split}': name another, or 'all'")
    return chosen


def _load(mri: Path, pet: Path) -> tuple[Image, Image]:
    return read_image(mri), read_image(pet)
