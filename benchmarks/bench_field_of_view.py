"""How far answers move when the moving image is cut: `python -m benchmarks.bench_field_of_view [--manifest CASES.csv]`.

    python -m benchmarks.bench_field_of_view --manifest mrus.csv --orientation-correction 270 -o cut.csv

The structure stays where it is, so an answer should not move. Some millimetres are cut from each of the six sides of
the moving image in turn: the cut image has a smaller grid, as a scan with another field of view has. It is registered
from the initial transforms of the whole image. Printed for each side, as mean and sd over registrations:

- along: how far the answer for the structure's centre moves away from the cut side, mm, along the image's axis. The
  middle of the picture moves by half of the cut: an answer that follows the picture moves so.
- moved: the length of the whole movement of the centre, mm.
- SRE of the answer on the whole and on the cut image, and their difference, mm.
- touched: the cases in which some of the structure itself is cut away; a row without these follows.

Sides are named by the patient's axes: those of the fixed image, after the orientation correction, brought to the moving
image by the reference. The cut is a whole number of voxels. Without a manifest a few simulated pairs are cut.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from crossalign.cells import csv_text
from crossalign.data import LoadedCase, load_case, read_manifest
from crossalign.errors import CrossalignError, InputError
from crossalign.evaluation import InitialisationRange, draw_initialisations, surface_registration_error_mm
from crossalign.evaluation.error_parts import patient_axes
from crossalign.geometry import Grid, Rigid, axis_orientations, inside_fraction, quarter_turn
from crossalign.images import Image, LabelMap, foreground, surface_points
from crossalign.output import whole_file, write_text
from crossalign.registration import Method, NetworkRegistration, named_method, register
from crossalign.registration.methods import default_method_name
from crossalign.simulation import SimulationSettings, simulate_pairs

# The patient's axis (0: left, 1: posterior, 2: superior) and its end. The transrectal probe lies behind the gland.
SIDES: Mapping[str, tuple[int, int]] = {
    "left": (0, 1),
    "right": (0, -1),
    "posterior (probe)": (1, 1),
    "anterior": (1, -1),
    "superior (bladder)": (2, 1),
    "inferior (apex)": (2, -1),
}
HEADER = ("side", "n", "patients", "touched", "along", "moved", "SRE whole", "SRE cut", "rise")
SIMULATED, SEED = 4, 7


@dataclass(frozen=True)
class Row:
    """One registration of a cut image beside that of the whole one; mm, movements along the patient's axes.

    `structure_cut` is the fraction of the structure that was cut away.
    """

    case: str
    patient: str
    method: str
    repeat: int
    side: str
    cut_mm: float
    structure_cut: float
    initial_sre_mm: float
    sre_whole_mm: float
    sre_cut_mm: float
    along_mm: float
    moved_mm: float
    moved_left_mm: float
    moved_posterior_mm: float
    moved_superior_mm: float


@dataclass(frozen=True, eq=False)
class Cut:
    """A part of the moving image: its side, what was cut off (mm), and the unit vector (3,) away from that side."""

    side: str
    image: Image
    cut_mm: float
    away: Tensor


def cuts_of(case: LoadedCase, to_patient: Tensor, mm: float) -> Iterator[Cut]:
    """Cut each side of a case's moving image in turn; raises InputError where nothing would be left.

    `to_patient` (3, 3) rotates the axes of the fixed image's world to the patient's.
    """
    grid = case.moving.grid
    axes = torch.tensor(grid.direction, dtype=torch.float64)
    patient_to_grid = axes.mT @ case.fixed_to_moving.rotation.double() @ to_patient.mT
    ways = axis_orientations().double()
    nearest = ways[int((ways * patient_to_grid).sum((-1, -2)).argmax())]
    for side, (axis, end) in SIDES.items():
        along = int(nearest[:, axis].abs().argmax())
        last = bool(nearest[along, axis] * end > 0)
        count = round(mm / grid.spacing_mm[along])
        away = axes[:, along] * (-1 if last else 1)
        yield Cut(side, without_end(case.moving, along, last, count), count * grid.spacing_mm[along], away)


def without_end(image: Image, axis: int, last: bool, count: int) -> Image:
    """Drop `count` slices at the first or the last end of a voxel axis (0: x, 1: y, 2: z)."""
    dimension = 2 - axis
    shape, first = list(image.grid.shape), [0, 0, 0]
    shape[dimension] -= count
    if shape[dimension] < 1:
        raise InputError(f"{image.name}: {count} of {image.grid.shape[dimension]} slices cannot be cut: lower --mm")
    first[dimension] = 0 if last else count
    voxels = image.voxels.narrow(dimension, first[dimension], shape[dimension]).contiguous()
    grid = image.grid.part((first[0], first[1], first[2]), (shape[0], shape[1], shape[2]))
    return Image(voxels, grid, image.name)


def structure_cut(case: LoadedCase, grid: Grid) -> float:
    """Return the fraction of the structure that lies outside of a grid but inside the whole moving image."""
    if case.moving_mask is not None:
        return 1 - inside_fraction(case.moving_mask.points_mm(), grid)
    points = case.fixed_to_moving.apply(case.fixed_mask.points_mm())
    return inside_fraction(points, case.moving.grid) - inside_fraction(points, grid)


def measure(
    case: LoadedCase, methods: Sequence[Method], initials: Sequence[Rigid], fixed_to_patient: Tensor, mm: float
) -> Iterator[Row]:
    """Register the whole and the cut images from the same initial transforms."""
    to_patient = patient_axes(case, fixed_to_patient)
    cuts = [(cut, structure_cut(case, cut.image.grid)) for cut in cuts_of(case, to_patient, mm)]
    for method in methods:
        for repeat, initial in enumerate(initials):
            whole = answer_of(case, case.moving, method, initial)
            for cut, fraction in cuts:
                answer = answer_of(case, cut.image, method, initial)
                moved = movement(case, whole, answer)
                in_patient = to_patient @ case.fixed_to_moving.rotation.double().mT @ moved
                errors = [
                    surface_registration_error_mm(one, case.fixed_to_moving, case.surface_mm)
                    for one in (initial, whole, answer)
                ]
                yield Row(
                    *(case.name, case.patient, method.name, repeat, cut.side, cut.cut_mm, fraction),
                    *(errors[0], errors[1], errors[2], float(moved @ cut.away), float(moved.norm())),
                    *in_patient.tolist(),
                )


def answer_of(case: LoadedCase, moving: Image, method: Method, initial: Rigid) -> Rigid:
    """Register a moving image, with as much of its mask as lies in it where the method uses one."""
    used = case.moving_mask if method.uses_moving_mask else None
    mask = None if used is None else used.resampled(moving.grid)
    return register(case.fixed, moving, method, initial, case.fixed_mask, mask).fixed_to_moving


def movement(case: LoadedCase, before: Rigid, after: Rigid) -> Tensor:
    """Return how far the answer for the structure's centre moves, (3,), mm, in the moving image."""
    center = case.fixed_mask.centroid_mm()[None]
    return (after.apply(center) - before.apply(center))[0]


def simulated_cases(count: int) -> Iterator[LoadedCase]:
    """Make pairs whose headers are right."""
    settings = SimulationSettings()
    settings = replace(settings, pose=replace(settings.pose, rotated_fraction=0.0))
    pairs = simulate_pairs(count, torch.Generator().manual_seed(SEED), settings)
    for k in range(count):
        mask, moving_mask = (
            LabelMap(labels[k, 0].long(), grid)
            for labels, grid in ((pairs.fixed_mask, pairs.fixed_grid), (pairs.moving_mask, pairs.moving_grid))
        )
        moving = seen_part(Image(pairs.moving[k, 0], pairs.moving_grid, "us"))
        yield LoadedCase(
            name=f"simulated{k}",
            patient=f"simulated{k}",
            split="test",
            fixed=Image(pairs.fixed[k, 0], pairs.fixed_grid, "mr"),
            moving=moving,
            fixed_mask=mask,
            fixed_to_moving=pairs.fixed_to_moving[k].to("cpu", torch.float64),
            surface_mm=surface_points(mask),
            moving_mask=moving_mask.resampled(moving.grid),
        )


def seen_part(image: Image) -> Image:
    """Return the box of what an image shows: to cut an empty margin would change nothing."""
    first, shape = LabelMap(foreground(image.voxels).long(), image.grid).foreground_box()
    voxels = image.voxels
    for dimension in range(3):
        voxels = voxels.narrow(dimension, first[dimension], shape[dimension])
    return Image(voxels.contiguous(), image.grid.part(first, shape), image.name)


def table(rows: Sequence[Row]) -> list[str]:
    """Write the rows of one method in Markdown: one line for each side, their mean, and the trivial answer."""
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    lines += [_line(side, [row for row in rows if row.side == side]) for side in SIDES]
    lines.append(_line("**all sides**", rows))
    if whole := [row for row in rows if row.structure_cut == 0]:
        lines.append(_line("where none of the structure is cut away", whole))
    along = f"{statistics.fmean(row.cut_mm / 2 for row in rows):.2f}"
    return [*lines, f"| *the picture's middle* | {len(rows)} | | | {along} | {along} | | | |"]


def _line(name: str, rows: Sequence[Row]) -> str:
    touched = len({row.case for row in rows if row.structure_cut > 0})
    columns = (
        [row.along_mm for row in rows],
        [row.moved_mm for row in rows],
        [row.sre_whole_mm for row in rows],
        [row.sre_cut_mm for row in rows],
        [row.sre_cut_mm - row.sre_whole_mm for row in rows],
    )
    counts = f"{len(rows)} | {len({row.patient for row in rows})} | {touched}"
    return f"| {name} | {counts} | " + " | ".join(_mean_sd(values) for values in columns) + " |"


def _mean_sd(values: Sequence[float]) -> str:
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.2f} ± {sd:.2f}"


def csv_of(rows: Sequence[Row]) -> str:
    """Write one line for each registration of a cut image."""
    records = [asdict(row) for row in rows]
    lines = ([f"{v:.4f}" if isinstance(v, float) else str(v) for v in record.values()] for record in records)
    return csv_text([list(records[0]), *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each method."""
    given = _options().parse_args(arguments)
    try:
        return _run(given)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, help="cases with a known answer (default: simulated pairs)")
    parser.add_argument("--split", default="val", help="train, val, test or all (default: %(default)s)")
    parser.add_argument("--mm", type=float, default=10.0, help="what is cut from a side (default: %(default)s)")
    parser.add_argument("--method", action="append", help="may be given again (default: the default method)")
    parser.add_argument("--initial-sre-mm", default="0-20", help="SRE of the initial transforms (default: %(default)s)")
    parser.add_argument("--count", type=int, default=1, help="initial transforms for each case (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial transforms (default: %(default)s)")
    parser.add_argument(
        "--orientation-correction",
        type=int,
        choices=(0, 90, 180, 270),
        default=0,
        help="rotation about z that corrects both headers, degrees (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", type=Path, help="table of every registration to write (.csv)")
    return parser


def _run(given: argparse.Namespace) -> int:
    methods = [named_method(name) for name in given.method or [default_method_name(fixed_mask=True)]]
    methods = [
        one.with_run(replace(one.run, orientation_correction=given.orientation_correction))
        if isinstance(one, NetworkRegistration)
        else one
        for one in methods
    ]
    fixed_to_patient = quarter_turn(given.orientation_correction // 90)
    rows: list[Row] = []
    for case in _cases(given.manifest, given.split):
        initials = draw_initialisations(case, InitialisationRange.parse(given.initial_sre_mm), given.count, given.seed)
        rows += measure(case, methods, initials, fixed_to_patient, given.mm)
        print(f"{case.name}: {len(rows)} registrations", file=sys.stderr)
    what = f"{len({row.case for row in rows})} cases, {given.count} initial transforms each ({given.initial_sre_mm} mm)"
    for method in methods:
        print(f"\n{method.name}: {given.mm:g} mm cut from a side; {what}; mm, mean ± sd over registrations\n")
        print("\n".join(table([row for row in rows if row.method == method.name])))
    if given.output:
        with whole_file(given.output, overwrite=True) as partial:
            write_text(csv_of(rows), partial)
        print(f"\nwrote {given.output}")
    return 0


def _cases(manifest: Path | None, split: str) -> Iterator[LoadedCase]:
    if manifest is None:
        yield from simulated_cases(SIMULATED)
        return
    for case in read_manifest(manifest, None if split == "all" else split):
        yield load_case(case)


if __name__ == "__main__":
    sys.exit(main())
