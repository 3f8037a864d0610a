"""Working through a volume a few slices at a time, so that what is made on the way stays small beside the volume."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from crossalign.types import Mask

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


def places_of(mask: Mask, ranks: Int[Tensor, " k"]) -> Int[Tensor, "k 3"]:
    """Return the voxels (z, y, x) that are the first (rank 0), second (1) and so on of those that a mask marks.

    As `mask.nonzero()[ranks]`, which takes 24 bytes for each marked voxel.
    """
    found = torch.zeros((len(ranks), 3), dtype=torch.int64, device=mask.device)
    done, first = 0, 0
    for part in slabs(mask):
        count = int(torch.count_nonzero(part))
        here = (ranks >= done) & (ranks < done + count)
        if bool(here.any()):
            places = part.nonzero()
            places[:, 0] += first
            found[here] = places[ranks[here] - done]
        done, first = done + count, first + len(part)
    return found
