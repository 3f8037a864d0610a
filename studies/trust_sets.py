"""Register pairs that should be trusted and pairs that fail, and say which results are trusted, and how rightly.

    python -m studies.trust_sets --mrus mrus.csv --open open.csv --sts DATA/sts --brain DATA/brain -o trust.csv
    python -m studies.trust_sets --table trust.csv                                   # the figures of a table again

The table has a row for each registration: what is known of its error, what the method says of it, and every piece of
evidence (docs/concepts/expected-error.md). Rows of the role `fit` are of data that weights may be trained on:
simulated pairs and phantoms, the openly licensed pairs, the `train` split of the tumours. Rows of the role `judge` are
of other data: the real pairs of `--mrus`, the `val` split of the tumours, heads, other phantoms. `--fit` fits the
calibration of a model on the first, and writes it into its recipe (`recipes/models/NAME.json`).
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from studies.trust_pairs import (
    ORDINARY,
    ORGAN,
    PHANTOM,
    SETS,
    KnownCase,
    Trial,
    cases_of_manifest,
    other_organs,
    phantom_cases,
    simulated_cases,
    trials_elsewhere,
    trials_of,
    trials_without_content,
)

from crossalign.errors import CrossalignError
from crossalign.evaluation.error_estimates import EVIDENCE_PREFIX
from crossalign.geometry import mean_displacement_mm
from crossalign.models import load_model
from crossalign.registration import NetworkRegistration, RegistrationResult, register
from crossalign.registration.evidence import EVIDENCE

FIT, JUDGE = "fit", "judge"
WRONG_MM = 10.0
SIMULATED = 24  # pelves, and phantoms a half of it
EMPTY = 8  # cases whose ultrasound is noise, and one value
COLUMNS = (
    "role", "set", "source", "case", "patient", "method", "initial_sre_mm", "sre_mm", "should_be_trusted",
    "expected_sre_mm", "bound_mm", "trusted", "reasons", "error", "seconds", "dispersion_mm", "network_sre_mm",
)  # fmt: skip


def trials(given: argparse.Namespace, role: str) -> Iterator[Trial]:
    """Make the trials of a role, set by set."""
    generator = torch.Generator().manual_seed(1 if role == FIT else 2)
    count = given.cases or SIMULATED
    prostates = _prostates(given, role, count)
    starts = given.starts if role == JUDGE else 2
    for group in prostates:
        for index, case in enumerate(group):
            yield from trials_of(case, _another_patient(group, index), starts, generator)
    if prostates:
        yield from trials_without_content(prostates[-1][: min(EMPTY, count)], generator)
    organs = list(other_organs(given.sts, given.brain, "train" if role == FIT else "val", given.cases))
    yield from trials_elsewhere(ORGAN, organs, generator)
    yield from trials_elsewhere(PHANTOM, phantom_cases(max(3, count // 2), 11 if role == FIT else 12), generator)


def _prostates(given: argparse.Namespace, role: str, count: int) -> list[list[KnownCase]]:
    if role == FIT:
        groups = [simulated_cases(count, 77)]
        if given.open is not None:
            groups.append(cases_of_manifest(given.open, "open", given.orientation_correction, given.cases))
        return groups
    return [cases_of_manifest(given.mrus, "mrus", given.orientation_correction, given.cases)] if given.mrus else []


def _another_patient(group: Sequence[KnownCase], index: int) -> KnownCase:
    others = [case for case in (*group[index:], *group[:index]) if case.patient != group[index].patient]
    return others[0] if others else group[index]


def register_trial(trial: Trial, methods: dict[int, NetworkRegistration]) -> dict[str, object]:
    """Register one trial and return its row."""
    case = trial.case
    points = case.points_mm().double()
    before = float(mean_displacement_mm(trial.initial, case.truth, points))
    row: dict[str, object] = dict.fromkeys(COLUMNS, "")
    row |= {"set": trial.group, "source": case.source, "case": case.name, "patient": case.patient}
    row |= {"initial_sre_mm": before, "should_be_trusted": int(trial.group == ORDINARY)}
    method = methods[case.orientation_deg]
    began = time.process_time()
    try:
        result = register(case.fixed, case.moving, method, trial.initial, case.mask)
    except CrossalignError as error:  # refused, and so not trusted
        return row | {"sre_mm": before, "trusted": 0, "error": str(error)}
    seconds = time.process_time() - began
    error_mm = float(mean_displacement_mm(result.fixed_to_moving, case.truth, points))
    return row | {"sre_mm": error_mm, "seconds": seconds, **_said(result)}


def _said(result: RegistrationResult) -> dict[str, object]:
    expectation = result.expectation
    return {
        "expected_sre_mm": _cell(expectation.expected_sre_mm),
        "bound_mm": _cell(getattr(expectation, "bound_mm", None)),
        "trusted": "" if result.trusted is None else int(result.trusted),
        "reasons": " | ".join(result.reasons),
        "dispersion_mm": _cell(expectation.dispersion_mm),
        "network_sre_mm": _cell(expectation.network_sre_mm),
        **{f"{EVIDENCE_PREFIX}{name}": value for name, value in expectation.evidence.items()},
    }


def _cell(value: float | None) -> object:
    return "" if value is None or not math.isfinite(value) else value


def write_table(given: argparse.Namespace) -> None:
    """Register every trial and write the table, row by row, in an order in which every part is like the whole."""
    model = load_model(given.model)
    methods = {
        degrees: NetworkRegistration(
            replace(model, run=replace(model.run, orientation_correction=degrees)), given.model
        )
        for degrees in {0, given.orientation_correction}
    }
    made = [(role, trial) for role in given.roles.split(",") for trial in trials(given, role)]
    order = torch.randperm(len(made), generator=torch.Generator().manual_seed(0))[: given.most].tolist()
    began, names = time.monotonic(), [*COLUMNS, *(f"{EVIDENCE_PREFIX}{name}" for name in EVIDENCE)]
    with given.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="", extrasaction="ignore")
        writer.writeheader()
        for number, index in enumerate(order, start=1):
            role, trial = made[index]
            row = register_trial(trial, methods) | {"role": role, "method": given.model}
            writer.writerow(row)
            file.flush()
            if number % 25 == 0:
                print(f"{number} of {len(made)}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def read_table(path: Path, role: str | None = None) -> list[dict[str, str]]:
    """Read the rows of a table, of one role alone where it is named."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if role in (None, row["role"])]


def figures(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Describe each set in a line of a Markdown table, then all of them, and what the expected error is worth."""
    yield "| set | n | trusted | of the trusted over 10 mm | true, median mm | expected, median mm | within the bound |"
    yield "|---|---|---|---|---|---|---|"
    for group in (*SETS, "all"):
        selected = [row for row in rows if group in (row["set"], "all")]
        if selected:
            yield _line(group, selected)
    real = [row for row in rows if row["set"] in SETS[:3]]
    for title, selected in (("ordinary, far and cut starts", real), ("every set", list(rows))):
        expected, true = _numbers(selected, "expected_sre_mm"), _numbers(selected, "sre_mm")
        both = ~np.isnan(expected) & ~np.isnan(true)
        if both.sum() > 2:
            rank = spearmanr(expected[both], true[both]).statistic
            yield f"rank correlation of expected and true error, {title}: {rank:.2f} (n {both.sum()})"


def _line(group: str, rows: Sequence[dict[str, str]]) -> str:
    true, expected, bound = (_numbers(rows, name) for name in ("sre_mm", "expected_sre_mm", "bound_mm"))
    trusted = np.array([row["trusted"] == "1" for row in rows])
    wrong = int((true[trusted] > WRONG_MM).sum())
    share = f"{wrong} of {trusted.sum()}" + (f" ({wrong / trusted.sum():.1%})" if trusted.any() else "")
    within = trusted & ~np.isnan(bound)
    covered = f"{(true <= bound)[within].mean():.0%} (n {within.sum()})" if within.any() else ""
    medians = " | ".join("" if np.isnan(one).all() else f"{np.nanmedian(one):.1f}" for one in (true, expected))
    return f"| {group} | {len(rows)} | {trusted.mean():.0%} | {share} | {medians} | {covered} |"


def _numbers(rows: Sequence[dict[str, str]], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([float(row.get(name) or "nan") for row in rows], dtype=np.float64)


def main() -> int:
    """Write a table, or read one; print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mrus", type=Path, help="manifest of the real pairs to judge by")
    parser.add_argument("--open", type=Path, help="manifest of the openly licensed real pairs")
    parser.add_argument("--sts", type=Path, help="folder of the soft-tissue tumours")
    parser.add_argument("--brain", type=Path, help="folder of the heads")
    parser.add_argument("--orientation-correction", type=int, default=270, help="of the headers of both manifests")
    parser.add_argument("--model", default="correspondence-few-shot", help="name or file of a model")
    parser.add_argument("--roles", default=f"{FIT},{JUDGE}")
    parser.add_argument("--starts", type=int, default=2, help="ordinary initial transforms of a case that is judged")
    parser.add_argument("--most", type=int, help="registrations, of all that there would be")
    parser.add_argument("--cases", type=int, help="of each split and kind; 2 for a quick test")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--table", type=Path, help="a table that was written before")
    given = parser.parse_args()
    if given.table is None:
        if given.output is None:
            parser.error("name the table to write (-o) or to read (--table)")
        torch.set_num_threads(1)
        write_table(given)
    table = given.table or given.output
    for role in (FIT, JUDGE):
        if rows := read_table(table, role):
            print("\n".join((f"\n{role}\n", *figures(rows))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
