"""Register pairs that should be trusted and pairs that fail, and say which results are trusted, and how rightly.

    python -m studies.trust_sets --mrus mrus.csv --open open.csv --sts DATA/sts --brain DATA/brain -o trust.csv
    python -m studies.trust_sets --table trust.csv                                   # the figures of a table again

The table has a row for each registration: what is known of its error, what the method says of it, and every piece of
evidence (docs/concepts/expected-error.md). Rows of the role `fit` are of data that weights may be trained on:
simulated pairs and phantoms, the openly licensed pairs, the `train` split of the tumours. Rows of the role `judge` are
of other data: the real pairs of `--mrus`, the `val` split of the tumours, heads, other phantoms.

    python -m studies.trust_sets --fit trust.csv --recipe recipes/models/correspondence-few-shot.json
    python recipes/convert_stage_files.py recipes/models/correspondence-few-shot.json

fit the calibration of a model on the rows `fit`, write it into its recipe, judge it on the rows `judge` (without
registering again), and write the model file anew.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from studies.trust_pairs import (
    ORDINARY,
    ORGAN,
    PHANTOM,
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
from studies.trust_tables import (
    FIT,
    JUDGE,
    LEAST_KEPT,
    calibration_lines,
    cell,
    evidence_figures,
    figures,
    fitted,
    judged,
    read_tables,
    threshold_curve,
    write_recipe,
)

from crossalign.errors import CrossalignError
from crossalign.evaluation.error_estimates import EVIDENCE_PREFIX
from crossalign.geometry import codes_like, mean_displacement_mm, orientation_rotations, quarter_turn
from crossalign.models import load_model
from crossalign.models.pretrained import shipped_path
from crossalign.registration import NetworkRegistration, RegistrationResult, register
from crossalign.registration.evidence import EVIDENCE
from crossalign.registration.orientation import HEADER, Orientation, OrientationRequest, find_orientation
from crossalign.registration.recognition import SHIPPED, Recognizer, recognizer_of

SIMULATED = 16  # pelves, and phantoms a half of it
REAL_STARTS = 4  # ordinary ones of a real case that is fitted on: there are few
REAL_DRAWS = 3  # times that every set is drawn from such a case
EMPTY = 8  # cases whose ultrasound is noise, and one value
COLUMNS = (
    "role", "set", "source", "case", "patient", "method", "initial_sre_mm", "sre_mm", "should_be_trusted",
    "expected_sre_mm", "bound_mm", "trusted", "recognition", "recognition_probability", "reasons", "error", "seconds",
    "dispersion_mm", "network_sre_mm",
)  # fmt: skip


def trials(given: argparse.Namespace, role: str) -> Iterator[Trial]:
    """Make the trials of a role, set by set."""
    generator = torch.Generator().manual_seed(1 if role == FIT else 2)
    count = given.cases or SIMULATED
    prostates = _prostates(given, role, count)
    for group in prostates:
        few = role == FIT and group[0].source.startswith("open")
        starts, draws = (REAL_STARTS, REAL_DRAWS) if few else (given.starts, 1)
        for index, case in (pair for _ in range(draws) for pair in enumerate(group)):
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
    if given.mrus is None:
        return []
    known = set(given.leave_out.split(","))
    cases = cases_of_manifest(given.mrus, "mrus", given.orientation_correction, given.cases)
    return [[case for case in cases if case.patient not in known]]


def _another_patient(group: Sequence[KnownCase], index: int) -> KnownCase:
    others = [case for case in (*group[index:], *group[:index]) if case.patient != group[index].patient]
    return others[0] if others else group[index]


def register_trial(trial: Trial, method: NetworkRegistration, recognizer: Recognizer | None) -> dict[str, object]:
    """Register one trial and return its row. What the recognition network has against it is in `recognition`."""
    case = trial.case
    points = case.points_mm().double()
    before = float(mean_displacement_mm(trial.initial, case.truth, points))
    row: dict[str, object] = dict.fromkeys(COLUMNS, "")
    row |= {"set": trial.group, "source": case.source, "case": case.name, "patient": case.patient}
    row |= {"initial_sre_mm": before, "should_be_trusted": int(trial.group == ORDINARY)}
    began = time.process_time()
    try:
        orientation = _orientation(trial, recognizer)
        result = register(case.fixed, case.moving, method, trial.initial, case.mask, orientation=orientation)
    except CrossalignError as error:  # refused, and so not trusted
        return row | {"sre_mm": before, "trusted": 0, "error": str(error)}
    seconds = time.process_time() - began
    error_mm = float(mean_displacement_mm(result.fixed_to_moving, case.truth, points))
    row |= {"recognition": " | ".join(orientation.reasons), "recognition_probability": cell(orientation.probability)}
    return row | {"sre_mm": error_mm, "seconds": seconds, **_said(result)}


def _orientation(trial: Trial, recognizer: Recognizer | None) -> Orientation:
    """Take the fixed axes for what they are, and the moving ones for what the initial transform says."""
    case = trial.case
    away = orientation_rotations() - quarter_turn(case.orientation_deg // 90)
    code = codes_like(case.fixed.grid)[int(away.abs().sum((-1, -2)).argmin())]
    masks = (case.mask, None)
    request = OrientationRequest(case.fixed, case.moving, *masks, code, HEADER, trial.initial)
    return find_orientation(request, recognizer)


def _said(result: RegistrationResult) -> dict[str, object]:
    expectation = result.expectation
    return {
        "expected_sre_mm": cell(expectation.expected_sre_mm),
        "bound_mm": cell(expectation.bound_mm),
        "trusted": "" if result.trusted is None else int(result.trusted),
        "reasons": " | ".join(result.reasons),
        "dispersion_mm": cell(expectation.dispersion_mm),
        "network_sre_mm": cell(expectation.network_sre_mm),
        **{f"{EVIDENCE_PREFIX}{name}": value for name, value in expectation.evidence.items()},
    }


def write_table(given: argparse.Namespace) -> None:
    """Register every trial and write the table, row by row, in an order in which every part is like the whole."""
    method = NetworkRegistration(load_model(given.model), given.model)
    recognizer = None if given.recognition is None else recognizer_of(given.recognition)
    made = [(role, trial) for role in given.roles.split(",") for trial in trials(given, role)]
    order = torch.randperm(len(made), generator=torch.Generator().manual_seed(0))[: given.most].tolist()
    began, names = time.monotonic(), [*COLUMNS, *(f"{EVIDENCE_PREFIX}{name}" for name in EVIDENCE)]
    with given.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="", extrasaction="ignore")
        writer.writeheader()
        for number, index in enumerate(order, start=1):
            role, trial = made[index]
            row = register_trial(trial, method, recognizer) | {"role": role, "method": given.model}
            writer.writerow(row)
            file.flush()
            if number % 25 == 0:
                print(f"{number} of {len(made)}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def main() -> int:
    """Write a table, or read one; print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mrus", type=Path, help="manifest of the real pairs to judge by")
    parser.add_argument("--leave-out", default="", help="patients of --mrus not to judge by: those of --open; a,b")
    parser.add_argument("--open", type=Path, help="manifest of the openly licensed real pairs")
    parser.add_argument("--sts", type=Path, help="folder of the soft-tissue tumours")
    parser.add_argument("--brain", type=Path, help="folder of the heads")
    parser.add_argument("--orientation-correction", type=int, default=270, help="of the headers of both manifests")
    parser.add_argument("--model", default="correspondence-few-shot", help="name or file of a model")
    parser.add_argument(
        "--recognition", type=Path, default=shipped_path(SHIPPED), help="file of the recognition network, to ask it too"
    )
    parser.add_argument("--curve", action="store_true", help="print what other thresholds would trust, too")
    parser.add_argument("--roles", default=f"{FIT},{JUDGE}")
    parser.add_argument("--starts", type=int, default=2, help="ordinary initial transforms of a case")
    parser.add_argument("--most", type=int, help="registrations, of all that there would be")
    parser.add_argument("--cases", type=int, help="of each split and kind; 2 for a quick test")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--table", type=Path, nargs="+", help="tables that were written before")
    parser.add_argument("--fit", type=Path, nargs="+", metavar="TABLE", help="tables to fit a calibration on")
    parser.add_argument("--keep", type=float, default=LEAST_KEPT, help="least fraction of ordinary results to trust")
    parser.add_argument("--evidence", action="store_true", help="print what each piece of evidence is worth, too")
    parser.add_argument("--recipe", type=Path, help="of a model: the calibration is written into it")
    given = parser.parse_args()
    tables = given.table or given.fit
    if tables is None:
        if given.output is None:
            parser.error("name the table to write (-o) or tables to read (--table, --fit)")
        torch.set_num_threads(1)
        write_table(given)
        tables = [given.output]
    return _print(given, tables)


def _print(given: argparse.Namespace, tables: Sequence[Path]) -> int:
    known = set(given.leave_out.split(","))
    rows = [row for row in read_tables(tables) if row["role"] == FIT or row["patient"] not in known]
    if given.fit is not None or given.recipe is not None:
        calibration = fitted(rows, given.keep)
        print("\n".join(calibration_lines(calibration)))
        rows = judged(rows, calibration)
        if given.recipe is not None:
            write_recipe(given.recipe, calibration, rows)
    for role in (FIT, JUDGE):
        if selected := [row for row in rows if row["role"] == role]:
            print("\n".join((f"\n{role}\n", *figures(selected))))
            if given.curve:
                print("\n".join(("", *threshold_curve(selected))))
            if given.evidence:
                print("\n".join(("", *evidence_figures(selected))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
