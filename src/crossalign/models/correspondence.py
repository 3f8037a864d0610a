"""CorrespondenceReg: attention finds where each fixed place lies in the moving image; a closed form fits the motion."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.geometry.fit import fit_rigid
from crossalign.models.crop import Features, check_crops, crop_lattice
from crossalign.types import Parameters, Shape, Volume

WIDTH = 64
HEADS = 2
STRIDE = 4


class TokenExtractor(nn.Module):
    """Convolutions down to a quarter of the size: (b, 1, z, y, x) to (b, 64, z/4, y/4, x/4)."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(1, width // 4, 1),
            _convolution(width // 4, width // 2, 2),
            _convolution(width // 2, width // 2, 1),
            _convolution(width // 2, width, 2),
            _convolution(width, width, 1),
        )

    def forward(self, volume: Volume) -> Features:
        """Extract features."""
        return self.layers(volume)


class Exchange(nn.Module):
    """One round on a token sequence (b, n, width): look at the other image, at one's own, then think."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.cross = Attention(width)
        self.own = Attention(width)
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor, other: Tensor) -> Tensor:
        """Update `tokens`; `other` is (b, m, width)."""
        tokens = tokens + self.cross(tokens, other)
        tokens = tokens + self.own(tokens, tokens)
        return tokens + self.think(tokens)


class Attention(nn.Module):
    """Multi-head attention of normalised tokens to another set of tokens; the map is not stored in use."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_query, self.norm_source = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.source, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )

    def forward(self, tokens: Tensor, source: Tensor) -> Tensor:
        """Gather from `source` (b, m, width) for each of `tokens` (b, n, width)."""
        query = _heads(self.query(self.norm_query(tokens)))
        key, value = (_heads(part) for part in self.source(self.norm_source(source)).chunk(2, dim=-1))
        if self.training:  # on a CPU the fused kernel's backward pass is ten times slower than the plain one here
            gathered = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, dim=-1) @ value
        else:
            gathered = F.scaled_dot_product_attention(query, key, value)
        return self.out(gathered.transpose(1, 2).flatten(2))


class CorrespondenceReg(nn.Module):
    """Soft matches between tokens of the fixed and the moving crop, a confidence for each, and their best rigid fit.

    After `rounds` of exchange each fixed token takes the mean position of the moving tokens that it matches, refined
    by a bounded offset; `fit_rigid` turns the matches into the correction. Crops are isotropic at `spacing_mm`; any
    size that is a multiple of 4 on each axis.
    """

    places_mm: Tensor

    def __init__(self, input_shape: Shape, spacing_mm: float, rounds: int = 2) -> None:
        super().__init__()
        if any(size % STRIDE or size < 2 * STRIDE for size in input_shape):
            raise InputError(f"the crop must be a multiple of {STRIDE} (8 or more) on each axis, got {input_shape}")
        self.input_shape = input_shape
        self.token_mm = STRIDE * spacing_mm
        self.fixed_extractor, self.moving_extractor = TokenExtractor(), TokenExtractor()
        depth, height, width = (size // STRIDE for size in input_shape)
        places = crop_lattice((depth, height, width), self.token_mm).float().flatten(0, 2)
        self.register_buffer("places_mm", places, persistent=False)
        self.place = nn.Linear(places.shape[1] * 4, WIDTH)
        self.fixed_rounds = nn.ModuleList(Exchange() for _ in range(rounds))
        self.moving_rounds = nn.ModuleList(Exchange() for _ in range(rounds))
        self.match_query, self.match_key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.confidence = nn.Linear(2 * WIDTH, 1)
        self.refine = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 3))

    def forward(self, fixed: Volume, moving: Volume) -> Parameters:
        """Return (b, 6): the correction in mm and degrees about the crop's centre, from two crops (b, 1, z, y, x)."""
        places, matches, weight = self.correspondences(fixed, moving)
        with torch.autocast(fixed.device.type, enabled=False):  # positions in bfloat16 would be off by millimetres
            motion = fit_rigid(places, matches, weight)
            return motion.to_parameters(torch.zeros(3, device=fixed.device))

    def correspondences(self, fixed: Volume, moving: Volume) -> tuple[Tensor, Tensor, Tensor]:
        """Return fixed places and their matches in the moving crop, both (b, n, 3), mm from its centre, and weights.

        The weights (b, n) sum to 1 over the places. Raises InputError for crops of another size.
        """
        check_crops(fixed, moving, self.input_shape)
        a, b = self._tokens(self.fixed_extractor(fixed)), self._tokens(self.moving_extractor(moving))
        for fixed_round, moving_round in zip(self.fixed_rounds, self.moving_rounds, strict=True):
            a, b = fixed_round(a, b), moving_round(b, a)
        logits = self.match_query(a) @ self.match_key(b).mT / WIDTH**0.5
        share = torch.softmax(logits.float(), dim=-1)
        both = torch.cat((a, share.to(b.dtype) @ b), dim=-1).float()
        places = self.places_mm.expand(len(a), -1, -1)
        with torch.autocast(fixed.device.type, enabled=False):
            matches = share @ places + torch.tanh(self.refine(both)) * self.token_mm
        return places, matches, torch.softmax(self.confidence(both)[..., 0].float(), dim=-1)

    def _tokens(self, features: Volume) -> Tensor:
        scaled = self.places_mm / (self.places_mm.amax() + self.token_mm / 2)
        waves = torch.cat(
            [(scaled * torch.pi * f).sin() for f in (0.5, 1)] + [(scaled * torch.pi * f).cos() for f in (0.5, 1)], -1
        )
        return features.flatten(2).mT + self.place(waves.to(features.dtype))


def _convolution(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm3d(out), nn.ReLU())


def _heads(tokens: Tensor) -> Tensor:
    return tokens.reshape(*tokens.shape[:-1], HEADS, -1).transpose(1, 2)
