"""How far off a matching expects itself to be, from what its matches and glands say of one another."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.geometry import Rigid
from crossalign.models.crop import crop_lattice
from crossalign.types import Distances, Points, Shape, Volume

SIGNS = 9
USUAL_SRE_MM = 5.0


class Doubt(nn.Module):
    """A small regression on nine signs of trouble. It learns beside the network: nothing flows back through them."""

    cells_mm: Tensor

    def __init__(self, input_shape: Shape, spacing_mm: float) -> None:
        super().__init__()
        depth, height, width = (size // 2 for size in input_shape)
        cells = crop_lattice((depth, height, width), 2 * spacing_mm).float().flatten(0, 2)
        self.register_buffer("cells_mm", cells, persistent=False)
        self.norm = nn.BatchNorm1d(SIGNS)
        self.layers = nn.Sequential(nn.Linear(SIGNS, 16), nn.GELU(), nn.Linear(16, 1))

    def forward(
        self, motion: Rigid, places: Points, matches: Points, weight: Tensor, fixed: Volume, moving: Volume
    ) -> Distances:
        """Return the expected SRE (b,), mm; glands are logits at half the crop's size."""
        with torch.no_grad():
            signs = self.signs(motion, places, matches, weight, fixed, moving)
        return USUAL_SRE_MM * F.softplus(self.layers(self.norm(signs))[:, 0] + math.log(math.e - 1))

    def signs(
        self, motion: Rigid, places: Points, matches: Points, weight: Tensor, fixed: Volume, moving: Volume
    ) -> Tensor:
        """Return (b, 9): what the fit leaves, the spread of the weights, how the glands agree and how sharp they are.

        The last two are the size of the correction itself, as a shift and as an angle's sine.
        """
        left = (motion.apply(places) - matches).square().sum(-1)
        spread = -(weight * weight.clamp(min=1e-12).log()).sum(-1)
        fixed_share, moving_share = fixed.flatten(1).sigmoid(), moving.flatten(1).sigmoid()
        fixed_size, moving_size = fixed_share.sum(-1).clamp(min=1), moving_share.sum(-1).clamp(min=1)
        fixed_center = fixed_share @ self.cells_mm / fixed_size[:, None]
        moving_center = moving_share @ self.cells_mm / moving_size[:, None]
        gap = motion.apply(fixed_center[:, None])[:, 0] - moving_center
        skew = motion.rotation - motion.rotation.mT
        signs = (
            ((weight * left).sum(-1) + 1e-6).sqrt(),
            (left.mean(-1) + 1e-6).sqrt(),
            spread,
            gap.norm(dim=-1),
            (moving_size / fixed_size).log(),
            (fixed_share * (1 - fixed_share)).sum(-1) / fixed_size,
            (moving_share * (1 - moving_share)).sum(-1) / moving_size,
            motion.translation_mm.norm(dim=-1),
            skew.flatten(1).norm(dim=-1),
        )
        return torch.stack(signs, dim=-1)
