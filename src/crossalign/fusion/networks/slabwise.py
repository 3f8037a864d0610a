"""The compact network on a whole volume, slab by slab: the same result as `DCFBCompact.forward`, several times faster.

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
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.fusion.networks.compact import (
    DCFBCompact,
    RefinementStep,
    SSIMOptimisation,
    initial_estimate,
    local_features,
)
from crossalign.fusion.networks.dcfb import padded_to
from crossalign.fusion.networks.score_gradients import (
    PairStatistics,
    ScoreGradient,
    fused_products,
    gradient_of,
    pair_moments,
    pair_products,
    qabf_derivatives,
    qabf_gradient_from,
    ssim_derivatives,
    ssim_gradient_from,
)
from crossalign.similarity.gradients import sobel
from crossalign.similarity.windows import (
    SSIM_RADIUS_VOXEL,
    Slab,
    adjoint_in_planes,
    adjoint_of_slab,
    clipped_means_of_slab,
    slabs_of,
)
from crossalign.types import Map, Volume

SLAB_VOXELS = 2**18
MOST_THREADS = 8  # more would wait for the interpreter
STATISTICS = (1, 1, 1, 1, 1, 3, 1, 3, 1)  # channels of each of a pair's


@torch.no_grad()
def fuse_by_slabs(model: DCFBCompact, a: Volume, b: Volume, detail: float, slab_voxels: int = SLAB_VOXELS) -> Volume:
    """Fuse two volumes (1, 1, z, y, x) in [0, 1]; agrees with `model(a, b, detail)` but for rounding.

    `slab_voxels` is about how many voxels are processed at once. Raises InputError for a batch of several and for the
    network in the plane.
    """
    if len(a) != 1 or model.planar:
        raise InputError(f"one pair at a time is fused slab by slab, in 3-D, got {len(a)} and planar {model.planar}")
    condition = 2 * torch.full((1, 1), detail, device=a.device) - 1
    z, y, x = a.shape[2:]
    a, b = (padded_to(volume, (model.settings.multiple,) * 3).contiguous() for volume in (a, b))
    with _threads() as threads:
        fused = _SlabwiseRun(model, a, b, condition, slabs_of(a.shape[2:], slab_voxels), threads).fused()
    return fused[:, :, :z, :y, :x]


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Give as many threads as torch has for one operation, each with operations of one thread."""
    count = torch.get_num_threads()
    try:
        # A thread must say so itself: OpenMP stores this for each thread, and would start more in every one of them.
        with ThreadPoolExecutor(min(count, MOST_THREADS), initializer=torch.set_num_threads, initargs=(1,)) as threads:
            yield threads
    finally:
        torch.set_num_threads(count)


@dataclass(frozen=True, eq=False)
class _State:
    """Input of a refinement: the fused volume, what it was one step before, the hidden features, the statistics."""

    fused: Volume
    before: Volume
    hidden: Map
    pair: PairStatistics


class _SlabwiseRun:
    """One pair's run through the network."""

    def __init__(
        self,
        model: DCFBCompact,
        a: Volume,
        b: Volume,
        condition: Tensor,
        slabs: list[Slab],
        threads: ThreadPoolExecutor,
    ) -> None:
        self.model, self.a, self.b, self.condition = model, a, b, condition
        self.slabs, self.threads = slabs, threads
        self.by_ssim = self._empty(5)  # derivatives of structural similarity, distributed within the planes
        self.by_qabf = self._empty(4)  # derivatives of Qabf

    def fused(self) -> Volume:
        """Run all parts of the network."""
        # On one thread: a sixth of the time, but with a thread too many for the machine's free cores its many small
        # operations, each split anew, took ten times as long.
        context = self.threads.submit(torch.no_grad()(self.model.coarse_context), self.a, self.b).result()
        state = self._ssim_steps(self.model.ssim_steps, self._initial(context))
        for refinement in self.model.refinements:
            assert isinstance(refinement, RefinementStep)
            state = self._refinement(refinement, state)
        return state.fused

    def _each(self, work: Callable[[Slab], None]) -> None:
        """Do it for every slab; gradients are switched off in each thread separately."""
        for _ in self.threads.map(torch.no_grad()(work), self.slabs):
            pass

    def _empty(self, channels: int) -> Map:
        return self.a.new_empty((1, channels, *self.a.shape[2:]))

    def _initial(self, context: Map) -> _State:
        """Compute the statistics of the pair, the hidden features and the initial estimate."""
        model = self.model
        hidden, initial = self._empty(model.settings.hidden), self._empty(1)
        stored = [self._empty(channels) for channels in STATISTICS]
        statistics = PairStatistics.of_tensors(self.a, self.b, stored)
        scale, shift = model.modulation(self.condition)[:, :, None, None, None].chunk(2, dim=1)

        def fill(slab: Slab) -> None:
            wider = slab.widened(1)
            pair = self._statistics(wider)
            for whole, part in zip(stored, pair.tensors(), strict=True):
                whole[:, :, slab.planes] = part[:, :, slab.inside(wider)]
            condition = self.condition[:, :, None, None, None].expand_as(pair.a)
            features = _upsampled(context, wider, self.a), local_features(pair), condition
            mixed = F.gelu(_pointwise_last(model.pointwise, *features))
            hidden[:, :, slab.planes] = own = F.gelu(_spatial(model.spatial, mixed, slab, wider)) * (1 + scale) + shift
            own_pair = statistics.of_planes(slab.planes)
            initial[:, :, slab.planes] = initial_estimate(_pointwise(model.initial, own), own_pair)

        self._each(fill)
        return _State(initial, initial.clone(), hidden, statistics)

    def _statistics(self, slab: Slab) -> PairStatistics:
        """Compute a slab's statistics, the covariance too."""
        near, wide = slab.widened(1), slab.widened(SSIM_RADIUS_VOXEL)
        means = clipped_means_of_slab(pair_products(*(volume[:, :, wide.planes] for volume in (self.a, self.b))), slab)
        gradients = [gradient_of(volume[:, :, near.planes]) for volume in (self.a, self.b)]
        own = slab.inside(near)
        of_a, of_b = ((vectors[:, :, own], length[:, :, own]) for vectors, length in gradients)
        a, b = (volume[:, :, slab.planes] for volume in (self.a, self.b))
        return PairStatistics(a, b, *pair_moments(means), (of_a, of_b))

    def _differentiate_ssim(self, fused: Volume, pair: PairStatistics) -> None:
        """Fill `by_ssim`."""

        def fill(slab: Slab) -> None:
            wide = slab.widened(SSIM_RADIUS_VOXEL).planes
            products = fused_products(fused[:, :, wide], self.a[:, :, wide], self.b[:, :, wide])
            derivatives = ssim_derivatives(clipped_means_of_slab(products, slab), pair.of_planes(slab.planes))
            self.by_ssim[:, :, slab.planes] = adjoint_in_planes(derivatives)

        self._each(fill)

    def _differentiate_qabf(self, fused: Volume, pair: PairStatistics) -> None:
        """Fill `by_qabf`."""

        def fill(slab: Slab) -> None:
            near = slab.widened(1)
            vectors = sobel(fused[:, :, near.planes])[:, :, slab.inside(near)]
            self.by_qabf[:, :, slab.planes] = qabf_derivatives(vectors, pair.of_planes(slab.planes))

        self._each(fill)

    def _ssim_gradient(self, slab: Slab, fused: Volume) -> ScoreGradient:
        """Take a slab's gradient of structural similarity from `by_ssim`."""
        derivatives = adjoint_of_slab(self.by_ssim[:, :, slab.widened(SSIM_RADIUS_VOXEL).planes], slab)
        own = slab.planes
        return ssim_gradient_from(derivatives, fused[:, :, own], self.a[:, :, own], self.b[:, :, own])

    def _ssim_steps(self, steps: SSIMOptimisation, state: _State) -> _State:
        """Optimise from the initial estimate, in place: no step of a slab reads another one's voxels."""
        fused, before = state.fused, state.before
        for number in range(len(steps.size)):
            self._differentiate_ssim(fused, state.pair)

            def step(slab: Slab, number: int = number) -> None:
                own = slab.planes
                now = fused[:, :, own].clone()
                last_step = now - before[:, :, own]
                fused[:, :, own] = steps.step(number, now, last_step, self._ssim_gradient(slab, fused))
                before[:, :, own] = now

            self._each(step)
        return state

    def _refinement(self, refinement: RefinementStep, state: _State) -> _State:
        self._differentiate_ssim(state.fused, state.pair)
        self._differentiate_qabf(state.fused, state.pair)
        after = torch.empty_like(state.fused)

        def refine(slab: Slab) -> None:
            after[:, :, slab.planes] = self._refined(refinement, slab, state)

        self._each(refine)
        return replace(state, fused=after, before=state.fused)

    def _refined(self, refinement: RefinementStep, slab: Slab, state: _State) -> Volume:
        """Refine a slab: the input of the convolution is computed for a plane more on either side."""
        near = slab.widened(1)
        wide = near.widened(1)
        qabf = qabf_gradient_from(self.by_qabf[:, :, wide.planes]).of_planes(near.inside(wide))
        gradients = self._ssim_gradient(near, state.fused), qabf
        now = state.fused[:, :, near.planes]
        last_step = now - state.before[:, :, near.planes]
        features = refinement.features(now, last_step, state.pair.of_planes(near.planes), gradients)
        mixed = F.gelu(_pointwise_last(refinement.pointwise, features, state.hidden[:, :, near.planes]))
        out = _pointwise(refinement.out, F.gelu(_spatial(refinement.spatial, mixed, slab, near)))
        own = slab.inside(near)
        of_own, pair = (gradients[0].of_planes(own), gradients[1].of_planes(own)), state.pair.of_planes(slab.planes)
        return refinement.step(now[:, :, own], last_step[:, :, own], pair, of_own, out, self.condition)


def _pointwise(layer: nn.Conv3d, volume: Map) -> Map:
    """Do a convolution of one voxel."""
    assert layer.bias is not None
    channels = volume[0].flatten(1) if volume.is_contiguous() else volume.movedim(1, -1).flatten(0, -2).T
    rows = torch.addmm(layer.bias[:, None], layer.weight.flatten(1), channels)
    return rows.view(1, -1, *volume.shape[2:])


def _pointwise_last(layer: nn.Conv3d, *volumes: Map) -> Map:
    """Do a convolution of one voxel on the channels of all volumes; its own are the last axis in memory."""
    assert layer.bias is not None
    rows, first = layer.bias, 0
    for volume in volumes:
        last = first + volume.shape[1]
        rows = torch.addmm(rows, volume[0].flatten(1).T, layer.weight.flatten(1)[:, first:last].T)
        first = last
    return rows.view(1, *volumes[0].shape[2:], -1).movedim(-1, 1)


def _spatial(layer: nn.Conv3d, volume: Map, slab: Slab, wider: Slab) -> Map:
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


def _upsampled(coarse: Map, slab: Slab, like: Volume) -> Map:
    """Interpolate a coarse map to the voxels of a slab, trilinear."""
    depth, size = coarse.shape[2], like.shape[3:]
    along = F.interpolate(torch.eye(depth)[None], size=slab.depth, mode="linear", align_corners=False)[0].T
    rows = along[slab.planes].to(coarse) @ coarse[0].flatten(2)
    planes = rows.view(1, -1, *coarse.shape[3:])
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False).view(1, len(coarse[0]), -1, *size)
