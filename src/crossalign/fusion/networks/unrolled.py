"""An unrolled optimiser of the scores that a fusion is judged by: structural similarity to both inputs, and Qabf.

It has no weights and learned nothing. From the plain average it takes steps along gradients that are written out by
hand, with constants that were set by hand: first along that of structural similarity, then along that of both scores.
The other form begins at the geometric mean of both inputs' local means, nearer to the PET, with their details.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from crossalign.fusion.networks.score_gradients import (
    PairStatistics,
    ScoreGradient,
    fused_products,
    gradient_of,
    joint_step,
    pair_moments,
    pair_products,
    pair_statistics,
    qabf_derivatives,
    qabf_gradient,
    qabf_gradient_from,
    ssim_derivatives,
    ssim_gradient,
    ssim_gradient_from,
)
from crossalign.fusion.networks.slab_layers import SLAB_VOXELS, SlabWork, slab_threads
from crossalign.similarity.gradients import sobel
from crossalign.similarity.windows import (
    SSIM_RADIUS_VOXEL,
    Slab,
    adjoint_in_planes,
    adjoint_of_slab,
    clipped_means,
    clipped_means_of_slab,
    slabs_of,
)
from crossalign.types import Map, Volume

SSIM_STEPS, JOINT_STEPS = 6, 6
# From the geometric mean: its steps, the weight of the first input, what is added to both local means before their
# logarithms, the fraction of each input's details, and the detail that the steps take at least.
SALIENT_STEPS, WEIGHT_A, LEVEL_FLOOR = 12, 0.17, 0.01
DETAIL_A, DETAIL_B, LEAST_DETAIL = 0.8, 0.9, 0.4
SSIM_SIZE = 1.5  # of a step: a fraction of the gradient over its curvature's bound
MOMENTUM = 0.5  # fraction of the last step that is added to each
STEP_LIMIT = 0.25
QABF_LOG, QABF_SLOPE = -1.95, 1.45  # logarithm of Qabf's weight: 0.03 balanced, 0.6 detail
STATISTICS = (1, 1, 1, 1, 1, 3, 1, 3, 1)  # channels of each of a pair's


@torch.no_grad()
def optimise_scores(a: Volume, b: Volume, detail: float) -> Volume:
    """Fuse volumes (b, 1, z, y, x) in [0, 1]; `detail` goes from 0 (balanced) to 1 (detail)."""
    pair, fused = pair_statistics(a, b), (a + b) / 2
    last_step = torch.zeros_like(fused)
    for number in range(SSIM_STEPS + JOINT_STEPS):
        gradients = ssim_gradient(fused, pair), qabf_gradient(fused, pair) if number >= SSIM_STEPS else None
        after = _stepped(fused, last_step, *gradients, detail)
        fused, last_step = after, after - fused
    return fused


@torch.no_grad()
def optimise_scores_by_slabs(a: Volume, b: Volume, detail: float, slab_voxels: int = SLAB_VOXELS) -> Volume:
    """Do the same on one pair (1, 1, z, y, x), slab by slab: several times faster, and equal but for rounding."""
    with slab_threads() as threads:
        run = _SlabwiseRun(a.contiguous(), b.contiguous(), SlabWork(slabs_of(a.shape[2:], slab_voxels), threads))
        return run.fused(detail)


def geometric_start(a: Volume, b: Volume) -> Volume:
    """Weighted geometric mean of two volumes' local means, and most of both volumes' details; (b, 1, z, y, x).

    SSIM compares local means by their ratio: a geometric mean is as similar to the bright input as to the dark one.
    What is dark in the first input but takes up more than its surroundings in the second stands above them.
    """
    mean_a, mean_b = (clipped_means(volume) for volume in (a, b))
    log_a, log_b = (torch.log(mean.clamp(min=0) + LEVEL_FLOOR) for mean in (mean_a, mean_b))
    level = torch.exp(WEIGHT_A * log_a + (1 - WEIGHT_A) * log_b) - LEVEL_FLOOR
    return (level + DETAIL_A * (a - mean_a) + DETAIL_B * (b - mean_b)).clamp(0, 1)


@torch.no_grad()
def optimise_from_geometric_mean(a: Volume, b: Volume, detail: float) -> Volume:
    """Take steps along the gradients of both scores from `geometric_start`; as `optimise_scores` otherwise."""
    pair, fused = pair_statistics(a, b), geometric_start(a, b)
    last_step = torch.zeros_like(fused)
    for _ in range(SALIENT_STEPS):
        gradients = ssim_gradient(fused, pair), qabf_gradient(fused, pair)
        after = _stepped(fused, last_step, *gradients, _at_least(detail))
        fused, last_step = after, after - fused
    return fused


@torch.no_grad()
def optimise_from_geometric_mean_by_slabs(
    a: Volume, b: Volume, detail: float, slab_voxels: int = SLAB_VOXELS
) -> Volume:
    """Do the same on one pair (1, 1, z, y, x), slab by slab: equal but for rounding."""
    with slab_threads() as threads:
        run = _SlabwiseRun(a.contiguous(), b.contiguous(), SlabWork(slabs_of(a.shape[2:], slab_voxels), threads))
        return run.from_geometric_mean(detail)


def _at_least(detail: float) -> float:
    """Return the detail of the steps from the geometric mean."""
    return LEAST_DETAIL + (1 - LEAST_DETAIL) * detail


def qabf_weight(detail: float) -> float:
    """Return the weight of Qabf beside structural similarity."""
    return math.exp(QABF_LOG + QABF_SLOPE * (2 * detail - 1))


def _stepped(
    fused: Volume, last_step: Volume, ssim: ScoreGradient, qabf: ScoreGradient | None, detail: float
) -> Volume:
    """Take one step, along the gradient of structural similarity, or of both scores."""
    if qabf is None:
        step = SSIM_SIZE * _limited(ssim.gradient / ssim.curvature)
    else:
        step = _limited(joint_step(ssim, qabf, qabf_weight(detail)))
    return (fused + step + MOMENTUM * last_step).clamp(0, 1)


def _limited(step: Volume) -> Volume:
    """Limit a step to a quarter of the range."""
    return step.clamp(-STEP_LIMIT, STEP_LIMIT)


@dataclass(frozen=True, eq=False)
class _State:
    """The fused volume, what it was one step before, and the statistics of the pair."""

    fused: Volume
    before: Volume
    pair: PairStatistics


class _SlabwiseRun:
    """One pair's optimisation."""

    def __init__(self, a: Volume, b: Volume, work: SlabWork) -> None:
        self.a, self.b, self.work = a, b, work
        self.by_ssim = self._empty(5)  # derivatives of structural similarity, distributed within the planes
        self.by_qabf = self._empty(4)  # derivatives of Qabf

    def fused(self, detail: float) -> Volume:
        """Take all steps."""
        state = self._initial((self.a + self.b) / 2)
        for _ in range(SSIM_STEPS):
            self._take_ssim_step(state)
        for _ in range(JOINT_STEPS):
            state = self._joint_step(state, detail)
        return state.fused

    def from_geometric_mean(self, detail: float) -> Volume:
        """Take the steps from the geometric mean."""
        state = self._initial(self._geometric_start())
        for _ in range(SALIENT_STEPS):
            state = self._joint_step(state, _at_least(detail))
        return state.fused

    def _geometric_start(self) -> Volume:
        start = torch.empty_like(self.a)

        def fill(slab: Slab) -> None:
            wide = slab.widened(SSIM_RADIUS_VOXEL)
            near = (volume[:, :, wide.planes].contiguous() for volume in (self.a, self.b))
            start[:, :, slab.planes] = geometric_start(*near)[:, :, slab.inside(wide)]

        self.work.each(fill)
        return start

    def _empty(self, channels: int) -> Map:
        return self.a.new_empty((1, channels, *self.a.shape[2:]))

    def _initial(self, fused: Volume) -> _State:
        """Compute the statistics of the pair; begin at a fused volume."""
        stored = [self._empty(channels) for channels in STATISTICS]

        def fill(slab: Slab) -> None:
            for whole, part in zip(stored, self._statistics(slab).tensors(), strict=True):
                whole[:, :, slab.planes] = part

        self.work.each(fill)
        return _State(fused, fused.clone(), PairStatistics.of_tensors(self.a, self.b, stored))

    def _statistics(self, slab: Slab) -> PairStatistics:
        """Compute a slab's statistics, the covariance too."""
        near, wide = slab.widened(1), slab.widened(SSIM_RADIUS_VOXEL)
        means = clipped_means_of_slab(pair_products(*(volume[:, :, wide.planes] for volume in (self.a, self.b))), slab)
        gradients = [gradient_of(volume[:, :, near.planes]) for volume in (self.a, self.b)]
        own = slab.inside(near)
        of_a, of_b = ((vectors[:, :, own], length[:, :, own]) for vectors, length in gradients)
        a, b = (volume[:, :, slab.planes] for volume in (self.a, self.b))
        return PairStatistics(a, b, *pair_moments(means), (of_a, of_b))

    def _differentiate_ssim(self, state: _State) -> None:
        """Fill `by_ssim`."""

        def fill(slab: Slab) -> None:
            wide = slab.widened(SSIM_RADIUS_VOXEL).planes
            products = fused_products(state.fused[:, :, wide], self.a[:, :, wide], self.b[:, :, wide])
            derivatives = ssim_derivatives(clipped_means_of_slab(products, slab), state.pair.of_planes(slab.planes))
            self.by_ssim[:, :, slab.planes] = adjoint_in_planes(derivatives)

        self.work.each(fill)

    def _differentiate_qabf(self, state: _State) -> None:
        """Fill `by_qabf`."""

        def fill(slab: Slab) -> None:
            near = slab.widened(1)
            vectors = sobel(state.fused[:, :, near.planes])[:, :, slab.inside(near)]
            self.by_qabf[:, :, slab.planes] = qabf_derivatives(vectors, state.pair.of_planes(slab.planes))

        self.work.each(fill)

    def _ssim_gradient(self, slab: Slab, fused: Volume) -> ScoreGradient:
        """Take a slab's gradient of structural similarity from `by_ssim`."""
        derivatives = adjoint_of_slab(self.by_ssim[:, :, slab.widened(SSIM_RADIUS_VOXEL).planes], slab)
        own = slab.planes
        return ssim_gradient_from(derivatives, fused[:, :, own], self.a[:, :, own], self.b[:, :, own])

    def _qabf_gradient(self, slab: Slab) -> ScoreGradient:
        """Take a slab's gradient of Qabf from `by_qabf`."""
        wide = slab.widened(1)
        return qabf_gradient_from(self.by_qabf[:, :, wide.planes]).of_planes(slab.inside(wide))

    def _take_ssim_step(self, state: _State) -> None:
        """Take a step in place: no step of a slab reads another one's voxels."""
        self._differentiate_ssim(state)

        def step(slab: Slab) -> None:
            own = slab.planes
            now = state.fused[:, :, own].clone()
            last_step = now - state.before[:, :, own]
            state.fused[:, :, own] = _stepped(now, last_step, self._ssim_gradient(slab, state.fused), None, 0.0)
            state.before[:, :, own] = now

        self.work.each(step)

    def _joint_step(self, state: _State, detail: float) -> _State:
        """Take a step along the gradients of both scores."""
        self._differentiate_ssim(state)
        self._differentiate_qabf(state)
        after = torch.empty_like(state.fused)

        def step(slab: Slab) -> None:
            own = slab.planes
            now = state.fused[:, :, own]
            gradients = self._ssim_gradient(slab, state.fused), self._qabf_gradient(slab)
            after[:, :, own] = _stepped(now, now - state.before[:, :, own], *gradients, detail)

        self.work.each(step)
        return replace(state, fused=after, before=state.fused)
