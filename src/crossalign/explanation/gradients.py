"""Maps from gradients: Grad-CAM of the attention blocks, and integrated gradients of the six rigid parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.explanation.attention import as_map, attention_blocks, position_grid
from crossalign.explanation.maps import CropMap, View, crop_map, mask_on_crop, spread
from crossalign.images import LabelMap
from crossalign.networks.capabilities import AttentionBlock
from crossalign.types import Mask, Volume


def grad_cams(view: View, lever_mm: float) -> tuple[CropMap, ...]:
    """Make two maps for each attention block of a stage's network; none for a network without attention.

    `gradcam-...`: a block's channels, weighted by an output's gradient averaged over the positions, and summed: the
    paper's. `local-...`: the same with each position's own gradient (HiResCAM, Draelos and Carin, 2020), which the
    average loses where a head weighs each position by itself, as these networks' heads do.

    The paper does not say which output it takes, nor what becomes of negative sums; this is ours: a channel counts
    from its median over the positions, and all six outputs are taken, as displacements (a degree moves by `lever_mm`
    * pi / 180), joined as a root of squares. For a motion, unlike for a class, less is no less of an answer than
    more. The unit of `peak` is mm.
    """
    blocks = attention_blocks(view.stage.network)
    if not blocks:
        return ()
    positions = position_grid(view.stage.network, view.grid)
    outputs, answer = _outputs(view, blocks)
    channels = [_from_median(as_map(output.detach(), positions.shape)) for output in outputs]
    totals = [torch.zeros(2, *positions.shape, device=answer.device) for _ in blocks]
    for number, scale in enumerate(displacement_per_unit(lever_mm)):
        slopes = torch.autograd.grad(answer[number], outputs, retain_graph=True)
        for at, slope in enumerate(slopes):
            totals[at] += (scale * _weighted(channels[at], as_map(slope, positions.shape))).square()
    return tuple(
        crop_map(naming, spread(total.sqrt(), positions, view.grid), view.grid, "mm")
        for block, both in zip(blocks, totals, strict=True)
        for naming, total in zip(_namings(block), both, strict=True)
    )


def displacement_per_unit(lever_mm: float) -> tuple[float, ...]:
    """Return how far (mm) one unit of each of the six parameters (mm, degrees) moves a point at this lever."""
    return (1.0,) * 3 + (lever_mm * math.pi / 180,) * 3


def _from_median(channels: Tensor) -> Tensor:
    """Take each channel (c, z, y, x) from its median: what is the same everywhere says nothing about where."""
    return channels - channels.flatten(1).median(1).values[:, None, None, None]


def _weighted(channels: Tensor, slopes: Tensor) -> Tensor:
    """Sum channels (c, z, y, x) weighted by their mean slope, and by each position's own: (2, z, y, x)."""
    average = torch.einsum("c,czyx->zyx", slopes.mean((1, 2, 3)), channels)
    return torch.stack((average, (slopes * channels).sum(0)))


def _outputs(view: View, blocks: Sequence[AttentionBlock]) -> tuple[list[Tensor], Tensor]:
    """Return what each block put out and the answer (6,), joined by autograd's graph."""
    kept: dict[str, Tensor] = {}
    with torch.enable_grad(), _kept_outputs(blocks, kept):
        answer = view.stage.network(view.fixed.detach().requires_grad_(), view.moving.detach().requires_grad_())[0]
    return [kept[block.name] for block in blocks], answer


@contextmanager
def _kept_outputs(blocks: Sequence[AttentionBlock], kept: dict[str, Tensor]) -> Iterator[None]:
    def keeper(name: str) -> object:
        def keep(_module: object, _inputs: object, output: Tensor) -> None:
            kept[name] = output

        return keep

    handles = [block.module.register_forward_hook(keeper(block.name)) for block in blocks]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _namings(block: AttentionBlock) -> tuple[tuple[str, str, str], ...]:
    return (
        (f"gradcam-{block.name}", f"Grad-CAM, {block.title}", block.side),
        (f"local-{block.name}", f"Grad-CAM by position, {block.title}", block.side),
    )


PARAMETERS = ("tx", "ty", "tz", "rx", "ry", "rz")
UNITS = ("mm", "mm", "mm", "degrees", "degrees", "degrees")
STEPS = 32
TOGETHER = 8
VOXELS_TOGETHER = 8 * 32**3

Attributions: TypeAlias = Float[Tensor, "6 2 z y x"]


@dataclass(frozen=True, eq=False)
class ParameterShare:
    """One of the six parameters: its value, its map, and which parts of the input it rests on.

    The attributions of all voxels of both crops sum to `value - empty_value` (the value for two empty crops) but for
    `gap`, which is what the sum of finitely many steps misses. Shares are of the attributions' sizes without sign:
    `moving_share` is the rest of `fixed_share`. `inside_share` is that of the fixed mask, in both crops, and
    `mask_share` the mask's share of the crop's volume; both are NaN without a mask.
    """

    name: str
    unit: str
    value: float
    empty_value: float
    gap: float
    fixed_share: float
    inside_fraction: float
    mask_share: float
    map: CropMap

    @property
    def moving_share(self) -> float:
        """Share of the moving crop."""
        return 1 - self.fixed_share


def parameter_shares(view: View, fixed_mask: LabelMap | None, steps: int = STEPS) -> tuple[ParameterShare, ...]:
    """Attribute each parameter that a stage answered to the voxels of its crops; raises InputError for no steps.

    Works for every network. A voxel's map value is the sum of its two attributions' sizes, fixed and moving.
    """
    parts, empty = integrated_gradients(view.stage.network, view.fixed, view.moving, steps)
    mask = mask_on_crop(fixed_mask, view.grid)
    return tuple(_share(view, number, parts, float(empty[number]), mask) for number in range(6))


def integrated_gradients(model: nn.Module, fixed: Volume, moving: Volume, steps: int) -> tuple[Attributions, Tensor]:
    """Integrate each output's gradient from two empty crops to these, (1, 1, z, y, x), by the midpoint rule.

    Returns the attributions (6, 2, z, y, x), float64, fixed before moving, in mm and degrees, and the six outputs (6,)
    for the empty crops. Raises InputError for fewer steps than 1.
    """
    if steps < 1:
        raise InputError(f"integrated gradients take 1 step or more, got {steps}")
    shares = (torch.arange(steps, device=fixed.device) + 0.5) / steps
    total = torch.zeros(6, 2, *fixed.shape[2:], dtype=torch.float64)
    for part in torch.split(shares, max(1, min(TOGETHER, VOXELS_TOGETHER // fixed.numel()))):
        scale = part[:, None, None, None, None]
        inputs = [(scale * crop.detach()).requires_grad_() for crop in (fixed, moving)]
        with torch.enable_grad():
            sums = model(*inputs).sum(0)
        for number in range(6):
            slopes = torch.autograd.grad(sums[number], inputs, retain_graph=number < 5)
            total[number] += torch.stack([slope.sum((0, 1)) for slope in slopes]).double().cpu() / steps
    with torch.no_grad():
        empty = model(torch.zeros_like(fixed), torch.zeros_like(moving))[0]
    return total * torch.cat((fixed, moving))[:, 0].detach().double().cpu(), empty.double().cpu()


def _share(view: View, number: int, parts: Attributions, empty: float, mask: Mask | None) -> ParameterShare:
    value, name = float(view.parameters[number]), PARAMETERS[number]
    sizes = parts[number].abs()
    both = sizes.sum(0)
    shown = crop_map((name, f"What {name} rests on", "fixed"), both, view.grid, UNITS[number])
    return ParameterShare(
        name=name,
        unit=UNITS[number],
        value=value,
        empty_value=empty,
        gap=float(parts[number].sum()) - (value - empty),
        fixed_share=float(sizes[0].sum() / sizes.sum()),
        inside_fraction=float("nan") if mask is None else shown.fraction_inside(mask),
        mask_share=float("nan") if mask is None else float(mask.double().mean()),
        map=shown,
    )
