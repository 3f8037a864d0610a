"""An unrolled optimiser of the scores that a fusion is judged by: structural similarity to both inputs, and Qabf.

It has no weights and learned nothing. It takes steps along gradients that are written out by hand, with constants that
were set by hand, from the plain average, or from the geometric mean of both inputs' local means, nearer to the PET,
with their details. `improve_scores` takes such steps from any volume, with weights for each voxel, and can be
differentiated: the compact network predicts where they begin and their weights, and is trained through them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from crossalign.fusion.networks.mixture import geometric_mixture
from crossalign.fusion.networks.score_gradients import (
    PairStatistics,
    ScoreGradient,
    joint_step,
    pair_statistics,
    qabf_gradient,
    ssim_gradient,
)
from crossalign.similarity.windows import clipped_means
from crossalign.types import Map, Volume

WEIGHT_A, GAIN_A, GAIN_B = 0.17, 0.8, 0.9  # of the geometric mean: the first input's weight, both inputs' details
Detail = TypeVar("Detail", float, Tensor)

SSIM_SIZE = 1.5  # of a step: a fraction of the gradient over its curvature's bound
MOMENTUM = 0.5  # fraction of the last step that is added to each
STEP_LIMIT = 0.25
QABF_LOG, QABF_SLOPE = -1.95, 1.45  # logarithm of Qabf's weight: 0.03 balanced, 0.6 detail


def average(a: Volume, b: Volume) -> Volume:
    """Mean of two volumes (b, 1, z, y, x)."""
    return (a + b) / 2


def geometric_start(a: Volume, b: Volume) -> Volume:
    """Weighted geometric mean of two volumes' local means, and most of both volumes' details; (b, 1, z, y, x).

    What is dark in the first input but takes up more than its surroundings in the second stands above them.
    """
    means = clipped_means(a), clipped_means(b)
    return geometric_mixture((a, b), means, WEIGHT_A, (GAIN_A, GAIN_B))


@dataclass(frozen=True)
class Schedule:
    """Where the optimiser begins, and its steps: towards structural similarity, then towards that and Qabf.

    `least_detail` is how much detail the steps take where 0 is asked for.
    """

    start: Callable[[Volume, Volume], Volume]
    ssim_steps: int
    joint_steps: int
    least_detail: float = 0.0

    def detail(self, wanted: Detail) -> Detail:
        """Return the detail of the steps for that which is wanted, 0 to 1."""
        return self.least_detail + (1 - self.least_detail) * wanted


FROM_AVERAGE = Schedule(average, 6, 6)
FROM_GEOMETRIC_MEAN = Schedule(geometric_start, 0, 24, least_detail=0.4)


@dataclass(frozen=True, eq=False)
class StepWeights:
    """Of steps, one number or one for each voxel (b, 1, z, y, x): Qabf's weight, over 0, and the fraction to take."""

    qabf: Map | float
    fraction: Map | float = 1.0

    def of_planes(self, planes: slice) -> StepWeights:
        """Take these planes alone."""
        parts = (value[:, :, planes] if isinstance(value, Tensor) else value for value in (self.qabf, self.fraction))
        return StepWeights(*parts)


NO_QABF = StepWeights(0.0)


def qabf_log_weight(detail: Tensor | float) -> Tensor:
    """Return the logarithm of the weight of Qabf beside structural similarity."""
    return QABF_LOG + QABF_SLOPE * (2 * torch.as_tensor(detail) - 1)


@torch.no_grad()
def optimise_scores(a: Volume, b: Volume, detail: float, schedule: Schedule = FROM_AVERAGE) -> Volume:
    """Fuse volumes (b, 1, z, y, x) in [0, 1]; `detail` goes from 0 (balanced) to 1 (detail)."""
    pair, fused = pair_statistics(a, b), schedule.start(a, b)
    last_step = torch.zeros_like(fused)
    for _ in range(schedule.ssim_steps):
        after = stepped(fused, last_step, ssim_gradient(fused, pair), None, NO_QABF)
        fused, last_step = after, after - fused
    return _improved(fused, last_step, pair, step_weights(schedule, detail), schedule.joint_steps)


def improve_scores(
    fused: Volume, pair: PairStatistics, weights: StepWeights, steps: int, limit_gradient: bool = False
) -> Volume:
    """Take steps towards both scores from a fused volume (b, 1, z, y, x); gradients go through them, limited or not."""
    limit = GradientLimit() if limit_gradient else None
    with torch.autocast(fused.device.type, enabled=False):
        return _improved(fused, torch.zeros_like(fused), pair, weights, steps, limit)


def step_weights(schedule: Schedule, detail: float) -> StepWeights:
    """Return the weights of a schedule's steps."""
    return StepWeights(float(torch.exp(qabf_log_weight(schedule.detail(detail)))))


def _improved(
    fused: Volume,
    last_step: Volume,
    pair: PairStatistics,
    weights: StepWeights,
    steps: int,
    limit: GradientLimit | None = None,
) -> Volume:
    for _ in range(steps):
        fused, last_step = score_step(fused, last_step, pair, weights)
        if limit is not None and fused.requires_grad:
            fused.register_hook(limit)  # type: ignore[no-untyped-call]
    return fused


class GradientLimit:
    """Limits the loss's gradient with respect to the volume after each step, while it is passed back through them.

    No voxel's is larger than the largest with respect to the last volume, of each of the batch. Where two gradients are
    parallel a step's own derivative has a kink, and products of such derivatives over many steps grow without bound.
    """

    def __init__(self) -> None:
        self._largest: Tensor | None = None

    def __call__(self, gradient: Volume) -> Volume:
        """Return the gradient, limited; the first one is that of the last volume, and is kept."""
        if self._largest is None:
            self._largest = gradient.abs().amax(dim=(1, 2, 3, 4), keepdim=True)
            return gradient
        return torch.minimum(torch.maximum(gradient, -self._largest), self._largest)


def score_step(fused: Volume, last_step: Volume, pair: PairStatistics, weights: StepWeights) -> tuple[Volume, Volume]:
    """Take one step towards both scores; return what it leads to, and the step."""
    after = stepped(fused, last_step, ssim_gradient(fused, pair), qabf_gradient(fused, pair), weights)
    return after, after - fused


def stepped(
    fused: Volume, last_step: Volume, ssim: ScoreGradient, qabf: ScoreGradient | None, weights: StepWeights
) -> Volume:
    """Take one step, along the gradient of structural similarity, or of both scores."""
    if qabf is None:
        step = SSIM_SIZE * _limited(ssim.gradient / ssim.curvature)
    else:
        step = weights.fraction * _limited(joint_step(ssim, qabf, weights.qabf))
    return (fused + step + MOMENTUM * last_step).clamp(0, 1)


def _limited(step: Volume) -> Volume:
    """Limit a step to a quarter of the range."""
    return step.clamp(-STEP_LIMIT, STEP_LIMIT)
