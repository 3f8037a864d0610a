"""Sampling volumes at physical points, with ITK's rules at the border."""

from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crossalign.geometry.grid import Grid
from crossalign.geometry.rigid import Rigid
from crossalign.types import Volume

# The axes of what is made (o: out) are not those of the volume that is read.
Lattice: TypeAlias = Float[Tensor, "b zo yo xo 3"]
Sampled: TypeAlias = Float[Tensor, "b c zo yo xo"]

SLAB_POINTS = 500_000  # 12 MB of coordinates at a time


def sample(volume: Volume, points_voxel: Lattice, fill: float = 0.0, nearest: bool = False) -> Sampled:
    """Sample a volume (b, c, z, y, x) at continuous voxel indices (b, z', y', x', 3), ordered (x, y, z).

    Trilinear, or the nearest voxel (halves round up). As in ITK a point counts as inside up to half a voxel beyond
    the outer voxel centres, where the border value holds; further out it gets `fill`.
    """
    size = torch.tensor(volume.shape[:1:-1]).to(points_voxel)
    inside = ((points_voxel >= -0.5) & (points_voxel < size - 0.5)).all(dim=-1)
    if nearest:
        points_voxel = torch.floor(points_voxel + 0.5)
    unit = points_voxel * (2 / (size - 1).clamp(min=1)) - 1
    mode = "nearest" if nearest else "bilinear"
    values = F.grid_sample(volume, unit.to(volume), mode=mode, padding_mode="border", align_corners=True)
    return torch.where(inside[:, None], values, torch.full_like(values, fill))


def resample(
    volume: Volume,
    volume_grid: Grid,
    target_grid: Grid,
    target_to_volume: Rigid | None = None,
    fill: float = 0.0,
    nearest: bool = False,
) -> Sampled:
    """Bring a volume (b, c, z, y, x) onto another grid through a transform from target points to volume points.

    With fixed as target and moving as volume the transform is `fixed_to_moving` (one, not a batch). Done in slabs of
    slices, so that memory stays near that of the two volumes; coordinates are computed in float64.
    """
    chain = volume_grid.physical_to_voxel() @ target_grid.voxel_to_physical()
    if target_to_volume is not None:
        matrix = target_to_volume.matrix().to("cpu", torch.float64)
        chain = volume_grid.physical_to_voxel() @ matrix @ target_grid.voxel_to_physical()
    chain = chain.to(volume.device)
    depth, height, width = target_grid.shape
    thickness = max(1, SLAB_POINTS // (height * width))
    slabs: list[Tensor] = []
    for first in range(0, depth, thickness):
        slab = torch.arange(first, min(first + thickness, depth), device=volume.device)
        points = _lattice(slab, height, width) @ chain[:3, :3].T + chain[:3, 3]
        slabs.append(sample(volume, points.expand(len(volume), *points.shape), fill, nearest))
    return torch.cat(slabs, dim=2)


def _lattice(slices: Tensor, height: int, width: int) -> Tensor:
    rows = torch.arange(height, device=slices.device)
    columns = torch.arange(width, device=slices.device)
    z, y, x = torch.meshgrid(slices, rows, columns, indexing="ij")
    return torch.stack((x, y, z), dim=-1).double()
