"""Refits of a reference, and how far one transform is from another: what studies/reference_uncertainty.py prints."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.optimize import least_squares
from torch import Tensor

from crossalign.data import Case, Landmarks, LoadedCase, load_case
from crossalign.errors import InputError
from crossalign.evaluation import ErrorParts, error_parts, surface_registration_error_mm
from crossalign.geometry import Rigid
from crossalign.images import LabelMap, surface_points

SURFACE_POINTS = 300
HOLD_MM_PER_DEG = 0.1
HEADER = ("compared", "n", "angle", "about L, P, S (rms)", "centre", "along L, P, S (mean size)", "SRE", "TRE")
# Weights of the glands' surfaces and of the landmarks.
REFITS: Mapping[str, tuple[float, float]] = {
    "glands : landmarks = 1 : 1": (1.0, 1.0),
    "4 : 1": (4.0, 1.0),
    "1 : 4": (1.0, 4.0),
    "glands alone": (1.0, 0.0),
    "landmarks alone": (0.0, 1.0),
}


LESS = "1 : 1, without one landmark"


@dataclass(frozen=True)
class Difference:
    """How far one transform is from another: its parts, mm and degrees; TRE of the first at the landmarks, mm.

    `turn_deg` is the rotation vector along the patient's axes.
    """

    parts: ErrorParts
    turn_deg: tuple[float, ...]
    sre_mm: float
    tre_mm: float


def difference(case: LoadedCase, transform: Rigid, fixed_to_patient: Tensor) -> Difference:
    """Compare a transform with a case's reference."""
    left_over = case.fixed_to_moving.inverse() @ transform
    return Difference(
        error_parts(transform, case, fixed_to_patient),
        tuple((fixed_to_patient @ rotation_vector(left_over.rotation) * (180 / math.pi)).tolist()),
        surface_registration_error_mm(transform, case.fixed_to_moving, case.surface_mm),
        tre_mm(transform, case.landmarks),
    )


def tre_mm(transform: Rigid, landmarks: Landmarks | None) -> float:
    """Return the mean distance at the landmarks, mm; NaN without."""
    if landmarks is None:
        return math.nan
    return float((transform.apply(landmarks.fixed_mm) - landmarks.moving_mm).norm(dim=-1).mean())


def rotation_vector(rotation: Tensor) -> Tensor:
    """Return the axis times the angle (3,), radians, of a rotation of under half a turn."""
    skew = rotation - rotation.mT
    axis = torch.stack((skew[2, 1], skew[0, 2], skew[1, 0]))
    if float(axis.norm()) < 1e-12:
        return torch.zeros(3, dtype=torch.float64)
    angle = torch.atan2(axis.norm(), rotation.diagonal().sum() - 1)
    return angle * axis / axis.norm()


def distance_to(mask: LabelMap) -> Callable[[Tensor], npt.NDArray[np.float64]]:
    """Make a function of points (n, 3), mm: their signed distances (n,) from a mask's surface, positive outside."""
    inside = mask.labels.numpy() != 0
    steps = mask.grid.spacing_mm[::-1]
    field = distance_transform_edt(~inside, steps) - distance_transform_edt(inside, steps)

    def distances(points_mm: Tensor) -> npt.NDArray[np.float64]:
        index = mask.grid.to_voxel(points_mm).flip(-1).T.numpy()
        found: npt.NDArray[np.float64] = map_coordinates(field, index, order=1, mode="nearest")
        return found

    return distances


class Refit:
    """Fits a case's glands and landmarks with any weights, by least squares from the reference on."""

    def __init__(self, case: LoadedCase) -> None:
        if case.moving_mask is None:
            raise InputError(f"case {case.name}: a refit needs the moving gland: name it in moving_mask")
        self.case = case
        self.center = case.fixed_mask.centroid_mm()
        self.to_fixed, self.to_moving = distance_to(case.fixed_mask), distance_to(case.moving_mask)
        self.fixed_mm = surface_points(case.fixed_mask, SURFACE_POINTS).double()
        self.moving_mm = surface_points(case.moving_mask, SURFACE_POINTS).double()

    def fitted(
        self, glands: float, landmarks: float, kept: Sequence[int] | None = None, held_to: Tensor | None = None
    ) -> Rigid:
        """Return the fit with these weights, to the landmarks of these numbers (None: all).

        `held_to` is a rotation (3, 3), fixed to moving, that it is drawn to by HOLD_MM_PER_DEG.
        """
        marks = self.case.landmarks
        chosen = slice(None) if kept is None else list(kept)

        def residuals(parameters: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            transform = self._transform(parameters)
            parts = []
            if glands > 0:
                there = self.to_moving(transform.apply(self.fixed_mm))
                back = self.to_fixed(transform.inverse().apply(self.moving_mm))
                parts += [math.sqrt(glands / 2 / len(one)) * one for one in (there, back)]
            if landmarks > 0 and marks is not None:
                apart = (transform.apply(marks.fixed_mm) - marks.moving_mm)[chosen]
                parts.append(math.sqrt(landmarks / len(apart)) * apart.flatten().numpy())
            if held_to is not None:
                turn_deg = rotation_vector(held_to.mT @ transform.rotation) * (180 / math.pi)
                parts.append(HOLD_MM_PER_DEG * turn_deg.numpy())
            return np.concatenate(parts)

        return self._transform(least_squares(residuals, np.zeros(6), x_scale=np.array([1.0] * 3 + [2.0] * 3)).x)

    def _transform(self, parameters: npt.NDArray[np.float64]) -> Rigid:
        return self.case.fixed_to_moving @ Rigid.from_parameters(torch.from_numpy(parameters), self.center)


def refits(cases: Sequence[Case], fixed_to_patient: Tensor) -> dict[str, list[Difference]]:
    """Refit every case and compare with its reference."""
    found: dict[str, list[Difference]] = {name: [] for name in (*REFITS, LESS)}
    for one in cases:
        case = load_case(one)
        refit, count = Refit(case), 0 if case.landmarks is None else len(case.landmarks.names)
        for name, (glands, landmarks) in REFITS.items():
            if (landmarks == 0 or count > 0) and (glands > 0 or count >= 3):  # a rotation needs three
                found[name].append(difference(case, refit.fitted(glands, landmarks), fixed_to_patient))
        for left_out in range(count if count > 1 else 0):
            kept = [index for index in range(count) if index != left_out]
            found[LESS].append(difference(case, refit.fitted(1.0, 1.0, kept), fixed_to_patient))
        print(f"{case.name}: refitted", file=sys.stderr)
    return found


def line(name: str, found: Sequence[Difference]) -> str:
    """Write a row of the table."""
    turns = np.sqrt(np.square([one.turn_deg for one in found]).mean(0))
    along = np.abs([one.parts.center_mm for one in found]).mean(0)
    cells = (
        mean_sd([one.parts.angle_deg for one in found]),
        ", ".join(f"{value:.1f}" for value in turns),
        mean_sd([one.parts.distance_mm for one in found]),
        ", ".join(f"{value:.1f}" for value in along),
        mean_sd([one.sre_mm for one in found]),
        mean_sd([one.tre_mm for one in found]),
    )
    return f"| {name} | {len(found)} | {' | '.join(cells)} |"


def mean_sd(values: Sequence[float]) -> str:
    """Write the mean and sd of the values that are not NaN."""
    known = np.array([value for value in values if not math.isnan(value)])
    if len(known) == 0:
        return "-"
    sd = f" ± {known.std(ddof=1):.2f}" if len(known) > 1 else ""
    return f"{known.mean():.2f}{sd}"
