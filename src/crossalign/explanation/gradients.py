"""Maps from gradients: Grad-CAM of the attention blocks, and integrated gradients of the six rigid parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.explanation.crops import CropMap, StageCrop, interpolate_tokens
from crossalign.networks.capabilities import AttentionBlock, shown_attention
from crossalign.types import Map, Shape, Volume

PARAMETERS = ("tx", "ty", "tz", "rx", "ry", "rz")
UNITS = ("mm", "mm", "mm", "degrees", "degrees", "degrees")
STEPS = 32
BATCH, BATCH_VOXELS = 8, 8 * 32**3  # steps of one batch, and crop voxels at most

Attributions: TypeAlias = Float[Tensor, "6 2 z y x"]


def grad_cams(crop: StageCrop, lever_mm: float) -> tuple[CropMap, ...]:
    """Make two maps for each attention block of a stage's network; none for a network without attention.

    `gradcam-...`: a block's channels, weighted by an output's gradient averaged over the tokens, and summed: the
    paper's. `local-...`: the same with each token's own gradient (HiResCAM, Draelos and Carin, 2020), which the average
    loses where a head weighs each token by itself, as these networks' heads do.

    The paper does not say which output it takes, nor how negative sums are treated; this is ours: each channel is taken
    from its median over the tokens, and all six outputs are taken, as displacements (a degree moves by `lever_mm` *
    pi / 180), joined as a root of squares. For a motion, unlike for a class, less is no less of an answer than more.
    The unit of `peak` is mm.
    """
    network = shown_attention(crop.stage.network)
    if network is None:
        return ()
    blocks, tokens = network.attention_blocks(), network.token_grid().on(crop.grid)
    outputs, answer = _outputs(crop, blocks)
    channels = [_from_median(as_map(output.detach(), tokens.shape)) for output in outputs]
    totals = [torch.zeros(2, *tokens.shape, device=answer.device) for _ in blocks]
    for number, scale in enumerate(displacement_per_unit(lever_mm)):
        slopes = torch.autograd.grad(answer[number], outputs, retain_graph=True)
        for at, slope in enumerate(slopes):
            totals[at] += (scale * _weighted(channels[at], as_map(slope, tokens.shape))).square()
    return tuple(
        CropMap.of(interpolate_tokens(values, tokens, crop.grid), crop.grid, naming, "mm")
        for block, both in zip(blocks, totals, strict=True)
        for naming, values in zip(_namings(block), both.sqrt(), strict=True)
    )


def displacement_per_unit(lever_mm: float) -> tuple[float, ...]:
    """Return how far (mm) one unit of each of the six parameters (mm, degrees) moves a point at this lever."""
    return (1.0,) * 3 + (lever_mm * math.pi / 180,) * 3


def as_map(output: Tensor, shape: Shape) -> Tensor:
    """Reshape a block's output for one pair, (1, c, z, y, x) or tokens (1, n, c), to (c, z, y, x)."""
    return output[0] if output.ndim == 5 else output[0].mT.reshape(-1, *shape)


def _from_median(channels: Tensor) -> Tensor:
    """Take each channel (c, z, y, x) from its median: what is the same everywhere says nothing about where."""
    return channels - channels.flatten(1).median(1).values[:, None, None, None]


def _weighted(channels: Tensor, slopes: Tensor) -> Tensor:
    """Sum channels (c, z, y, x) weighted by their mean slope, and by each token's own: (2, z, y, x)."""
    average = torch.einsum("c,czyx->zyx", slopes.mean((1, 2, 3)), channels)
    return torch.stack((average, (slopes * channels).sum(0)))


def _outputs(crop: StageCrop, blocks: Sequence[AttentionBlock]) -> tuple[list[Tensor], Tensor]:
    """Return each block's output and the answer (6,), joined by autograd's graph."""
    outputs: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs[module] = output

    with torch.enable_grad(), ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.module.register_forward_hook(record).remove)
        answer = crop.stage.network(crop.fixed.detach().requires_grad_(), crop.moving.detach().requires_grad_())[0]
    return [outputs[block.module] for block in blocks], answer


def _namings(block: AttentionBlock) -> tuple[tuple[str, str, str], ...]:
    return (
        (f"gradcam-{block.name}", f"Grad-CAM, {block.title}", block.side),
        (f"local-{block.name}", f"Grad-CAM by token, {block.title}", block.side),
    )


@dataclass(frozen=True, eq=False)
class ParameterAttribution:
    """One of the six parameters that a stage answered, attributed to the voxels of both crops.

    `baseline_value` is the answer for two empty crops. The attributions sum to `value - baseline_value`, and
    `convergence_delta` more: what the sum of finitely many steps misses. `fixed_fraction` is the fixed crop's part of
    the attributions' sizes, without sign. `map` shows the size at each voxel, fixed and moving added.
    """

    name: str
    unit: str
    value: float
    baseline_value: float
    convergence_delta: float
    fixed_fraction: float
    map: CropMap

    @property
    def moving_fraction(self) -> float:
        """The moving crop's part."""
        return 1 - self.fixed_fraction


def attribute_parameters(crop: StageCrop, steps: int = STEPS) -> tuple[ParameterAttribution, ...]:
    """Attribute each parameter to the voxels of the crops, for any network; raises InputError for no steps."""
    attributions, baseline = integrated_gradients(crop.stage.network, crop.fixed, crop.moving, steps)
    return tuple(_attribution(crop, number, attributions[number], float(baseline[number])) for number in range(6))


def integrated_gradients(network: nn.Module, fixed: Volume, moving: Map, steps: int) -> tuple[Attributions, Tensor]:
    """Integrate each output's gradient from two empty crops to these, (1, 1, z, y, x), by the midpoint rule.

    Returns the attributions (6, 2, z, y, x), float64, fixed before moving, in mm and degrees, and the six outputs (6,)
    for the empty crops. The channels of a crop are added. Raises InputError for fewer steps than 1.
    """
    if steps < 1:
        raise InputError(f"integrated gradients take 1 step or more, got {steps}")
    scales = (torch.arange(steps, device=fixed.device) + 0.5) / steps
    total = torch.zeros(6, 2, *fixed.shape[2:], dtype=torch.float64)
    for batch in torch.split(scales, max(1, min(BATCH, BATCH_VOXELS // fixed.numel()))):
        inputs = [(batch[:, None, None, None, None] * crop.detach()).requires_grad_() for crop in (fixed, moving)]
        with torch.enable_grad():
            sums = network(*inputs).sum(0)
        for number in range(6):
            slopes = torch.autograd.grad(sums[number], inputs, retain_graph=number < 5)
            parts = [(slope.sum(0) * crop[0]).sum(0) for slope, crop in zip(slopes, (fixed, moving), strict=True)]
            total[number] += torch.stack(parts).detach().double().cpu() / steps
    with torch.no_grad():
        baseline = network(torch.zeros_like(fixed), torch.zeros_like(moving))[0]
    return total, baseline.double().cpu()


def _attribution(crop: StageCrop, number: int, parts: Tensor, baseline: float) -> ParameterAttribution:
    name, value, sizes = PARAMETERS[number], float(crop.parameters[number]), parts.abs()
    return ParameterAttribution(
        name=name,
        unit=UNITS[number],
        value=value,
        baseline_value=baseline,
        convergence_delta=float(parts.sum()) - (value - baseline),
        fixed_fraction=float(sizes[0].sum() / sizes.sum()),
        map=CropMap.of(sizes.sum(0), crop.grid, (name, f"What {name} depends on", "fixed"), UNITS[number]),
    )
