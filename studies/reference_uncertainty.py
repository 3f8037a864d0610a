"""How certain the references are: of two independent ones, and of one that is fitted again.

    python -m studies.reference_uncertainty mrus.csv --open mrus_open.csv
    python -m studies.reference_uncertainty mrus.csv

Each prints a table: mean and sd over cases (n) of the angle between two transforms, degrees, its root mean square about
the patient's left-right, anterior-posterior and superior-inferior axes, and of what lies between them in mm.

With `--open`: eight pairs of the public set (`mrus.csv`) are in the openly licensed set too, with glands and landmarks,
and so references, of their own. The images are the same: sampled at 1.60 mm, not at the 1.56 mm that the files of the
open set say, they correlate best, which is printed for each pair. The open references are brought to the other world
by the scale that is found so. They are also fitted again, held to the mean rotation of the prior for transrectal
ultrasound (`registration.pose_prior.TRANSRECTAL`) by 0.1 mm a degree.

Without: the reference of each case is fitted again to both glands and to the landmarks, with other weights and without
one landmark at a time, from the reference on, and compared with it. Weights multiply mean squared distances: of each
gland's surface points from the other gland's surface, and of the landmarks. Manifests are made by
recipes/mrus_manifest.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from studies.reference_refits import HEADER, Difference, Refit, difference, line, mean_sd, refits, tre_mm
from torch import Tensor

from crossalign.data import Case, Landmarks, LoadedCase, load_case, read_manifest
from crossalign.errors import CrossalignError
from crossalign.geometry import Grid, Rigid, quarter_turn
from crossalign.images import Image
from crossalign.registration.pose_prior import TRANSRECTAL, expected_rotation

# The eight pairs of the open set by a case of their patient in the public one; which of several sweeps is found out.
PAIRS: Mapping[str, str] = {
    "obs000": "open00",
    "obs004": "open01",
    "obs006": "open02",
    "obs012": "open03",
    "obs015": "open04",
    "obs020": "open05",
    "obs024": "open06",
    "obs028": "open07",
}
CORNER_MM = 0.5  # of a voxel: where both files' fields of view begin
SPACINGS_MM = np.arange(1.50, 1.701, 0.02)


@dataclass(frozen=True, eq=False)
class Rescaled:
    """The change of coordinates of one file's world to another's that shows the same, p -> scale p + shift_mm."""

    scale: float
    shift_mm: Tensor

    @staticmethod
    def between(grid: Grid, other: Grid, spacing_mm: float) -> Rescaled:
        """Lay a grid, taken to have this spacing, onto another one so that the corners of their first voxels meet."""
        scale = spacing_mm / grid.spacing_mm[0]
        corner = torch.full((1, 3), -CORNER_MM, dtype=torch.float64)
        return Rescaled(scale, (other.to_physical(corner) - scale * grid.to_physical(corner))[0])

    def points(self, points_mm: Tensor) -> Tensor:
        """Map points (n, 3)."""
        return self.scale * points_mm + self.shift_mm

    def correlation(self, image: Image, other: Image) -> float:
        """Correlate an image with another one where both show something."""
        points = other.grid.points_mm()[::2, ::2, ::2].reshape(-1, 3)
        index = image.grid.to_voxel((points - self.shift_mm) / self.scale)
        last = torch.tensor(image.grid.shape[::-1]) - 1
        inside = ((index >= 0) & (index <= last)).all(-1)
        here = map_coordinates(image.voxels.numpy(), index[inside].flip(-1).T.numpy(), order=1)
        there = other.voxels[::2, ::2, ::2].reshape(-1)[inside].numpy()
        return float(np.corrcoef(here, there)[0, 1])


def in_world_of(transform: Rigid, fixed: Rescaled, moving: Rescaled) -> Rigid:
    """Bring a transform of rescaled worlds to the worlds that they are rescaled to; both scales are the same."""
    shift = fixed.scale * transform.translation_mm + moving.shift_mm - transform.rotation @ fixed.shift_mm
    return Rigid(transform.rotation, shift)


@dataclass(frozen=True)
class Pair:
    """Two references of one patient: the open one from the public one, as it is and held to the prior.

    `tre_mm` is the error of the public reference at the open landmarks, `own_tre_mm` that of the open one.
    """

    apart: Difference
    held: Difference
    tre_mm: float
    own_tre_mm: float


def two_references(cases: Mapping[str, Case], others: Mapping[str, Case], fixed_to_patient: Tensor) -> Iterator[Pair]:
    """Compare the references of the pairs that both sets hold, and print how their images agree."""
    for name, other_name in PAIRS.items():
        if name not in cases or other_name not in others:
            continue
        other = load_case(others[other_name])
        sweeps = [load_case(one) for one in cases.values() if one.patient == cases[name].patient]
        fits = [[agreement(sweep, other, spacing) for spacing in SPACINGS_MM] for sweep in sweeps]
        case, fit = max(zip(sweeps, fits, strict=True), key=lambda pair: max(pair[1]))
        best = int(np.argmax(fit))
        pair = _compared(case, other, _scales(case, other, SPACINGS_MM[best]), fixed_to_patient)
        print(
            f"{case.name}, {other_name}: the images correlate best ({fit[best]:.3f}) at {SPACINGS_MM[best]:.2f} mm, "
            f"and {fit[_nearest(other.fixed.grid.spacing_mm[0])]:.3f} at the header's; angle "
            f"{pair.apart.parts.angle_deg:.1f} degrees, SRE {pair.apart.sre_mm:.1f} mm, "
            f"{0 if other.landmarks is None else len(other.landmarks.names)} open landmarks",
            flush=True,
        )
        yield pair


def agreement(case: LoadedCase, other: LoadedCase, spacing_mm: float) -> float:
    """Return the correlation of two pairs' images, the lesser of the two, where the other's spacing is this."""
    fixed, moving = _scales(case, other, spacing_mm)
    return min(fixed.correlation(other.fixed, case.fixed), moving.correlation(other.moving, case.moving))


def _compared(case: LoadedCase, other: LoadedCase, scales: tuple[Rescaled, Rescaled], fixed_to_patient: Tensor) -> Pair:
    fixed, moving = scales
    reference = other.fixed_to_moving
    expected = expected_rotation(TRANSRECTAL, other.moving.grid, reference, fixed_to_patient)
    held_to = None if expected is None else expected.rotation
    held = Refit(other).fitted(1.0, 0.0 if other.landmarks is None else 1.0, held_to=held_to)
    marks = None
    if other.landmarks is not None:
        scaled = (fixed.points(other.landmarks.fixed_mm), moving.points(other.landmarks.moving_mm))
        marks = Landmarks(other.landmarks.names, *scaled)
    return Pair(
        difference(case, in_world_of(reference, fixed, moving), fixed_to_patient),
        difference(case, in_world_of(held, fixed, moving), fixed_to_patient),
        tre_mm(case.fixed_to_moving, marks),
        tre_mm(in_world_of(reference, fixed, moving), marks),
    )


def _scales(case: LoadedCase, other: LoadedCase, spacing_mm: float) -> tuple[Rescaled, Rescaled]:
    fixed = Rescaled.between(other.fixed.grid, case.fixed.grid, spacing_mm)
    return fixed, Rescaled.between(other.moving.grid, case.moving.grid, spacing_mm)


def _nearest(spacing_mm: float) -> int:
    return int(np.abs(SPACINGS_MM - spacing_mm).argmin())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--open", type=Path, help="manifest of the open set: compares the references of both sets")
    parser.add_argument("--split", default="all", help="train, val or all (default: %(default)s)")
    parser.add_argument("--orientation-correction", type=int, choices=(0, 90, 180, 270), default=270)
    given = parser.parse_args(arguments)
    fixed_to_patient = quarter_turn(given.orientation_correction // 90)
    head = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    try:
        cases = read_manifest(given.manifest, None if given.split == "all" else given.split)
        if given.open:
            named = [{case.name: case for case in one} for one in (cases, read_manifest(given.open))]
            pairs = list(two_references(named[0], named[1], fixed_to_patient))
            rows = {
                "the open reference, from the public one": [pair.apart for pair in pairs],
                "the same, fitted again and held to the prior": [pair.held for pair in pairs],
            }
            for whose, values in (("public", [one.tre_mm for one in pairs]), ("open", [p.own_tre_mm for p in pairs])):
                print(f"TRE of the {whose} references at the open landmarks: {mean_sd(values)} mm")
        else:
            rows = refits(cases, fixed_to_patient)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join([*head, *(line(name, one) for name, one in rows.items() if one)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
