"""How often the moving image's orientation is found where its header lies: 24 headers x every case, no tracker.

    python -m studies.orientation_check MANIFEST -o TABLE.csv [--split val] [--fixed-orientation PRS] [--headers 24]
        [--methods correspondence-few-shot] [--no-mask]

The moving file's header is turned by each of the 24 rotations that bring axes to axes. The orientation is found anew
for each (`auto`), the initial transform is `mask-center` with it, and each method registers. The summary gives the
fraction of right orientations, the fraction of wrong ones that are not trusted, and the SRE; beside it the baseline, in
which the headers are believed: right once in 24. `--fixed-orientation` says what is true of the fixed headers, and
`--truth` what is true of the moving ones as they stand.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from crossalign.data import LoadedCase, in_split, load_case, read_manifest
from crossalign.errors import CrossalignError
from crossalign.geometry import Grid, Rigid, mean_displacement_mm, orientation_rotations, rotation_of_code
from crossalign.images import Image
from crossalign.output import whole_file
from crossalign.registration import named_method, register
from crossalign.registration.initialisation import center_initialisation, mask_center_initialisation
from crossalign.registration.orientation import AUTO, HEADER, Orientation, OrientationRequest, find_orientation
from crossalign.registration.recognition import Recognizer, recognizer_of, shipped_recognizer


@dataclass(frozen=True)
class Found:
    """One header of one case: whether its orientation was found, and what a method made of it."""

    case: str
    header: int
    method: str
    right: bool
    trusted: bool
    sre_mm: float
    probability: float
    none_probability: float
    chosen: str
    runner_up: str

    def row(self) -> dict[str, object]:
        """Return the columns of the table."""
        return dict(vars(self))


def turned_case(case: LoadedCase, rotation: Tensor) -> LoadedCase:
    """Return a case whose moving header is turned about its grid's middle; the reference turns with it."""
    grid = case.moving.grid
    middle = grid.center_mm()
    turn = Rigid(rotation, middle - rotation @ middle)
    a, b, c = (rotation @ torch.tensor(grid.direction, dtype=torch.float64)).tolist()
    origin = turn.apply(torch.tensor([grid.origin_mm], dtype=torch.float64))[0].tolist()
    lying = Grid(
        grid.shape,
        grid.spacing_mm,
        (origin[0], origin[1], origin[2]),
        ((a[0], a[1], a[2]), (b[0], b[1], b[2]), (c[0], c[1], c[2])),
    )
    moving = Image(case.moving.voxels, lying, case.moving.name)
    return replace(case, moving=moving, fixed_to_moving=turn @ case.fixed_to_moving)


def found_in(
    case: LoadedCase, recognizer: Recognizer, fixed_orientation: str, with_mask: bool
) -> tuple[Orientation, Rigid]:
    """Find the moving orientation of a case, and the initial transform without a tracker."""
    mask = case.fixed_mask if with_mask else None
    asked = OrientationRequest(case.fixed, case.moving, mask, None, fixed_orientation, AUTO)
    found = find_orientation(asked, recognizer)
    initial = (
        center_initialisation(case.fixed, case.moving)
        if mask is None
        else mask_center_initialisation(mask, case.moving)
    )
    center = case.fixed.grid.center_mm() if mask is None else mask.centroid_mm()
    return found, found.rotated(initial, case.fixed.grid, case.moving.grid, center)


def check_case(case: LoadedCase, given: argparse.Namespace, recognizer: Recognizer) -> Iterator[Found]:
    """Yield what was found for each header, and for each method."""
    methods = {name: named_method(name) for name in given.methods.split(",") if name}
    truth = rotation_of_code(given.truth, case.moving.grid) if given.truth else _patient(case, given.fixed_orientation)
    rotations = orientation_rotations()
    drawn = torch.randperm(len(rotations), generator=torch.Generator().manual_seed(given.seed + _number(case.name)))
    for number in sorted(drawn[: given.headers].tolist()):
        lying = turned_case(case, rotations[number])
        found, initial = found_in(lying, recognizer, given.fixed_orientation, not given.no_mask)
        right = torch.equal(found.moving_to_patient @ rotations[number], truth)
        yield Found(case.name, number, "none", right, not found.reasons, _sre(lying, initial), *_facts(found))
        for name, method in methods.items():
            mask = None if given.no_mask else case.fixed_mask
            result = register(lying.fixed, lying.moving, method, initial, mask, orientation=found)
            trusted = result.trusted is not False
            yield Found(case.name, number, name, right, trusted, _sre(lying, result.fixed_to_moving), *_facts(found))


def _number(name: str) -> int:
    return sum(ord(letter) * 31**place for place, letter in enumerate(name)) % 2**31


def _patient(case: LoadedCase, spelled: str) -> Tensor:
    """Return the rotation of the moving header's axes, which are the fixed ones' by the reference's nearest axes."""
    fixed = torch.eye(3, dtype=torch.float64) if spelled == HEADER else rotation_of_code(spelled, case.fixed.grid)
    turned = fixed @ case.fixed_to_moving.rotation.to("cpu", torch.float64).mT
    rotations = orientation_rotations()
    return rotations[int((rotations * turned).sum((-1, -2)).argmax())]


def _sre(case: LoadedCase, found: Rigid) -> float:
    return float(mean_displacement_mm(found, case.fixed_to_moving, case.surface_mm.double()))


def _facts(found: Orientation) -> tuple[float, float, str, str]:
    missing = math.nan
    probability = missing if found.probability is None else found.probability
    return probability, found.none_probability or 0.0, found.moving_code, found.runner_up


def summary(rows: list[Found]) -> list[str]:
    """Return a line for each method, and that of the baseline."""
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        of = [row for row in rows if row.method == method]
        wrong = [row for row in of if not row.right]
        right = len(of) - len(wrong)
        doubted = sum(not row.trusted for row in wrong)
        kept = [row for row in of if row.right and row.trusted]
        sre = [row.sre_mm for row in of if row.right]
        lines.append(
            f"{method}: right {right} of {len(of)} ({right / len(of):.1%}); of {len(wrong)} wrong ones {doubted} not "
            f"trusted; of {right} right ones {len(kept)} trusted; SRE where right "
            + (f"{statistics.mean(sre):.2f} +- {statistics.pstdev(sre):.2f} mm" if sre else "none")
        )
    lines.append("headers believed (baseline): right 1 of 24 (4.2%)")
    return lines


def main() -> int:
    """Run the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--split", default="val", help="cases to use, or all")
    parser.add_argument("--fixed-orientation", default=HEADER)
    parser.add_argument("--truth", default="", help="code of the moving headers; left out, by the references")
    parser.add_argument("--headers", type=int, default=24, help="how many of the 24, drawn for each case")
    parser.add_argument("--methods", default="", help="names with commas between them; none: orientations alone")
    parser.add_argument("--weights", type=Path, help="another recognition network")
    parser.add_argument("--no-mask", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        recognizer = shipped_recognizer() if given.weights is None else recognizer_of(given.weights)
        if recognizer is None:
            print("the package was installed without the recognition network", file=sys.stderr)
            return 2
        cases = read_manifest(given.manifest)
        cases = cases if given.split == "all" else in_split(cases, given.split)
        rows = [row for case in cases for row in check_case(load_case(case), given, recognizer)]
        with whole_file(given.output, overwrite=True) as partial, partial.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0].row()))
            writer.writeheader()
            writer.writerows(row.row() for row in rows)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(summary(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
