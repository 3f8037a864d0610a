"""`crossalign evaluate`: methods by cases by starts, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from crossalign.cases import in_split, read_manifest
from crossalign.cli.options import Outcome, pick_device
from crossalign.cli.running import with_run
from crossalign.errors import InputError
from crossalign.evaluation import (
    Evaluation,
    Row,
    check_evaluation_output,
    evaluate,
    parse_starts,
    summary_markdown,
    write_evaluation,
)
from crossalign.models import count_parameters
from crossalign.registration import Cascade, Method
from crossalign.registration.named import named_method


@dataclass(frozen=True)
class EvaluateRequest:
    """The options of `crossalign evaluate`; `split` "all" takes every row of the manifest.

    `run` says how networks are run (see `parse_run`); methods without a network keep to themselves.
    """

    manifest: Path
    methods: str
    starts: str
    output: Path
    split: str = "test"
    count: int = 40
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False
    figures: bool = False
    run: str = ""


def run_evaluate(request: EvaluateRequest) -> Outcome:
    """Evaluate the methods and write the tables. Raises CrossalignError, before any registration where it can."""
    check_evaluation_output(request.output, request.overwrite, request.figures)
    starts = parse_starts(request.starts)
    cases = read_manifest(request.manifest)
    if request.split != "all":
        cases = in_split(cases, request.split)
    device = pick_device(request.device)
    methods = {
        name: with_run(method, request.run) if isinstance(method, Cascade) else method
        for name, method in _methods(request.methods, device).items()
    }
    total = len(cases) * len(methods) * len(starts) * request.count
    with tqdm(total=total, unit="registration", disable=None) as bar:

        def advance(_done: int, _total: int, row: Row) -> None:
            bar.set_postfix_str(f"{row.case} {row.method} {row.before.sre_mm:.1f} -> {row.after.sre_mm:.1f} mm")
            bar.update()

        evaluation = evaluate(cases, methods, starts, request.count, request.seed, advance)
    counts = {name: count_parameters(m.stages[0].model) for name, m in methods.items() if isinstance(m, Cascade)}
    written = write_evaluation(evaluation, request.output, request.overwrite, counts, request.figures)
    lines = (summary_markdown(evaluation, counts), "", *(f"wrote    {path}" for path in written))
    return Outcome(lines, _warnings(evaluation))


def _methods(text: str, device: torch.device) -> dict[str, Method]:
    """Read `mi,mine=stage1.safetensors+stage2.safetensors`: methods by the name that the table gives them."""
    methods: dict[str, Method] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        label, _, spelled = part.rpartition("=")
        methods[label.strip() or spelled] = named_method(spelled.strip(), device)
    if not methods:
        raise InputError("--method names no method: write one, or several with commas between them")
    return methods


def _warnings(evaluation: Evaluation) -> tuple[str, ...]:
    failed = evaluation.failed()
    if not failed:
        return ()
    first = f"{failed[0].case}, {failed[0].method}: {failed[0].error}"
    return (
        f"{len(failed)} of {len(evaluation.rows)} registrations failed (they keep their start); the first: {first}",
    )
