"""The crop that a network is given."""

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import InputError
from crossalign.types import Map, PointGrid, Shape

# Axes of their own: within one call z, y and x are those of the input volume.
Features: TypeAlias = Float[Tensor, "b f fz fy fx"]


def crop_points(shape: Shape, spacing_mm: float) -> PointGrid:
    """Return the offsets (z, y, x, 3) in mm, float64, of a crop's voxels from its centre."""
    if torch.get_default_device().type == "meta":  # as weights are checked: to compute there imports torch's compiler
        return torch.empty(*shape, 3, dtype=torch.float64)
    axes = [(torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * spacing_mm for size in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack((x, y, z), dim=-1)


def check_crops(fixed: Map, moving: Map, input_shape: Shape, moving_channels: int = 1) -> None:
    """Raise InputError where two crops are not (b, 1, z, y, x) of the size that a network was made for.

    The moving crop has as many channels as the network was made for.
    """
    for name, volume, channels in (("fixed", fixed, 1), ("moving", moving, moving_channels)):
        expected, got = (channels, *input_shape), tuple(volume.shape)
        if len(got) != 5 or got[1:] != expected:
            raise InputError(f"the {name} volume is {got}, expected (b, {', '.join(map(str, expected))})")
    if fixed.shape[0] != moving.shape[0]:
        raise InputError(f"got {fixed.shape[0]} fixed and {moving.shape[0]} moving volumes, expected as many of each")
