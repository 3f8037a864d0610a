"""Working through a volume a few slices at a time, so that what is made on the way stays small beside the volume."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

SLAB_VOXELS = 2**20


def slabs(volume: Tensor, axis: int = 0, voxels: int = SLAB_VOXELS) -> Iterator[Tensor]:
    """Give views of a tensor, one after another along an axis, each of about `voxels` elements or of one slice."""
    length = volume.shape[axis]
    thickness = max(1, voxels * length // max(1, volume.numel()))
    for first in range(0, length, thickness):
        yield volume.narrow(axis, first, min(thickness, length - first))


def count_where(volume: Tensor, test: Callable[[Tensor], Tensor]) -> int:
    """Count the elements of a tensor that pass a test, which maps a part of it to booleans."""
    return sum(int(torch.count_nonzero(test(part))) for part in slabs(volume))
