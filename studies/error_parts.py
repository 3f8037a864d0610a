r"""What is lost by the centre and what by the rotation: `python -m studies.error_parts ROWS.csv MANIFEST`.

    crossalign evaluate mrus.csv --split val --initial-sre-mm 0-20 --count 5 --method correspondence-few-shot \
        --orientation-correction 270 -o rows.csv
    python -m studies.error_parts rows.csv mrus.csv --orientation-correction 270

ROWS.csv is what `crossalign evaluate` wrote: its `residual_...` columns give the answers back. Each is measured again
with its rotation or its centre replaced: by the reference's, and its rotation by the mean of the prior for transrectal
ultrasound (`registration.pose_prior.TRANSRECTAL`), or turned half of the way to that. Printed for each method: SRE and
TRE, mm, mean and sd over registrations, and the angle to the reference. Rotations are about the structure's centre.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from studies.case_pictures import Registration, methods_of, read_rows, residual_motion
from torch import Tensor

from crossalign.data import LoadedCase, load_case, read_manifest
from crossalign.errors import CrossalignError, InputError
from crossalign.evaluation import surface_registration_error_mm, target_registration_error_mm
from crossalign.geometry import Rigid, quarter_turn
from crossalign.registration.pose_prior import TRANSRECTAL, expected_rotation

HEADER = ("answer", "n", "SRE", "TRE", "angle, deg")


@dataclass(frozen=True)
class Measured:
    """SRE and TRE, mm (TRE None without landmarks), and the angle to the reference, degrees."""

    sre_mm: float
    tre_mm: float | None
    angle_deg: float


def with_rotation(answer: Rigid, rotation: Tensor, center_mm: Tensor) -> Rigid:
    """Replace a transform's rotation (3, 3); the centre (3,) stays where the transform takes it."""
    there = answer.apply(center_mm[None])[0]
    return Rigid(rotation, there - rotation @ center_mm)


def half_way(a: Tensor, b: Tensor) -> Tensor:
    """Return the rotation (3, 3) in the middle between two."""
    summed = a + b
    u, _, vh = torch.linalg.svd(summed)
    return u @ vh


def variants(case: LoadedCase, answer: Rigid, fixed_to_patient: Tensor) -> Iterator[tuple[str, Rigid]]:
    """Yield the answer and what it becomes with one part replaced."""
    center, reference = case.fixed_mask.centroid_mm(), case.fixed_to_moving
    yield "as it is", answer
    yield "with the reference's rotation", with_rotation(answer, reference.rotation, center)
    yield "with the reference's centre", with_rotation(reference, answer.rotation, center)
    expected = expected_rotation(TRANSRECTAL, case.moving.grid, reference, fixed_to_patient)
    if expected is None:
        raise InputError(f"case {case.name}: its reference turns too far from the prior: leave the case out")
    yield "with the prior's rotation", with_rotation(answer, expected.rotation, center)
    yield "half way to the prior's", with_rotation(answer, half_way(answer.rotation, expected.rotation), center)
    yield "reference's centre, prior's rotation", with_rotation(reference, expected.rotation, center)


def measure(case: LoadedCase, transform: Rigid) -> Measured:
    """Measure a transform against the reference and the landmarks."""
    marks = case.landmarks
    return Measured(
        surface_registration_error_mm(transform, case.fixed_to_moving, case.surface_mm),
        None if marks is None else target_registration_error_mm(transform, marks.fixed_mm, marks.moving_mm),
        float((case.fixed_to_moving.inverse() @ transform).angle_deg()),
    )


def measured(
    rows: Sequence[Registration], cases: Mapping[str, LoadedCase], fixed_to_patient: Tensor
) -> dict[str, list[Measured]]:
    """Measure the variants of all answers, by their names."""
    found: dict[str, list[Measured]] = {}
    for row in rows:
        if row.case not in cases:
            raise InputError(f"the manifest has no case '{row.case}': give the one that the table was made from")
        case = cases[row.case]
        for name, transform in variants(case, case.fixed_to_moving @ residual_motion(case, row), fixed_to_patient):
            found.setdefault(name, []).append(measure(case, transform))
    return found


def table(found: Mapping[str, Sequence[Measured]]) -> list[str]:
    """Write the variants in Markdown."""
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    for name, values in found.items():
        tre = [value.tre_mm for value in values if value.tre_mm is not None]
        cells = ([value.sre_mm for value in values], tre, [value.angle_deg for value in values])
        lines.append(f"| {name} | {len(values)} | {' | '.join(map(_mean_sd, cells))} |")
    return lines


def _mean_sd(values: Sequence[float]) -> str:
    if len(values) == 0:
        return "-"
    sd = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{sd}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="table (.csv) that crossalign evaluate wrote")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--orientation-correction", type=int, choices=(0, 90, 180, 270), default=0)
    given = parser.parse_args(arguments)
    try:
        rows = read_rows(given.rows)
        names = {row.case for row in rows}
        cases = {case.name: load_case(case) for case in read_manifest(given.manifest) if case.name in names}
        for method in methods_of(rows):
            chosen = [row for row in rows if row.method == method]
            print(f"\n{method}: {len(names)} cases\n")
            print("\n".join(table(measured(chosen, cases, quarter_turn(given.orientation_correction // 90)))))
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
