"""`crossalign evaluate`: methods by cases by starts, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from crossalign.cli.options import Outcome, check_apart, pick_device, split_list, weight_files
from crossalign.cli.progress import Progress
from crossalign.cli.running import with_run
from crossalign.data import Case, in_split, read_manifest
from crossalign.errors import InputError
from crossalign.evaluation import (
    Evaluation,
    Row,
    check_evaluation_output,
    evaluate,
    evaluation_paths,
    parse_initialisations,
    summary_markdown,
    write_evaluation,
)
from crossalign.input import excerpt
from crossalign.networks import count_parameters
from crossalign.registration import Method, NetworkRegistration
from crossalign.registration.methods import named_method


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
    starts = parse_initialisations(request.starts)
    cases = read_manifest(request.manifest)
    spelled = _spelled(request.methods)
    check_apart(evaluation_paths(request.output, request.figures), _inputs(request.manifest, cases, spelled))
    if request.split != "all":
        cases = in_split(cases, request.split)
    device = pick_device(request.device)
    methods = {
        name: with_run(method, request.run) if isinstance(method, NetworkRegistration) else method
        for name, method in _methods(spelled, device).items()
    }
    total = len(cases) * len(methods) * len(starts) * request.count
    with Progress(total, "registration") as progress:

        def advance(_done: int, _total: int, row: Row) -> None:
            progress.advance(f"{row.case} {row.method} {row.before.sre_mm:.1f} -> {row.after.sre_mm:.1f} mm")

        evaluation = evaluate(cases, methods, starts, request.count, request.seed, advance)
    counts = {
        name: count_parameters(m.model.stages[0].network)
        for name, m in methods.items()
        if isinstance(m, NetworkRegistration)
    }
    written = write_evaluation(evaluation, request.output, request.overwrite, counts, request.figures)
    lines = (summary_markdown(evaluation, counts), "", *(f"wrote    {path}" for path in written))
    return Outcome(lines, _warnings(evaluation))


def _spelled(text: str) -> dict[str, str]:
    """Read `mi,mine=stage1.safetensors+stage2.safetensors`: how methods are spelled, by the name for the table."""
    spelled: dict[str, str] = {}
    for part in split_list(text, "--method"):
        label, equals, name = (word.strip() for word in part.rpartition("="))
        if equals and not (label and name):
            raise InputError(f"--method '{excerpt(part)}': expected NAME=METHOD, or a method alone")
        if (label or name) in spelled:
            raise InputError(
                f"--method: two methods are called '{excerpt(label or name)}', and their rows could not be told apart: "
                "write NAME=METHOD to name each"
            )
        spelled[label or name] = name
    return spelled


def _methods(spelled: Mapping[str, str], device: torch.device) -> dict[str, Method]:
    return {label: named_method(name, device) for label, name in spelled.items()}


def _inputs(manifest: Path, cases: tuple[Case, ...], spelled: Mapping[str, str]) -> tuple[Path, ...]:
    """Name every file that is read: the manifest, what it names, and weights."""
    named = (p for c in cases for p in (c.fixed, c.moving, c.fixed_mask, c.reference, c.moving_mask, c.landmarks))
    weights = (path for name in spelled.values() for path in weight_files(name))
    return (manifest, *(path for path in named if path is not None), *weights)


def _warnings(evaluation: Evaluation) -> tuple[str, ...]:
    failed = evaluation.failed()
    if not failed:
        return ()
    first = f"{failed[0].case}, {failed[0].method}: {failed[0].error}"
    return (
        f"{len(failed)} of {len(evaluation.rows)} registrations failed (they keep their start); the first: {first}",
    )
