"""CorrespondenceReg: soft matches between the tokens of two crops, their rigid fit, and the error to expect of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.geometry import Rigid
from crossalign.geometry.fit import MatchMoments, fit_rigid
from crossalign.networks.capabilities import AttentionBlock, AttentionRow, TokenGrid
from crossalign.networks.crop import crop_points
from crossalign.networks.tokens import STRIDE, WIDTH, StructureHead, TokenNetwork
from crossalign.types import Distances, Map, Parameters, Points, Shape, Volume

FEATURES = 9
TYPICAL_SRE_MM = 5.0
Fit: TypeAlias = Callable[[Tensor, Tensor, Tensor], Rigid]  # of points onto points, with weights


@dataclass(frozen=True, eq=False)
class Matching:
    """Matches of b pairs of crops and their rigid fit. Points are mm from the crops' centres.

    `positions_mm` of the fixed tokens and `matches_mm` in the moving crop are (b, n, 3), `weight` (b, n) sums to 1;
    `motion` maps fixed to moving points. The structure's logits (b, 1, z/2, y/2, x/2) in both crops serve training and
    the expected error.
    """

    motion: Rigid
    positions_mm: Points
    matches_mm: Points
    weight: Tensor
    fixed_structure: Volume
    moving_structure: Volume


class ErrorHead(nn.Module):
    """A small regression from nine error features to the SRE. No gradient of it reaches the network."""

    voxels_mm: Tensor

    def __init__(self, input_shape: Shape, spacing_mm: float) -> None:
        super().__init__()
        depth, height, width = (size // 2 for size in input_shape)
        voxels = crop_points((depth, height, width), 2 * spacing_mm).float().flatten(0, 2)
        self.register_buffer("voxels_mm", voxels, persistent=False)
        self.norm = nn.BatchNorm1d(FEATURES)
        self.layers = nn.Sequential(nn.Linear(FEATURES, 16), nn.GELU(), nn.Linear(16, 1))

    def forward(self, found: Matching) -> Distances:
        """Return the expected SRE (b,), mm."""
        with torch.no_grad():
            features = self.error_features(found)
        return TYPICAL_SRE_MM * F.softplus(self.layers(self.norm(features))[:, 0] + math.log(math.e - 1))

    def error_features(self, found: Matching) -> Tensor:
        """Return (b, 9) numbers that go with the error of a fit.

        The fit's residual, weighted and plain; the entropy of the weights; for the two segmented structures the
        distance of their centres, the ratio of their sizes and how blurred each is; and the size of the correction, as
        a shift and as an angle's sine.
        """
        motion, weight = found.motion, found.weight
        squares = (motion.apply(found.positions_mm) - found.matches_mm).square().sum(-1)
        entropy = -(weight * weight.clamp(min=1e-12).log()).sum(-1)
        fixed, moving = (one.flatten(1).sigmoid() for one in (found.fixed_structure, found.moving_structure))
        fixed_size, moving_size = fixed.sum(-1).clamp(min=1), moving.sum(-1).clamp(min=1)
        fixed_center = fixed @ self.voxels_mm / fixed_size[:, None]
        moving_center = moving @ self.voxels_mm / moving_size[:, None]
        gap = motion.apply(fixed_center[:, None])[:, 0] - moving_center
        skew = motion.rotation - motion.rotation.mT
        features = (
            ((weight * squares).sum(-1) + 1e-6).sqrt(),
            (squares.mean(-1) + 1e-6).sqrt(),
            entropy,
            gap.norm(dim=-1),
            (moving_size / fixed_size).log(),
            (fixed * (1 - fixed)).sum(-1) / fixed_size,
            (moving * (1 - moving)).sum(-1) / moving_size,
            motion.translation_mm.norm(dim=-1),
            skew.flatten(1).norm(dim=-1),
        )
        return torch.stack(features, dim=-1)


class CorrespondenceReg(TokenNetwork):
    """Soft matches between tokens of the fixed and the moving crop, a confidence for each, and their best rigid fit.

    After `layers` of cross-attention each fixed token takes the mean position of the moving tokens that it matches,
    refined by a bounded offset; `fit_rigid` of the matches is the correction. Crops are isotropic at `spacing_mm`;
    any size that is a multiple of 4 on each axis. With `moving_channels` 2 the moving crop (b, 2, z, y, x) holds the
    structure's mask beside the image. Soft matching and its closed-form fit follow Deep Closest Point
    (2019) and KeyMorph (2023), layers of cross-attention LoFTR (2021); segmenting the structure as well is ours.
    """

    def __init__(self, input_shape: Shape, spacing_mm: float, layers: int = 2, moving_channels: int = 1) -> None:
        super().__init__(input_shape, spacing_mm, layers, moving_channels)
        self.match_query, self.match_key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.confidence = nn.Linear(2 * WIDTH, 1)
        self.refine = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 3))
        self.fixed_structure, self.moving_structure = StructureHead(), StructureHead()
        self.error_head = ErrorHead(input_shape, spacing_mm)

    def forward(self, fixed: Volume, moving: Map) -> Parameters:
        """Return (b, 6): the correction in mm and degrees about the crop's centre, from two crops (b, 1, z, y, x)."""
        return self.match(fixed, moving).motion.to_parameters(torch.zeros(3, device=fixed.device))

    def forward_with_error(self, fixed: Volume, moving: Map) -> tuple[Parameters, Distances]:
        """Return what `forward` returns, and the SRE (b,) in mm that the network expects of it."""
        found = self.match(fixed, moving)
        return found.motion.to_parameters(torch.zeros(3, device=fixed.device)), self.expected_sre_mm(found)

    def forward_with_fit(self, fixed: Volume, moving: Map) -> tuple[MatchMoments, Distances]:
        """Return the moments of the matches, and what `forward_with_error` returns second."""
        found = self.match(fixed, moving)
        return MatchMoments.of(found.positions_mm, found.matches_mm, found.weight), self.expected_sre_mm(found)

    def expected_sre_mm(self, found: Matching) -> Distances:
        """Return the expected SRE (b,), mm; its training leaves the matches as they are."""
        with torch.autocast(found.weight.device.type, enabled=False):
            expected: Distances = self.error_head(found)
            return expected

    def match(self, fixed: Volume, moving: Map, fit: Fit = fit_rigid) -> Matching:
        """Match two crops and fit the motion; raises InputError for crops of another size.

        `fit` makes the motion of points, their matches and weights: an exported network needs one without an SVD.
        """
        (half_a, a), (half_b, b) = self.encode(fixed, moving)
        logits = self.match_query(a) @ self.match_key(b).mT / WIDTH**0.5
        attention = torch.softmax(logits.float(), dim=-1)
        both = torch.cat((a, attention.to(b.dtype) @ b), dim=-1)
        offset, confidence = self.refine(both).float(), self.confidence(both)[..., 0].float()
        positions = self.positions_mm.expand(a.shape[0], -1, -1)
        with torch.autocast(fixed.device.type, enabled=False):  # positions in bfloat16 would be off by millimetres
            matches = attention @ positions + torch.tanh(offset) * self.token_spacing_mm
            weight = torch.softmax(confidence, dim=-1)
            motion = fit(positions, matches, weight)
        structures = (
            self.fixed_structure(half_a, a, self.token_shape),
            self.moving_structure(half_b, b, self.token_shape),
        )
        return Matching(motion, positions, matches, weight, *structures)

    def attention_blocks(self) -> tuple[AttentionBlock, ...]:
        """List the cross-attention of every layer, the fixed side's first."""
        sides = (("fixed", self.fixed_layers), ("moving", self.moving_layers))
        return tuple(
            AttentionBlock(side, layer.get_submodule("cross_attention"), number)
            for side, layers in sides
            for number, layer in enumerate(layers, start=1)
        )

    def token_grid(self) -> TokenGrid:
        """Tokens lie in the middle of the 4^3 voxels that they stand for."""
        return TokenGrid(self.token_shape, (STRIDE, STRIDE, STRIDE), (STRIDE - 1) / 2)

    def attention_row(self, fixed: Volume, moving: Map, token: int) -> AttentionRow:
        """Return the match weights of one fixed token, and the offset to its refined match."""
        found = self.match(fixed, moving)
        (_, a), (_, b) = self.encode(fixed, moving)
        logits = self.match_key(b)[0] @ self.match_query(a)[0, token]
        row = torch.softmax(logits.cpu().double() / WIDTH**0.5, dim=0)
        return AttentionRow(row, (found.matches_mm - found.positions_mm)[0, token].cpu().double())
