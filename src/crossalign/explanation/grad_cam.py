"""Grad-CAM of the attention blocks: the paper's Fig. 4 (Song et al., MICCAI 2021; Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from crossalign.explanation.blocks import Block, as_map, attention_blocks, position_grid
from crossalign.explanation.maps import CropMap, crop_map, spread
from crossalign.explanation.views import View


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
    blocks = attention_blocks(view.stage.model)
    if not blocks:
        return ()
    positions = position_grid(view.stage.model, view.grid)
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


def _outputs(view: View, blocks: Sequence[Block]) -> tuple[list[Tensor], Tensor]:
    """Return what each block put out and the answer (6,), joined by autograd's graph."""
    kept: dict[str, Tensor] = {}
    with torch.enable_grad(), _kept_outputs(blocks, kept):
        answer = view.stage.model(view.fixed.detach().requires_grad_(), view.moving.detach().requires_grad_())[0]
    return [kept[block.name] for block in blocks], answer


@contextmanager
def _kept_outputs(blocks: Sequence[Block], kept: dict[str, Tensor]) -> Iterator[None]:
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


def _namings(block: Block) -> tuple[tuple[str, str, str], ...]:
    return (
        (f"gradcam-{block.name}", f"Grad-CAM, {block.title}", block.side),
        (f"local-{block.name}", f"Grad-CAM by position, {block.title}", block.side),
    )
