"""What each of the six rigid parameters rests on: integrated gradients (Sundararajan et al., ICML 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.explanation.maps import CropMap, crop_map, mask_on_crop
from crossalign.explanation.views import View
from crossalign.images import LabelMap
from crossalign.types import Mask, Volume

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
    inside_share: float
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
    parts, empty = integrated_gradients(view.stage.model, view.fixed, view.moving, steps)
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
        inside_share=float("nan") if mask is None else shown.share_inside(mask),
        mask_share=float("nan") if mask is None else float(mask.double().mean()),
        map=shown,
    )
