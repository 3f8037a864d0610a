"""What is exported of each kind of network: a module from tensors to tensors, with names for both.

Resampling stays outside: whoever runs the file cuts the crops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossalign.export.closed_form import fit_by_quaternion, motion_of
from crossalign.fusion.networks.compact import DCFBCompact
from crossalign.fusion.networks.score_gradients import PairStatistics
from crossalign.fusion.networks.unrolled import StepWeights, improve_scores, score_step
from crossalign.geometry.fit import MatchMoments
from crossalign.networks.correspondence import Fit, Matching
from crossalign.networks.match_evidence import ShowsMatching
from crossalign.networks.recognition import CHANNELS
from crossalign.types import Shape

BATCH = "batch"
CHECKED_STEPS = 2
Size = tuple[int | str, ...]  # of a tensor; BATCH where it is dynamic
Tensors = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Steps:
    """A module that is applied `count` times, to two tensors that it returns anew, and to others that stay the same.

    The first of both is the result, a volume (batch, 1, *shape) at last. After `checked` steps it is compared.
    """

    module: nn.Module
    count: int
    shape: Shape

    @property
    def checked(self) -> int:
        """The first few steps: many amplify rounding in single voxels."""
        return min(self.count, CHECKED_STEPS)


@dataclass(frozen=True, eq=False)
class Graph:
    """A module to export, in eval mode, the sizes of its inputs, the names of its outputs, and what they must equal.

    `reference` computes the outputs as the package does, `draw` makes fresh inputs of a batch of so many. With `steps`
    the module's outputs are where they begin, and the reference's what the first of them lead to.
    """

    module: nn.Module
    inputs: Mapping[str, Size]
    outputs: tuple[str, ...]
    reference: Callable[..., Tensors]
    draw: Callable[[int, torch.Generator], Tensors]
    steps: Steps | None = None


class RegressionGraph(nn.Module):
    """A network that regresses six parameters from two crops."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensors:
        """Return the parameters (b, 6)."""
        return (self.network(fixed, moving),)


class MatchingGraph(nn.Module):
    """A network that matches tokens of two crops, with the closed-form fit of its matches.

    `attraction_mm2` (b, 3, 3) is added to the covariance of the matches: the identity where nothing is known of the
    rotation, or what a rotation prior makes (`registration.pose_prior`).
    """

    def __init__(self, network: nn.Module, fit: Fit | None = None) -> None:
        super().__init__()
        self.network, self.fit = network, fit

    def forward(self, fixed: Tensor, moving: Tensor, attraction_mm2: Tensor) -> Tensors:
        """Return parameters (b, 6), expected SRE (b,), residual (b,), matches (b, n, 3), weights, both structures."""
        network = self.network
        assert isinstance(network, ShowsMatching)
        found = network.match(fixed, moving) if self.fit is None else network.match(fixed, moving, self.fit)  # type: ignore[call-arg]
        moments = MatchMoments.of(found.positions_mm, found.matches_mm, found.weight)
        motion = moments.fit(attraction_mm2) if self.fit is None else motion_of(moments, attraction_mm2)
        return (
            motion.to_parameters(torch.zeros(3)),
            network.expected_sre_mm(found),
            fit_residual_mm(found),
            found.matches_mm,
            found.weight,
            found.fixed_structure,
            found.moving_structure,
        )


def fit_residual_mm(found: Matching) -> Tensor:
    """Return the weighted root mean square distance (b,), mm, that the fit without a prior leaves between matches."""
    squares = (found.motion.apply(found.positions_mm) - found.matches_mm).square().sum(-1)
    return (found.weight * squares).sum(-1).sqrt()


MATCHING_OUTPUTS = (
    "parameters",
    "expected_sre_mm",
    "fit_residual_mm",
    "matches_mm",
    "match_weights",
    "fixed_structure",
    "moving_structure",
)


def registration_graph(network: nn.Module, crop_shape: Shape, moving_channels: int = 1) -> Graph:
    """Return the graph of a registration network: fixed and moving crop (b, 1, z, y, x) to parameters.

    The moving crop may have two channels: the image, and the structure's mask in it.
    """
    crop: Size = (BATCH, 1, *crop_shape)
    if not isinstance(network, ShowsMatching):
        module = RegressionGraph(network).eval()
        return Graph(module, {"fixed": crop, "moving": crop}, ("parameters",), module, _crops(crop_shape))
    inputs = {"fixed": crop, "moving": (BATCH, moving_channels, *crop_shape), "attraction_mm2": (BATCH, 3, 3)}
    exported, reference = MatchingGraph(network, fit_by_quaternion).eval(), MatchingGraph(network).eval()
    crops = _crops(crop_shape, moving_channels)

    def draw(count: int, generator: torch.Generator) -> Tensors:
        noise = torch.randn(count, 3, 3, generator=generator)
        return (*crops(count, generator), 100 * torch.eye(3) + 20 * noise)

    return Graph(exported, inputs, MATCHING_OUTPUTS, reference, draw)


def recognition_graph(network: nn.Module, crop_size: int) -> Graph:
    """Return the graph of the recognition network: two crops of two channels, image and mask, to a score."""
    size: Size = (BATCH, CHANNELS, crop_size, crop_size, crop_size)
    module = _Scores(network).eval()

    def draw(count: int, generator: torch.Generator) -> Tensors:
        shape = (count, CHANNELS, crop_size, crop_size, crop_size)
        return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)

    return Graph(module, {"fixed": size, "moving": size}, ("scores",), module, draw)


def fusion_graph(network: nn.Module, shape: Shape) -> Graph:
    """Return the graph of a fusion network: two volumes in [0, 1] of this shape, and the detail wanted, to one."""
    volume: Size = (BATCH, 1, *shape)
    pair = _crops(shape)
    if not isinstance(network, DCFBCompact):
        module = _Fused(network).eval()
        return Graph(module, {"a": volume, "b": volume}, ("fused",), module, pair)
    first, steps = _FirstFused(network).eval(), Steps(_ScoreStep(), network.settings.score_steps, shape)

    def draw(count: int, generator: torch.Generator) -> Tensors:
        return (*pair(count, generator), torch.rand(count, generator=generator))

    inputs = {"a": volume, "b": volume, "detail": (BATCH,)}

    def reference(a: Tensor, b: Tensor, detail: Tensor) -> Tensors:
        return (improve_scores(*network.first(a, b, detail), steps.checked).reshape(a.shape),)

    return Graph(first, inputs, ("fused",), reference, draw, steps)


class _Scores(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensors:
        return (self.network(fixed, moving),)


class _Fused(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, a: Tensor, b: Tensor) -> Tensors:
        return (self.network(a, b),)


class _FirstFused(nn.Module):
    """Where the steps of a compact network begin: the first fused volume, no step before it, and what they need."""

    def __init__(self, network: DCFBCompact) -> None:
        super().__init__()
        self.network = network

    def forward(self, a: Tensor, b: Tensor, detail: Tensor) -> Tensors:
        fused, pair, weights = self.network.first(a, b, detail)
        constant = (pair.a, pair.b, *pair.tensors(), weights.qabf, weights.fraction)
        return (fused, torch.zeros_like(fused), *(one.clone() for one in constant if isinstance(one, Tensor)))


class _ScoreStep(nn.Module):
    """One step towards both scores."""

    def forward(self, fused: Tensor, last_step: Tensor, a: Tensor, b: Tensor, *constant: Tensor) -> Tensors:
        *statistics, qabf, fraction = constant
        return score_step(fused, last_step, PairStatistics.of_tensors(a, b, statistics), StepWeights(qabf, fraction))


def _crops(shape: Shape, moving_channels: int = 1) -> Callable[[int, torch.Generator], Tensors]:
    def draw(count: int, generator: torch.Generator) -> Tensors:
        sizes = (count, 1, *shape), (count, moving_channels, *shape)
        return torch.rand(sizes[0], generator=generator), torch.rand(sizes[1], generator=generator)

    return draw
