"""An initial transform from corresponding landmarks of both scans: the weighted rigid fit, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid
from crossalign.geometry.fit import fit_rigid
from crossalign.images.files.points import PointsFile
from crossalign.input import excerpt

FEWEST = 3
LEAST_SPREAD_MM = 2.0  # root mean square distance of the landmarks from the line that they lie nearest to


@dataclass(frozen=True, eq=False)
class LandmarkPairs:
    """Corresponding points (k, 3) of the fixed and the moving image, LPS mm, and their names."""

    names: tuple[str, ...]
    fixed_mm: Float[Tensor, "k 3"]
    moving_mm: Float[Tensor, "k 3"]


@dataclass(frozen=True, eq=False)
class LandmarkFit:
    """The rigid transform, fixed to moving (mm, LPS), that brings landmarks onto one another best.

    `pairs` are the landmarks, `residual_mm` (k,) is how far each stays from its partner, `rms_mm` the weighted root
    mean square of these, `matched_by` name or order.
    """

    fixed_to_moving: Rigid
    pairs: LandmarkPairs
    residual_mm: Float[Tensor, " k"]
    rms_mm: float
    matched_by: str

    def text(self) -> str:
        """Say how many landmarks there are, how they were matched, and what is left."""
        return f"{len(self.pairs.names)} landmarks, matched by {self.matched_by}, root mean square {self.rms_mm:.2f} mm"

    def rows(self) -> tuple[tuple[str, float], ...]:
        """Return each landmark's name with its residual, mm."""
        return tuple(zip(self.pairs.names, self.residual_mm.tolist(), strict=True))


def fit_landmarks(fixed: PointsFile, moving: PointsFile) -> LandmarkFit:
    """Fit landmarks by least weighted squares (Kabsch), matched by name, or in order where no name is in both files.

    Weights are those of the fixed file, or else of the moving one; without any, all count alike. Raises InputError for
    points of the wrong image, for landmarks that cannot be matched, for fewer than three, and where they lie on a line.
    """
    for points, part in ((fixed, "fixed"), (moving, "moving")):
        if points.frame not in ("", part):
            raise InputError(f"the {part} landmarks are said to be points of the {points.frame} image: swap the files")
    ranks, matched_by = _matched(fixed, moving)
    first = torch.tensor([one for one, _ in ranks], dtype=torch.int64)
    second = torch.tensor([other for _, other in ranks], dtype=torch.int64)
    sources, targets = fixed.points_mm[first], moving.points_mm[second]
    weight = torch.ones(len(ranks), dtype=torch.float64)
    for file, index in ((fixed, first), (moving, second)):
        if file.weight:
            weight = torch.tensor(file.weight, dtype=torch.float64)[index]
            break
    _check_spread(sources, targets, weight)
    found = fit_rigid(sources[None], targets[None], weight[None], prior_mm2=0.0)[0]
    residual = (found.apply(sources) - targets).norm(dim=-1)
    rms = float(((weight * residual.square()).sum() / weight.sum()).sqrt())
    pairs = LandmarkPairs(tuple(fixed.names[one] for one, _ in ranks), sources, targets)
    return LandmarkFit(found, pairs, residual, rms, matched_by)


def _matched(fixed: PointsFile, moving: PointsFile) -> tuple[list[tuple[int, int]], str]:
    """Return the pairs of ranks, and by what they were matched."""
    for points, part in ((fixed, "fixed"), (moving, "moving")):
        repeated = [name for name in points.names if points.names.count(name) > 1]
        if repeated:
            raise InputError(f"two {part} landmarks are called '{excerpt(repeated[0])}': give each its own name")
    shared = [name for name in fixed.names if name in moving.names]
    if shared:
        return [(fixed.names.index(name), moving.names.index(name)) for name in shared], "name"
    if len(fixed.names) != len(moving.names):
        raise InputError(
            f"got {len(fixed.names)} fixed and {len(moving.names)} moving landmarks, and no name is in both files: "
            "give corresponding landmarks the same name, or as many of both in the same order"
        )
    return [(rank, rank) for rank in range(len(fixed.names))], "order"


def _check_spread(points: Tensor, targets: Tensor, weight: Tensor) -> None:
    used = int((weight > 0).sum())
    if bool((weight < 0).any()):
        raise InputError(f"a landmark's weight must be 0 or more, got {float(weight.min()):g}")
    if used < FEWEST:
        raise InputError(f"got {used} corresponding landmarks (with a weight over 0), expected {FEWEST} or more")
    for which, given in (("fixed", points), ("moving", targets)):
        centered = given[weight > 0] - given[weight > 0].mean(0)
        spread = float(torch.linalg.svdvals(centered)[1]) / used**0.5
        if spread < LEAST_SPREAD_MM:
            raise InputError(
                f"the {which} landmarks lie on a line, to within {spread:.1f} mm, so the rotation about it is open: "
                "add a landmark beside the line"
            )
