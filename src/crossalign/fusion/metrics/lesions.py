"""How far a lesion stands out from its surroundings in a fused volume and in both inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata

from crossalign.errors import ImageError
from crossalign.geometry import Grid
from crossalign.images import LabelMap
from crossalign.types import Mask, Scan, Triple

SHELL_MM = 20.0
GAP_VOXELS = 1
LEAST_CONTRAST = 0.02  # of the scale: an input with less has no contrast to keep
SHOWN_AUC = 0.85  # where the PET's is higher, the PET shows the lesion
BODY = 0.05  # of the scale: what is brighter, and what it encloses, belongs to the body
SMALL_PART = 0.05  # of the largest part of the body: smaller ones are noise
FUSED, MRI, PET = "fused", "mri", "pet"


@dataclass(frozen=True)
class LesionScores:
    """Of one case: the lesion, all of its mask, against a shell around it; each by volume (fused, mri, pet).

    `auc`: how often a voxel of the lesion is brighter than one of the surroundings, 0.5 is chance. `contrast`: mean of
    the lesion minus mean of the surroundings, values in [0, 1]. `cnr`: contrast over the standard deviation of the
    surroundings. NaN where it is undefined.
    """

    auc: Mapping[str, float]
    contrast: Mapping[str, float]
    cnr: Mapping[str, float]
    lesion_voxels: int
    surroundings_voxels: int

    @property
    def lead_kept(self) -> float:
        """Return the fraction of the PET's lead over chance that is kept: (AUC fused - 0.5) / (AUC PET - 0.5)."""
        return _ratio(self.auc[FUSED] - 0.5, self.auc[PET] - 0.5)

    def contrast_kept(self, source: str) -> float:
        """Return the contrast in the fused volume over that in `mri` or `pet`; NaN where the input's is under 0.02."""
        contrast = self.contrast[source]
        return _ratio(self.contrast[FUSED], contrast) if abs(contrast) >= LEAST_CONTRAST else math.nan

    @property
    def shown(self) -> bool:
        """Say whether the PET alone shows the lesion: an AUC over 0.85."""
        return self.auc[PET] > SHOWN_AUC

    def values(self) -> dict[str, float]:
        """Return every number by the name of its column."""
        named = {f"lesion_auc_{name}": value for name, value in self.auc.items()}
        named["lesion_lead_kept"] = self.lead_kept
        named |= {f"lesion_contrast_{name}": value for name, value in self.contrast.items()}
        named |= {f"lesion_contrast_kept_{name}": self.contrast_kept(name) for name in (MRI, PET)}
        return named | {f"lesion_cnr_{name}": value for name, value in self.cnr.items()}


def score_lesion(fused: Scan, mri: Scan, pet: Scan, lesion: Mask, surroundings: Mask) -> LesionScores:
    """Score a lesion in a fused volume and in both inputs, on one grid, values in [0, 1]."""
    volumes = {FUSED: fused, MRI: mri, PET: pet}
    pairs = {name: (one[lesion].double().numpy(), one[surroundings].double().numpy()) for name, one in volumes.items()}
    contrast = {name: _mean(inside) - _mean(outside) for name, (inside, outside) in pairs.items()}
    return LesionScores(
        auc={name: auc_score(inside, outside) for name, (inside, outside) in pairs.items()},
        contrast=contrast,
        cnr={name: _ratio(contrast[name], _sd(outside)) for name, (_, outside) in pairs.items()},
        lesion_voxels=int(lesion.sum()),
        surroundings_voxels=int(surroundings.sum()),
    )


def auc_score(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    """Area under the ROC curve by ranks: how often a value inside is above one outside, ties count half; or NaN."""
    n, m = len(inside), len(outside)
    if n == 0 or m == 0:
        return math.nan
    ranks = rankdata(np.concatenate((inside, outside)))[:n]
    return (float(ranks.sum()) - n * (n + 1) / 2) / (n * m)


def lesion_masks(mask: LabelMap, mri: Scan, grid: Grid, pet_grid: Grid) -> tuple[Mask, Mask]:
    """Return the lesion and its surroundings on the grid of the fused volume; `mri` is scaled.

    The surroundings are the shell up to 20 mm from the lesion, without the voxels that touch it, inside the body, and
    inside the PET's field of view; so is the lesion. Raises ImageError where nothing of the lesion is in both scans.
    """
    labels = mask if mask.grid.agrees_with(grid) else mask.resampled(grid)
    lesion = labels.labels != 0
    covered = _covered(grid, pet_grid)
    if not bool((lesion & covered).any()):
        raise ImageError(f"{mask.name}: nothing of the lesion lies in both scans: is it the mask of this pair?")
    around = _shell(lesion.numpy(), grid.spacing_mm)
    return lesion & covered, torch.from_numpy(around) & covered & body_mask(mri)


def body_mask(scaled: Scan) -> Mask:
    """Mark the body in a scan in [0, 1]: what is brighter than 5 % of the scale, and what it encloses in each slice."""
    bright = ndimage.uniform_filter(scaled.numpy(), 3, mode="nearest") > BODY
    parts, count = ndimage.label(bright)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = (sizes > 0) & (sizes >= SMALL_PART * sizes.max())
    body = kept[parts]
    return torch.from_numpy(np.stack([ndimage.binary_fill_holes(plane) for plane in body]))


def _shell(lesion: NDArray[np.bool_], spacing_mm: Triple) -> NDArray[np.bool_]:
    distance_mm = ndimage.distance_transform_edt(~lesion, sampling=spacing_mm[::-1])
    touching = ndimage.binary_dilation(lesion, np.ones((3, 3, 3), dtype=bool), iterations=GAP_VOXELS)
    shell: NDArray[np.bool_] = (distance_mm <= SHELL_MM) & ~touching
    return shell


def _covered(grid: Grid, pet_grid: Grid) -> Mask:
    """Mark the voxels of one grid that lie in another, slice by slice."""
    if pet_grid.agrees_with(grid):
        return torch.ones(grid.shape, dtype=torch.bool)
    depth, height, width = grid.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    planes = []
    for index in range(depth):
        voxels = torch.stack((columns, rows, torch.full_like(rows, index)), dim=-1).reshape(-1, 3).double()
        planes.append(pet_grid.contains(grid.to_physical(voxels)).reshape(height, width))
    return torch.stack(planes)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _sd(values: NDArray[np.float64]) -> float:
    return float(values.std()) if len(values) else math.nan


def _ratio(above: float, below: float) -> float:
    return above / below if below != 0 else math.nan
