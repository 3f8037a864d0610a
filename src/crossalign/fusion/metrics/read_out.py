"""How well each input can be read back from a fused volume: the R2 of a linear read-out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from crossalign.types import Mask, Scan

FOLDS = 5
RIDGE = 1e-6  # of the mean variance of a feature: neighbours are nearly collinear
WIDTH = 3


@dataclass(frozen=True)
class ReadOutScores:
    """R2 of predicting each scaled input from the fused volume: 1 fully recovered, 0 no better than its mean.

    `voxel`: from the fused value at the same voxel; `neighbourhood`: from the 27 values around it. Each as (mri, pet).
    Of values that the prediction has not been fitted to; below 0 where it is worse than the mean of the rest.
    """

    voxel: tuple[float, float]
    neighbourhood: tuple[float, float]

    def values(self) -> dict[str, float]:
        """Return every number by the name of its column."""
        names = ("mri", "pet")
        voxel = {f"read_out_r2_{name}": value for name, value in zip(names, self.voxel, strict=True)}
        return voxel | {f"read_out_r2_{name}_27": value for name, value in zip(names, self.neighbourhood, strict=True)}


def read_out_scores(fused: Scan, mri: Scan, pet: Scan, inside: Mask) -> ReadOutScores:
    """Fit and test a linear read-out of both inputs from the fused volume, on the voxels that `inside` marks.

    The marked voxels fall into five blocks of slices along the longest axis. Each is predicted by least squares fitted
    to the other four, with an intercept. R2 = 1 - squared error / squared deviation from the mean of the other four,
    both summed over the five blocks. NaN where an input is constant or a block is empty.
    """
    axis = max(range(3), key=lambda one: fused.shape[one])
    volumes = [volume.movedim(axis, 0) for volume in (fused, mri, pet)]
    moments = _moments(volumes[0], torch.stack(volumes[1:]), inside.movedim(axis, 0))
    centre = WIDTH**3 // 2
    return ReadOutScores(_r2(moments, [centre]), _r2(moments, list(range(WIDTH**3))))


def _moments(fused: Scan, targets: Tensor, inside: Mask) -> list[NDArray[np.float64]]:
    """Return, for each block, the sums of products of (27 fused values, both inputs, 1), (30, 30)."""
    planes = len(fused)
    padded = F.pad(fused[None, None], (1,) * 6, mode="replicate")[0, 0]
    sums = [np.zeros((WIDTH**3 + 3, WIDTH**3 + 3)) for _ in range(FOLDS)]
    marked = inside.flatten(1).any(1).nonzero().flatten()
    if len(marked) == 0:
        return sums
    first, count = int(marked[0]), int(marked[-1] - marked[0]) + 1
    for plane in range(first, min(first + count, planes)):
        mask = inside[plane]
        windows = padded[plane : plane + WIDTH].unfold(1, WIDTH, 1).unfold(2, WIDTH, 1)  # (3, y, x, 3, 3)
        features = windows.permute(1, 2, 0, 3, 4)[mask].flatten(1)
        values = torch.cat((features, targets[:, plane][:, mask].T, torch.ones(len(features), 1)), dim=1).double()
        sums[(plane - first) * FOLDS // count] += (values.T @ values).numpy()
    return sums


def _r2(moments: list[NDArray[np.float64]], features: list[int]) -> tuple[float, float]:
    total = np.sum(moments, axis=0)
    mri, pet, one = WIDTH**3, WIDTH**3 + 1, WIDTH**3 + 2
    found = []
    for target in (mri, pet):
        error = deviation = 0.0
        for block in moments:
            rest = total - block
            if block[one, one] == 0 or rest[one, one] == 0:
                return math.nan, math.nan
            error += _squared_error(block, _fit(rest, [*features, one], target), [*features, one], target)
            deviation += _squared_error(block, np.array([rest[one, target] / rest[one, one]]), [one], target)
        found.append(1 - error / deviation if deviation > 0 else math.nan)
    return found[0], found[1]


def _fit(moments: NDArray[np.float64], columns: list[int], target: int) -> NDArray[np.float64]:
    """Least squares with a ridge that holds collinear features apart; the intercept, the last one, has none."""
    left = moments[np.ix_(columns, columns)].copy()
    count = moments[columns[-1], columns[-1]]
    variance = left.diagonal()[:-1] / count - (left[-1, :-1] / count) ** 2
    left[np.arange(len(columns) - 1), np.arange(len(columns) - 1)] += RIDGE * count * max(float(variance.mean()), 1e-12)
    return np.asarray(np.linalg.solve(left, moments[columns, target]))


def _squared_error(
    moments: NDArray[np.float64], weights: NDArray[np.float64], columns: list[int], target: int
) -> float:
    """Sum of squared errors of a linear prediction, from the sums of products."""
    quadratic = weights @ moments[np.ix_(columns, columns)] @ weights
    return max(float(moments[target, target] - 2 * weights @ moments[columns, target] + quadratic), 0.0)
