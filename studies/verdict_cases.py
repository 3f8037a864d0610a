"""Register pairs whose answer is known with the iterative methods, and write the evidence of their verdicts.

The constants of `crossalign.registration.verdict` are fitted on the cases that this script makes from simulated pairs,
from the template head of nilearn and from the `train` split of the soft-tissue tumours (T1, CT and PET of one frame
of reference), and tested on the cases of the `val` split:

    python studies/verdict_cases.py --sts DATA/sts --limit 5 -o cases.csv
    python studies/verdict_cases.py --fit cases.csv

Each pair is initialised near (0 to 30 mm off), rotated by 60 to 180 degrees, as scans of different patients or organs,
and as a slab that is cut off.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.stats import spearmanr

from crossalign.fusion.simulation.anatomy import HeadTemplate, mni152_maps
from crossalign.fusion.simulation.pairs import simulate_head
from crossalign.geometry import Grid, Rigid, draw_perturbation, mean_displacement_mm
from crossalign.images import Image, LabelMap, read_image
from crossalign.registration import Problem, named_method, register
from crossalign.registration.iterative.verdict import CONVERGED_RUNS, MOST_DISPERSION, SHORT_RUNS, ErrorModel, Evidence
from crossalign.simulation import simulate_pairs
from crossalign.types import Points

METHODS = ("mi", "mi-best", "mind", "mind-best")
EVIDENCE = tuple(field.name for field in fields(Evidence))
COLUMNS = ("set", "case", "kind", "method", "split", "extent_mm", "initial_mm", "error_mm", "seconds")


@dataclass(frozen=True, eq=False)
class KnownPair:
    """Two scans and the answer; `truth` None where there is none (two patients, two organs)."""

    source: str
    name: str
    split: str
    fixed: Image
    moving: Image
    mask: LabelMap | None
    truth: Rigid | None


def simulated(count: int) -> Iterator[KnownPair]:
    """MR and ultrasound of simulated pelves."""
    pairs = simulate_pairs(count, torch.Generator().manual_seed(7_301))
    for index in range(count):
        gland = LabelMap((pairs.fixed_mask[index, 0] > 0.5).long(), pairs.fixed_grid)
        truth = pairs.fixed_to_moving[index].to("cpu", torch.float64)
        fixed = Image(pairs.fixed[index, 0], pairs.fixed_grid, "mr")
        moving = Image(pairs.moving[index, 0], pairs.moving_grid, "us")
        yield KnownPair("pelvis", f"pelvis{index}", "train" if index % 3 else "val", fixed, moving, gland, truth)


def heads(count: int) -> Iterator[KnownPair]:
    """MRI and PET of simulated heads, and their MRI against itself with another contrast."""
    template, generator = HeadTemplate(mni152_maps()), torch.Generator().manual_seed(7_302)
    for index in range(count):
        pair = simulate_head(template, (72, 80, 72), generator)
        grid = Grid.centered((0.0, 0.0, 0.0), (72, 80, 72), (pair.spacing_mm,) * 3)
        mri, pet = Image(pair.mri[0, 0], grid, "mri"), Image(pair.pet[0, 0], grid, "pet")
        remapped = Image((-torch.tanh(2 * mri.voxels / mri.voxels.max())), grid, "remapped")
        split = "train" if index % 3 else "val"
        yield KnownPair("head", f"head{index}-pet", split, mri, pet, None, Rigid.identity())
        yield KnownPair("head", f"head{index}-remapped", split, mri, remapped, None, Rigid.identity())


def tumours(folder: Path, limit: int) -> Iterator[KnownPair]:
    """T1, CT and PET of one patient, and T1 and CT of two."""
    with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for split in ("train", "val"):
        selected = [row for row in rows if row["split"] == split][:limit]
        for index, row in enumerate(selected):
            fixed = read_image(folder / row["t1"])
            for kind in ("ct", "pet"):
                moving = read_image(folder / row[kind])
                yield KnownPair("sts", f"{row['case']}-{kind}", split, fixed, moving, None, Rigid.identity())
            other = read_image(folder / selected[index - 1]["ct"])
            yield KnownPair("sts", f"{row['case']}-other", split, fixed, other, None, None)


def initialisations(
    pair: KnownPair, points: Points, extent: float, generator: torch.Generator
) -> Iterator[tuple[str, Rigid, Image]]:
    """Yield the kind of a case, its initialisation and the moving image."""
    center = points.mean(0)
    if pair.truth is None:
        middle = pair.moving.grid.center_mm()
        yield "other", Rigid.from_translation(middle - center), pair.moving
        return
    for largest in (0.15, 0.3):
        target = torch.rand(1, generator=generator, dtype=torch.float64) * largest * extent
        motion = draw_perturbation(points[None], center[None], target, generator)[0]
        yield "near", pair.truth @ motion, pair.moving
    angle = 60 + 120 * torch.rand(1, generator=generator, dtype=torch.float64)
    axis = int(torch.randint(3, (1,), generator=generator))
    parameters = torch.zeros(6, dtype=torch.float64)
    parameters[3 + axis] = angle[0]
    yield "rotated", pair.truth @ Rigid.from_parameters(parameters, center), pair.moving
    target = torch.rand(1, generator=generator, dtype=torch.float64) * 0.15 * extent
    motion = draw_perturbation(points[None], center[None], target, generator)[0]
    yield "slab", pair.truth @ motion, slab(pair.moving)


def slab(image: Image) -> Image:
    """Keep the upper quarter of a scan's slices."""
    first = image.grid.shape[0] * 3 // 4
    x, y, z = image.grid.to_physical(torch.tensor([[0.0, 0.0, float(first)]], dtype=torch.float64))[0].tolist()
    _, height, width = image.grid.shape
    grid = Grid((image.grid.shape[0] - first, height, width), image.grid.spacing_mm, (x, y, z), image.grid.direction)
    return Image(image.voxels[first:], grid, image.name)


def measured(pair: KnownPair, number: int, methods: tuple[str, ...]) -> Iterator[dict[str, object]]:
    """Register one pair from each of its initialisations with each method."""
    problem = Problem(pair.fixed, pair.moving, Rigid.identity(), pair.mask)
    points, extent = problem.structure_mm, problem.extent_mm
    generator = torch.Generator().manual_seed(100 + number)
    for kind, initial, moving in initialisations(pair, points, extent, generator):
        both = points
        if pair.truth is not None and kind == "slab":  # the error of what both show
            both = points[moving.grid.contains(pair.truth.apply(points))]
            if len(both) < 20:
                continue
        for name in methods:
            method = named_method(name, torch.device("cpu"))
            began = time.perf_counter()
            result = register(pair.fixed, moving, method, initial, pair.mask)
            before, after = math.nan, math.nan
            if pair.truth is not None:
                before, after = (
                    float(mean_displacement_mm(t, pair.truth, both)) for t in (initial, result.fixed_to_moving)
                )
            values = (
                pair.source,
                pair.name,
                kind,
                name,
                pair.split,
                extent,
                before,
                after,
                time.perf_counter() - began,
            )
            row = dict(zip(COLUMNS, values, strict=True))
            yield row | {key: float(value) for key, value in result.expectation.evidence.items()}


def fitted(path: Path) -> Iterator[str]:
    """Fit the slopes of both error models on the `train` rows, and say how they do on the `val` rows."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for title, model, names in (
        ("converged runs (mi)", CONVERGED_RUNS, ("mi",)),
        ("short runs (mi-best, mind, mind-best)", SHORT_RUNS, ("mi-best", "mind", "mind-best")),
    ):
        selected = [row for row in rows if row["method"] in names]
        evidence = [Evidence(*(float(row[key]) for key in EVIDENCE)) for row in selected]
        errors = np.array([float(row["error_mm"]) / float(row["extent_mm"]) for row in selected])
        errors = np.nan_to_num(errors, nan=MOST_DISPERSION).clip(max=MOST_DISPERSION)  # two patients: no answer
        parts = [field for field in ("base", "per_rivalry", "per_dispersion", "per_both") if getattr(model, field)]
        terms = [[replace(ErrorModel(), **{part: 1.0}).expected_fraction(one) for part in parts] for one in evidence]
        train = np.array([row["split"] == "train" for row in selected])
        slopes, _ = nnls(np.array(terms)[train], errors[train])
        yield f"{title}: " + ", ".join(f"{part} {slope:.3f}" for part, slope in zip(parts, slopes, strict=True))
        expected = np.array([model.expected_fraction(one) for one in evidence])[~train]
        errors = errors[~train]
        trusted = expected <= model.trusted_fraction
        yield (
            f"  shipped, val: n {len(errors)}, rank correlation {spearmanr(expected, errors).statistic:.2f}; "
            f"trusted {trusted.sum()}, error {errors[trusted].mean():.3f} (largest {errors[trusted].max():.3f}); "
            f"not trusted {(~trusted).sum()}, error {errors[~trusted].mean():.3f}, of these under 0.05: "
            f"{(errors[~trusted] < 0.05).sum()}"
        )


def main() -> int:
    """Write the cases, or fit on them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sts", type=Path)
    parser.add_argument("--limit", type=int, default=9, help="patients of a split, and simulated pairs")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--split", choices=("train", "val"), help="pairs of this split alone")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--fit", type=Path, metavar="CASES", help="fit on cases that were written before")
    options = parser.parse_args()
    if options.fit is not None:
        print("\n".join(fitted(options.fit)))
        return 0
    pairs = tumours(options.sts, options.limit) if options.sts is not None else []
    pairs = [*pairs, *simulated(options.limit), *heads(options.limit)]
    pairs = [pair for pair in pairs if options.split in (None, pair.split)]
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] | None = None
        for number, pair in enumerate(pairs):
            for row in measured(pair, number, tuple(options.methods.split(","))):
                if len(row) == len(COLUMNS):
                    continue  # the method could not begin, and says so
                if writer is None:
                    writer = csv.DictWriter(file, list(row))
                    writer.writeheader()
                writer.writerow(row)
                file.flush()
            print(f"{number + 1} of {len(pairs)}: {pair.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
