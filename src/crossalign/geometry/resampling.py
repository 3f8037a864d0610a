"""Sampling volumes at physical points, with ITK's rules at the border, and how far two fields of view overlap."""

from collections.abc import Iterator
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from crossalign.geometry.grid import Grid, inside
from crossalign.geometry.rigid import Rigid
from crossalign.types import Labels, Points, Volume

# The axes of the output (o) are not those of the volume that is sampled.
OutputPoints: TypeAlias = Float[Tensor, "b zo yo xo 3"]
Sampled: TypeAlias = Float[Tensor, "b c zo yo xo"]

SLAB_POINTS = 2**18  # 6 MB of coordinates at a time, and some 30 MB in all


def sample(volume: Volume, points_voxel: OutputPoints, fill: float = 0.0, nearest: bool = False) -> Sampled:
    """Sample a volume (b, c, z, y, x) at continuous voxel indices (b, z', y', x', 3), ordered (x, y, z).

    Trilinear, or the nearest voxel (halves round up). As in ITK a point counts as inside up to half a voxel beyond
    the outer voxel centres, where the border value holds; further out it gets `fill`.
    """
    known = inside(points_voxel, volume.shape[2:])
    size = torch.tensor(volume.shape[:1:-1]).to(points_voxel)
    if nearest:
        points_voxel = torch.floor(points_voxel + 0.5)
    unit = points_voxel * (2 / (size - 1).clamp(min=1)) - 1
    mode = "nearest" if nearest else "bilinear"
    values = F.grid_sample(volume, unit.to(volume), mode=mode, padding_mode="border", align_corners=True)
    return torch.where(known[:, None], values, torch.full_like(values, fill))


def resample(
    volume: Volume,
    volume_grid: Grid,
    target_grid: Grid,
    target_to_volume: Rigid | None = None,
    fill: float = 0.0,
    nearest: bool = False,
) -> Sampled:
    """Resample a volume (b, c, z, y, x) onto another grid through a transform from target points to volume points.

    With fixed as target and moving as volume the transform is `fixed_to_moving` (one, not a batch). Done in slabs of
    slices, so that memory stays near that of the two volumes; coordinates are computed in float64.
    """
    depth, height, width = target_grid.shape
    resampled = volume.new_empty((*volume.shape[:2], depth, height, width))
    for first, points in voxel_slabs(volume_grid, target_grid, target_to_volume, volume.device):
        part = sample(volume, points.expand(len(volume), *points.shape), fill, nearest)
        if len(points) == depth:
            return part
        resampled[:, :, first : first + len(points)] = part
    return resampled


def resample_labels(
    labels: Labels, labels_grid: Grid, target_grid: Grid, target_to_labels: Rigid | None = None, fill: int = 0
) -> Int[Tensor, "zo yo xo"]:
    """Resample labels (z, y, x) onto another grid, nearest voxel, in their own type, as `resample` does."""
    resampled = labels.new_empty(target_grid.shape)
    for first, points in voxel_slabs(labels_grid, target_grid, target_to_labels, labels.device):
        outside = ~inside(points, labels.shape)
        nearest = points.add_(0.5).floor_().masked_fill_(outside[..., None], 0.0).long()
        x, y, z = nearest.unbind(-1)
        resampled[first : first + len(points)] = labels[z, y, x].masked_fill_(outside, fill)
    return resampled


def voxel_slabs(
    volume_grid: Grid, target_grid: Grid, target_to_volume: Rigid | None, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """Yield the first slice and the voxel indices (z, y, x, 3) in the volume of a few of the target's slices at a time.

    Computed in float64.
    """
    chain = volume_grid.physical_to_voxel() @ target_grid.voxel_to_physical()
    if target_to_volume is not None:
        matrix = target_to_volume.matrix().to("cpu", torch.float64)
        chain = volume_grid.physical_to_voxel() @ matrix @ target_grid.voxel_to_physical()
    chain = chain.to(device)
    depth, height, width = target_grid.shape
    thickness = max(1, SLAB_POINTS // (height * width))
    for first in range(0, depth, thickness):
        slices = range(first, min(first + thickness, depth))
        yield first, (_voxel_indices(slices, height, width, device) @ chain[:3, :3].T).add_(chain[:3, 3])


def _voxel_indices(slices: range, height: int, width: int, device: torch.device) -> Tensor:
    axes = (slices, range(height), range(width))
    z, y, x = (torch.arange(axis.start, axis.stop, dtype=torch.float64, device=device) for axis in axes)
    return torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], dim=-1)


def nearest_values(volume: Tensor, grid: Grid, points_mm: Points, fill: int | float = 0) -> Tensor:
    """Return the values (n,) of a volume (z, y, x) at the voxels nearest to points (n, 3), mm; outside it is `fill`."""
    index = grid.to_voxel(points_mm).add(0.5).floor().long()
    size = torch.tensor(grid.shape[::-1])
    known = ((index >= 0) & (index < size)).all(-1)
    x, y, z = torch.where(known[:, None], index, 0).unbind(-1)
    return torch.where(known, volume[z, y, x], fill)


POINTS_PER_AXIS = 24


def inside_fraction(points_mm: Points, grid: Grid) -> float:
    """Return the fraction of points (n, 3) that lie in a grid, to the outer faces of its voxels, 0 to 1."""
    return float(grid.contains(points_mm).double().mean())


def grid_overlap(a: Grid, b: Grid, a_to_b: Rigid | None = None) -> float:
    """Return the fraction of the smaller field of view that lies in the larger one, 0 to 1; without `a_to_b` as it is.

    A slab that lies wholly in a head has 1, whichever of the two is given first. Measured at 24^3 points of each grid.
    """
    forward = Rigid.identity() if a_to_b is None else a_to_b.to("cpu", torch.float64)
    a_in_b = inside_fraction(forward.apply(_even_points(a)), b)
    b_in_a = inside_fraction(forward.inverse().apply(_even_points(b)), a)
    return max(a_in_b, b_in_a)


def _even_points(grid: Grid) -> Points:
    """Points (n, 3), mm, at the centres of equal parts of a field of view."""
    steps = torch.arange(POINTS_PER_AXIS, dtype=torch.float64) + 0.5
    return grid.to_physical(torch.cartesian_prod(*[steps * (n / POINTS_PER_AXIS) - 0.5 for n in grid.shape[::-1]]))
