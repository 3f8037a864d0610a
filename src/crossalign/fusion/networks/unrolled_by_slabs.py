"""The unrolled optimiser on one pair, a few axial planes at a time: as `unrolled`, several times faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

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
from crossalign.fusion.networks.slab_layers import SLAB_VOXELS, SlabWork, slab_threads
from crossalign.fusion.networks.unrolled import (
    FROM_AVERAGE,
    NO_QABF,
    Schedule,
    StepWeights,
    step_weights,
    stepped,
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

STATISTICS = (1, 1, 1, 1, 1, 3, 1, 3, 1)  # channels of each of a pair's


@torch.no_grad()
def optimise_scores_by_slabs(
    a: Volume, b: Volume, detail: float, schedule: Schedule = FROM_AVERAGE, slab_voxels: int = SLAB_VOXELS
) -> Volume:
    """Do as `optimise_scores` on one pair (1, 1, z, y, x): equal but for rounding."""
    with slab_threads() as threads:
        run = _SlabwiseRun(a.contiguous(), b.contiguous(), SlabWork(slabs_of(a.shape[2:], slab_voxels), threads))
        weights = step_weights(schedule, detail)
        return run.improved(run.start(schedule.start), weights, schedule.joint_steps, schedule.ssim_steps)


@torch.no_grad()
def improve_scores_by_slabs(
    fused: Volume, pair: tuple[Volume, Volume], weights: StepWeights, steps: int, slab_voxels: int = SLAB_VOXELS
) -> Volume:
    """Do as `improve_scores` for one pair (1, 1, z, y, x), without gradients: equal but for rounding."""
    a, b = (volume.contiguous() for volume in pair)
    with slab_threads() as threads:
        run = _SlabwiseRun(a, b, SlabWork(slabs_of(a.shape[2:], slab_voxels), threads))
        return run.improved(fused.contiguous(), weights, steps)


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

    def start(self, start: Callable[[Volume, Volume], Volume]) -> Volume:
        """Compute where a schedule begins."""
        begun = torch.empty_like(self.a)

        def fill(slab: Slab) -> None:
            wide = slab.widened(SSIM_RADIUS_VOXEL)
            near = (volume[:, :, wide.planes].contiguous() for volume in (self.a, self.b))
            begun[:, :, slab.planes] = start(*near)[:, :, slab.inside(wide)]

        self.work.each(fill)
        return begun

    def improved(self, fused: Volume, weights: StepWeights, joint_steps: int, ssim_steps: int = 0) -> Volume:
        """Take steps towards structural similarity, then towards both scores; the first kind writes over `fused`."""
        state = self._initial(fused)
        for _ in range(ssim_steps):
            self._take_ssim_step(state)
        for _ in range(joint_steps):
            state = self._joint_step(state, weights)
        return state.fused

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
            state.fused[:, :, own] = stepped(now, last_step, self._ssim_gradient(slab, state.fused), None, NO_QABF)
            state.before[:, :, own] = now

        self.work.each(step)

    def _joint_step(self, state: _State, weights: StepWeights) -> _State:
        """Take a step along the gradients of both scores."""
        self._differentiate_ssim(state)
        self._differentiate_qabf(state)
        after = torch.empty_like(state.fused)

        def step(slab: Slab) -> None:
            own = slab.planes
            now = state.fused[:, :, own]
            gradients = self._ssim_gradient(slab, state.fused), self._qabf_gradient(slab)
            last_step, own_weights = now - state.before[:, :, own], weights.of_planes(own)
            after[:, :, own] = stepped(now, last_step, *gradients, own_weights)

        self.work.each(step)
        return replace(state, fused=after, before=state.fused)
