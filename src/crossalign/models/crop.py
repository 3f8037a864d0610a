"""The crop that a network sees, as offsets from its centre."""

import torch

from crossalign.types import PointLattice, Shape


def crop_lattice(shape: Shape, spacing_mm: float) -> PointLattice:
    """Offsets (z, y, x, 3) in mm, float64, of a crop's voxels from its centre."""
    axes = [(torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * spacing_mm for size in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack((x, y, z), dim=-1)
