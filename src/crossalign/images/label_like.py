"""Telling label maps from scans by their voxels: labels stand in plateaus, and interpolation would invent new ones."""

import torch
from torch import Tensor

from crossalign.types import Scan

FEW_VALUES = 3
SOME_VALUES = 24
PLATEAU_SHARE = 0.6  # of neighbours, both of them not background, that are equal
JUMP_SHARE = 0.5  # of those that differ, the share that differ by more than 1: a smooth scan goes up by ones
SAMPLED_VOXELS = 200_000


def looks_like_labels(voxels: Scan) -> bool:
    """Say whether a scan holds whole numbers in plateaus, as a segmentation does, and not those of a noisy scan.

    Two or three values are taken for labels; up to 24 where most neighbours within the structures are equal; more where
    besides those that differ mostly do so by more than 1, as labels of no order do. Air and padding, the commonest one
    or two values, tell nothing. Constant images are not labels.
    """
    if bool(voxels.isnan().any()):
        voxels = voxels.nan_to_num(nan=0.0)
    if not all(bool((part == part.round()).all()) for part in voxels):  # slice by slice: most scans end at the first
        return False
    sample = voxels.flatten()[:: max(1, voxels.numel() // SAMPLED_VOXELS)]
    values, counts = torch.unique(sample, return_counts=True)
    count = _distinct_values(voxels, SOME_VALUES)
    if count <= FEW_VALUES:
        return count > 1
    common = values[counts.argsort(descending=True)][: 1 if count <= SOME_VALUES else 2]
    equal, jumps, pairs = _neighbours(voxels, common)
    if equal < PLATEAU_SHARE * pairs:
        return False
    return count <= SOME_VALUES or jumps >= JUMP_SHARE * (pairs - equal)


def _distinct_values(voxels: Scan, limit: int) -> int:
    """Count the values, one slice after another, and stop once there are more than `limit`."""
    found: set[float] = set()
    for part in voxels:
        found.update(torch.unique(part).tolist())
        if len(found) > limit:
            break
    return len(found)


def _neighbours(voxels: Scan, background: Tensor) -> tuple[int, int, int]:
    """Count neighbours in each slice, neither of them background: equal ones, ones more than 1 apart, and all."""
    equal = jumps = pairs = 0
    for part in voxels:
        tissue = ~torch.isin(part, background)
        for left, right, both in (
            (part[:, :-1], part[:, 1:], tissue[:, :-1] & tissue[:, 1:]),
            (part[:-1], part[1:], tissue[:-1] & tissue[1:]),
        ):
            apart = (left - right).abs()[both]
            equal += int((apart == 0).sum())
            jumps += int((apart > 1).sum())
            pairs += len(apart)
    return equal, jumps, pairs
