"""How far off a matching expects itself to be, from what its matches and glands say of one another."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.geometry import Rigid
from crossalign.geometry.fit import fit_rigid
from crossalign.networks.crop import crop_lattice
from crossalign.networks.tokens import WIDTH, GlandHead, TokenNetwork
from crossalign.types import Distances, Parameters, Points, Shape, Volume

SIGNS = 9
USUAL_SRE_MM = 5.0


class ErrorHead(nn.Module):
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


@dataclass(frozen=True, eq=False)
class Matching:
    """What the network found on the way. Points are mm from the crops' centres; `motion` maps fixed to moving ones.

    `places_mm` and `matches_mm` are (b, n, 3), `weight` (b, n) sums to 1. The glands' logits (b, 1, z/2, y/2, x/2)
    serve training and the expected error.
    """

    motion: Rigid
    places_mm: Points
    matches_mm: Points
    weight: Tensor
    fixed_gland: Volume
    moving_gland: Volume


class CorrespondenceReg(TokenNetwork):
    """Soft matches between tokens of the fixed and the moving crop, a confidence for each, and their best rigid fit.

    After `rounds` of exchange each fixed token takes the mean position of the moving tokens that it matches, refined
    by a bounded offset; `fit_rigid` turns the matches into the correction. Crops are isotropic at `spacing_mm`; any
    size that is a multiple of 4 on each axis. Soft matching and its closed-form fit follow Deep Closest Point (2019)
    and KeyMorph (2023), rounds of exchange LoFTR (2021); gland marking beside them is ours.
    """

    def __init__(self, input_shape: Shape, spacing_mm: float, rounds: int = 2) -> None:
        super().__init__(input_shape, spacing_mm, rounds)
        self.match_query, self.match_key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.confidence = nn.Linear(2 * WIDTH, 1)
        self.refine = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 3))
        self.fixed_gland, self.moving_gland = GlandHead(), GlandHead()
        self.doubt = ErrorHead(input_shape, spacing_mm)

    def forward(self, fixed: Volume, moving: Volume) -> Parameters:
        """Return (b, 6): the correction in mm and degrees about the crop's centre, from two crops (b, 1, z, y, x)."""
        return self.match(fixed, moving).motion.to_parameters(torch.zeros(3, device=fixed.device))

    def forward_with_error(self, fixed: Volume, moving: Volume) -> tuple[Parameters, Distances]:
        """Return what `forward` returns, and the SRE (b,) in mm that the network expects of it."""
        found = self.match(fixed, moving)
        return found.motion.to_parameters(torch.zeros(3, device=fixed.device)), self.expected_sre_mm(found)

    def expected_sre_mm(self, found: Matching) -> Distances:
        """Return the SRE (b,) to expect, mm: learned beside the matches, without a say in them."""
        with torch.autocast(found.weight.device.type, enabled=False):
            expected: Distances = self.doubt(
                found.motion, found.places_mm, found.matches_mm, found.weight, found.fixed_gland, found.moving_gland
            )
            return expected

    def correspondences(self, fixed: Volume, moving: Volume) -> tuple[Points, Points, Tensor]:
        """Return fixed places and their matches in the moving crop, both (b, n, 3), mm from its centre, and weights.

        The weights (b, n) sum to 1 over the places. Raises InputError for crops of another size.
        """
        found = self.match(fixed, moving)
        return found.places_mm, found.matches_mm, found.weight

    def match(self, fixed: Volume, moving: Volume) -> Matching:
        """Match two crops and fit the motion; raises InputError for crops of another size."""
        (half_a, a), (half_b, b) = self.exchanged(fixed, moving)
        logits = self.match_query(a) @ self.match_key(b).mT / WIDTH**0.5
        share = torch.softmax(logits.float(), dim=-1)
        both = torch.cat((a, share.to(b.dtype) @ b), dim=-1)
        offset, confidence = self.refine(both).float(), self.confidence(both)[..., 0].float()
        places = self.places_mm.expand(len(a), -1, -1)
        with torch.autocast(fixed.device.type, enabled=False):  # positions in bfloat16 would be off by millimetres
            matches = share @ places + torch.tanh(offset) * self.token_mm
            weight = torch.softmax(confidence, dim=-1)
            motion = fit_rigid(places, matches, weight)
        glands = self.fixed_gland(half_a, a, self.lattice), self.moving_gland(half_b, b, self.lattice)
        return Matching(motion, places, matches, weight, *glands)
