"""Layers on a few axial planes of a volume at a time, and the threads that each do some of them.

Layer by layer over the whole volume, every operation writes some 20 MB a channel to memory that the system must first
clear: two fifths of the time. Here a few axial planes at a time go through all operations that follow one another, so
that they stay in the processor's cache; what a plane needs of its neighbours is stored for the whole volume. Each
thread works on slabs of its own, since to split every small operation among threads costs more than it gains.
Convolutions of one voxel are matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from crossalign.similarity.windows import Slab
from crossalign.types import Map, Volume

SLAB_VOXELS = 2**18
MOST_THREADS = 8  # more would wait for the interpreter


@contextmanager
def slab_threads() -> Iterator[ThreadPoolExecutor]:
    """Give as many threads as torch has for one operation, each with operations of one thread."""
    count = torch.get_num_threads()
    try:
        # A thread must say so itself: OpenMP stores this for each thread, and would start more in every one of them.
        with ThreadPoolExecutor(min(count, MOST_THREADS), initializer=torch.set_num_threads, initargs=(1,)) as threads:
            yield threads
    finally:
        torch.set_num_threads(count)


@dataclass(frozen=True, eq=False)
class SlabWork:
    """The slabs of a volume, and the threads that work on them."""

    slabs: list[Slab]
    threads: ThreadPoolExecutor

    def each(self, work: Callable[[Slab], None]) -> None:
        """Do it for every slab; gradients are switched off in each thread separately."""
        for _ in self.threads.map(torch.no_grad()(work), self.slabs):
            pass


def pointwise(layer: nn.Conv3d, volume: Map) -> Map:
    """Do a convolution of one voxel."""
    assert layer.bias is not None
    channels = volume[0].flatten(1) if volume.is_contiguous() else volume.movedim(1, -1).flatten(0, -2).T
    rows = torch.addmm(layer.bias[:, None], layer.weight.flatten(1), channels)
    return rows.view(1, -1, *volume.shape[2:])


def pointwise_last(layer: nn.Conv3d, *volumes: Map) -> Map:
    """Do a convolution of one voxel on the channels of all volumes; its own are the last axis in memory."""
    assert layer.bias is not None
    rows, first = layer.bias, 0
    for volume in volumes:
        last = first + volume.shape[1]
        rows = torch.addmm(rows, volume[0].flatten(1).T, layer.weight.flatten(1)[:, first:last].T)
        first = last
    return rows.view(1, *volumes[0].shape[2:], -1).movedim(-1, 1)


def spatial(layer: nn.Conv3d, volume: Map, slab: Slab, wider: Slab) -> Map:
    """Do a convolution of 3^3 voxels on a slab, from planes `wider`, one more on either side where there is.

    Channels are the last axis in memory, before and after. At the volume's ends the border is repeated.
    """
    before, after = int(wider.first == slab.first), int(wider.last == slab.last)
    channels, depth, height, width = volume.shape[1:]
    padded = volume.new_empty((depth + before + after, height + 2, width + 2, channels))
    own = padded[before : before + depth]
    own[:, 1:-1, 1:-1] = volume[0].movedim(0, -1)
    own[:, 0, 1:-1], own[:, -1, 1:-1] = own[:, 1, 1:-1], own[:, -2, 1:-1]
    own[:, :, 0], own[:, :, -1] = own[:, :, 1], own[:, :, -2]
    if before:
        padded[0] = padded[1]
    if after:
        padded[-1] = padded[-2]
    weight = layer.weight.contiguous(memory_format=torch.channels_last_3d)
    return F.conv3d(padded.movedim(-1, 0)[None], weight, layer.bias)


def upsampled(coarse: Map, slab: Slab, like: Volume) -> Map:
    """Interpolate a coarse map to the voxels of a slab, trilinear."""
    depth, size = coarse.shape[2], like.shape[3:]
    along = F.interpolate(torch.eye(depth)[None], size=slab.depth, mode="linear", align_corners=False)[0].T
    rows = along[slab.planes].to(coarse) @ coarse[0].flatten(2)
    planes = rows.view(1, -1, *coarse.shape[3:])
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False).view(1, len(coarse[0]), -1, *size)
