"""The compact network on a whole volume, slab by slab: what `DCFBCompact.forward` gives, in a fraction of its time.

Layer by layer over the whole volume, every operation writes some 20 MB a channel to memory that the system must first
clear, and two fifths of the time went there. Here a few axial planes at a time go through all that follows one another,
so that they stay in the processor's cache; what a plane needs of its neighbours is kept for the whole volume. Each
thread works on slabs of its own: sharing every small operation among threads costs more than it brings. Convolutions of
one voxel are matrix products.
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
from crossalign.fusion.networks.compact import Climb, DCFBCompact, Refinement, chosen, described
from crossalign.fusion.networks.dcfb import padded_to
from crossalign.fusion.networks.score_gradients import (
    REACH,
    Ascent,
    Moments,
    PairFacts,
    PairMoments,
    Slab,
    collected,
    moments_of,
    products,
    similarity_parts,
    slab_means,
    slab_spread,
    slope_of,
    spread_in_planes,
    transfer_parts,
    transferred,
)
from crossalign.similarity.gradients import sobel
from crossalign.types import Map, Volume

SLAB_VOXELS = 2**18
MOST_THREADS = 8  # more would wait for the interpreter


@torch.no_grad()
def fuse_by_slabs(model: DCFBCompact, a: Volume, b: Volume, emphasis: float, slab_voxels: int = SLAB_VOXELS) -> Volume:
    """Fuse two volumes (1, 1, z, y, x) in [0, 1]; agrees with `model(a, b, emphasis)` but for rounding.

    `slab_voxels` is about how many voxels are worked on at once. Raises InputError for a batch of several and for the
    network in the plane.
    """
    if len(a) != 1 or model.planar:
        raise InputError(f"one pair at a time is fused slab by slab, in 3-D, got {len(a)} and planar {model.planar}")
    wish = torch.full((1,), emphasis, device=a.device)
    z, y, x = a.shape[2:]
    a, b = (padded_to(volume, (model.settings.multiple,) * 3).contiguous() for volume in (a, b))
    slabs = _slabs(a.shape[2], max(1, slab_voxels // (a.shape[3] * a.shape[4])))
    with _workers() as workers:
        fused = _Run(model, a, b, 2 * wish[:, None] - 1, slabs, workers).fused()
    return fused[:, :, :z, :y, :x]


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Give as many threads as torch has for one operation, each with operations of one thread."""
    threads = torch.get_num_threads()
    try:
        # A thread must say so itself: OpenMP keeps this for each thread, and would start more in every one of them.
        with ThreadPoolExecutor(
            min(threads, MOST_THREADS), initializer=torch.set_num_threads, initargs=(1,)
        ) as workers:
            yield workers
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, eq=False)
class _Facts:
    """Of the whole pair: the volumes, their moments (1, 4, z, y, x: means, variances), slopes and strengths (1, 8)."""

    a: Volume
    b: Volume
    moments: Map
    slopes: Map

    def keep(self, slab: Slab, pair: PairFacts, planes: slice) -> None:
        """Fill in a slab, from the facts of planes of which `planes` are the slab's."""
        a, b = pair.moments.a, pair.moments.b
        self.moments[:, :, slab.planes] = torch.cat((a.mean, b.mean, a.variance, b.variance), dim=1)[:, :, planes]
        slopes = [part for slope in pair.slopes for part in slope]
        self.slopes[:, :, slab.planes] = torch.cat(slopes, dim=1)[:, :, planes]

    def of(self, slab: Slab) -> PairFacts:
        """Return what belongs to a slab; the covariance, which no step asks for, is left out."""
        planes = slab.planes
        mean_a, mean_b, of_a, of_b = self.moments[:, :, planes].chunk(4, dim=1)
        own = self.slopes[:, :, planes]
        moments = PairMoments(Moments(mean_a, of_a), Moments(mean_b, of_b), mean_a.new_zeros(()).expand_as(mean_a))
        slopes = (own[:, :3], own[:, 3:4]), (own[:, 4:7], own[:, 7:])
        return PairFacts(self.a[:, :, planes], self.b[:, :, planes], moments, slopes)


@dataclass(frozen=True, eq=False)
class _Stage:
    """What a refinement begins with: the fused volume, what it was one step before, the hidden features."""

    fused: Volume
    before: Volume
    hidden: Map
    facts: _Facts


class _Run:
    """One pair's way through the network."""

    def __init__(
        self, model: DCFBCompact, a: Volume, b: Volume, wish: Tensor, slabs: list[Slab], workers: ThreadPoolExecutor
    ) -> None:
        self.model, self.a, self.b, self.wish = model, a, b, wish
        self.slabs, self.workers = slabs, workers
        self.parts = self._empty(5)  # of structural similarity, given back within the planes
        self.turns = self._empty(4)  # of the gradients kept

    def fused(self) -> Volume:
        """Run all parts of the network."""
        # In a worker, so on one thread: a sixth of the time, but with a thread too many for the machine's free cores
        # its many small operations, each shared out anew, took ten times as long.
        context = self.workers.submit(torch.no_grad()(self.model.coarse_context), self.a, self.b).result()
        stage = self._climbed(self.model.climb, self._begun(context))
        for refinement in self.model.refinements:
            assert isinstance(refinement, Refinement)
            stage = self._after(refinement, stage)
        return stage.fused

    def _each(self, work: Callable[[Slab], None]) -> None:
        """Do it for every slab; gradients are switched off in each thread by itself."""
        for _ in self.workers.map(torch.no_grad()(work), self.slabs):
            pass

    def _empty(self, channels: int) -> Map:
        return self.a.new_empty((1, channels, *self.a.shape[2:]))

    def _begun(self, context: Map) -> _Stage:
        """Gather the facts of the pair, the hidden features and the first guess."""
        model = self.model
        hidden, first = self._empty(model.settings.hidden), self._empty(1)
        facts = _Facts(self.a, self.b, self._empty(4), self._empty(8))
        scale, shift = model.tune(self.wish)[:, :, None, None, None].chunk(2, dim=1)

        def begin(slab: Slab) -> None:
            near, own = slab.widened(1), slab.planes
            pair = self._pair(near)
            facts.keep(slab, pair, slab.inside(near))
            told = _upsampled(context, near, self.a), described(pair), self._in_words(near)
            around = _around(model.around, F.gelu(_mixed_last(model.mix, *told)), slab, near)
            features = F.gelu(around) * (1 + scale) + shift
            hidden[:, :, own] = features
            first[:, :, own] = chosen(_mixed(model.choose, features), facts.of(slab))

        self._each(begin)
        return _Stage(first, first.clone(), hidden, facts)

    def _pair(self, slab: Slab) -> PairFacts:
        """Work out a slab's facts, the covariance too."""
        near, wide = slab.widened(1), slab.widened(REACH)
        a, b = (volume[:, :, wide.planes] for volume in (self.a, self.b))
        moments = moments_of(slab_means(torch.cat((a, b, a * a, b * b, a * b), dim=1), slab))
        slopes = [slope_of(volume[:, :, near.planes]) for volume in (self.a, self.b)]
        inside = slab.inside(near)
        first, second = ((slope[:, :, inside], strength[:, :, inside]) for slope, strength in slopes)
        return PairFacts(self.a[:, :, slab.planes], self.b[:, :, slab.planes], moments, (first, second))

    def _in_words(self, slab: Slab) -> Map:
        return self.wish[:, :, None, None, None].expand(-1, -1, slab.last - slab.first, *self.a.shape[3:])

    def _similarity(self, fused: Volume, facts: _Facts) -> None:
        """Fill `parts`."""

        def fill(slab: Slab) -> None:
            wide = slab.widened(REACH).planes
            sums = slab_means(products(fused[:, :, wide], self.a[:, :, wide], self.b[:, :, wide]), slab)
            self.parts[:, :, slab.planes] = spread_in_planes(similarity_parts(sums, facts.of(slab).moments))

        self._each(fill)

    def _transfer(self, fused: Volume, facts: _Facts) -> None:
        """Fill `turns`."""

        def fill(slab: Slab) -> None:
            near = slab.widened(1)
            slope = sobel(fused[:, :, near.planes])[:, :, slab.inside(near)]
            self.turns[:, :, slab.planes] = transfer_parts(slope, facts.of(slab).slopes)

        self._each(fill)

    def _ascent(self, slab: Slab, fused: Volume) -> Ascent:
        """Take a slab's ascent in structural similarity from `parts`."""
        back = slab_spread(self.parts[:, :, slab.widened(REACH).planes], slab)
        own = slab.planes
        return collected(back, fused[:, :, own], self.a[:, :, own], self.b[:, :, own])

    def _climbed(self, climb: Climb, stage: _Stage) -> _Stage:
        """Climb from the first guess, in place: no step of a slab looks at another one's voxels."""
        fused, before = stage.fused, stage.before
        for number in range(len(climb.length)):
            self._similarity(fused, stage.facts)

            def step(slab: Slab, number: int = number) -> None:
                own = slab.planes
                now = fused[:, :, own].clone()
                moved = now - before[:, :, own]
                fused[:, :, own] = climb.step(number, now, moved, self._ascent(slab, fused))
                before[:, :, own] = now

            self._each(step)
        return stage

    def _after(self, refinement: Refinement, stage: _Stage) -> _Stage:
        self._similarity(stage.fused, stage.facts)
        self._transfer(stage.fused, stage.facts)
        after = torch.empty_like(stage.fused)

        def refine(slab: Slab) -> None:
            after[:, :, slab.planes] = self._refined(refinement, slab, stage)

        self._each(refine)
        return replace(stage, fused=after, before=stage.fused)

    def _refined(self, refinement: Refinement, slab: Slab, stage: _Stage) -> Volume:
        """Refine a slab: what the convolution sees is worked out for a plane more on either side."""
        near = slab.widened(1)
        wide = near.widened(1)
        ascents = self._ascent(near, stage.fused), _cut(transferred(self.turns[:, :, wide.planes]), near.inside(wide))
        now = stage.fused[:, :, near.planes]
        moved = now - stage.before[:, :, near.planes]
        told = refinement.told(now, moved, stage.facts.of(near), ascents)
        mixed = F.gelu(_mixed_last(refinement.mix, told, stage.hidden[:, :, near.planes]))
        out = _mixed(refinement.out, F.gelu(_around(refinement.around, mixed, slab, near)))
        own = slab.inside(near)
        cut = _cut(ascents[0], own), _cut(ascents[1], own)
        return refinement.gone(now[:, :, own], moved[:, :, own], stage.facts.of(slab), cut, out, self.wish)


def _cut(ascent: Ascent, planes: slice) -> Ascent:
    return Ascent(ascent.gradient[:, :, planes], ascent.curvature[:, :, planes])


def _slabs(depth: int, planes: int) -> list[Slab]:
    return [Slab(first, min(depth, first + planes), depth) for first in range(0, depth, planes)]


def _mixed(layer: nn.Conv3d, volume: Map) -> Map:
    """Do a convolution of one voxel."""
    assert layer.bias is not None
    channels = volume[0].flatten(1) if volume.is_contiguous() else volume.movedim(1, -1).flatten(0, -2).T
    rows = torch.addmm(layer.bias[:, None], layer.weight.flatten(1), channels)
    return rows.view(1, -1, *volume.shape[2:])


def _mixed_last(layer: nn.Conv3d, *volumes: Map) -> Map:
    """Do a convolution of one voxel on all channels of the volumes; those that come lie side by side in memory."""
    assert layer.bias is not None
    rows, first = layer.bias, 0
    for volume in volumes:
        last = first + volume.shape[1]
        rows = torch.addmm(rows, volume[0].flatten(1).T, layer.weight.flatten(1)[:, first:last].T)
        first = last
    return rows.view(1, *volumes[0].shape[2:], -1).movedim(-1, 1)


def _around(layer: nn.Conv3d, near: Map, slab: Slab, of: Slab) -> Map:
    """Do a convolution of 3^3 voxels on a slab; `near` are the planes `of`, one more on either side where there is.

    Channels lie side by side, before and after. At the volume's ends the border is repeated.
    """
    before, after = int(of.first == slab.first), int(of.last == slab.last)
    channels, depth, height, width = near.shape[1:]
    padded = near.new_empty((depth + before + after, height + 2, width + 2, channels))
    own = padded[before : before + depth]
    own[:, 1:-1, 1:-1] = near[0].movedim(0, -1)
    own[:, 0, 1:-1], own[:, -1, 1:-1] = own[:, 1, 1:-1], own[:, -2, 1:-1]
    own[:, :, 0], own[:, :, -1] = own[:, :, 1], own[:, :, -2]
    if before:
        padded[0] = padded[1]
    if after:
        padded[-1] = padded[-2]
    weight = layer.weight.contiguous(memory_format=torch.channels_last_3d)
    return F.conv3d(padded.movedim(-1, 0)[None], weight, layer.bias)


def _upsampled(coarse: Map, slab: Slab, like: Volume) -> Map:
    """Bring a coarse map to the voxels of a slab, trilinear."""
    depth, size = coarse.shape[2], like.shape[3:]
    along = F.interpolate(torch.eye(depth)[None], size=slab.depth, mode="linear", align_corners=False)[0].T
    rows = along[slab.planes].to(coarse) @ coarse[0].flatten(2)
    planes = rows.view(1, -1, *coarse.shape[3:])
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False).view(1, len(coarse[0]), -1, *size)
