"""What CorrespondenceReg is built of: extractors, rounds of exchange between two images, heads that mark glands."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.networks.crop import Features, check_crops, crop_lattice
from crossalign.types import Map, Parameters, Shape, Volume

WIDTH = 64
HALF_WIDTH = 32
HEADS = 2
STRIDE = 4


class Residual(nn.Module):
    """A convolution added to what came in, at the same size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm3d(width)

    def forward(self, features: Features) -> Features:
        """Refine (b, width, z, y, x)."""
        return F.relu(features + self.change(features))

    def change(self, features: Features) -> Features:
        """Return what would be added."""
        return self.norm(self.conv(features))


class TokenExtractor(nn.Module):
    """Convolutions down to a quarter of the size: (b, 1, z, y, x) to (b, 64, z/4, y/4, x/4).

    The eight voxels of each 2 x 2 x 2 cell become channels first: convolutions at full size would take a third of the
    time of a training step on a CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(8, HALF_WIDTH, 1)
        self.finer = nn.Sequential(Residual(HALF_WIDTH), Residual(HALF_WIDTH))
        self.down = _convolution(HALF_WIDTH, WIDTH, 2)
        self.coarser = nn.Sequential(Residual(WIDTH), Residual(WIDTH))

    def forward(self, volume: Volume) -> Features:
        """Extract features at a quarter of the size."""
        return self.both(volume)[1]

    def both(self, volume: Volume) -> tuple[Map, Map]:
        """Extract features at a half of the size, 32 of them, and at a quarter, 64."""
        b, _, z, y, x = volume.shape
        cells = volume.reshape(b, z // 2, 2, y // 2, 2, x // 2, 2).permute(0, 2, 4, 6, 1, 3, 5).flatten(1, 3)
        half = self.finer(self.stem(cells.contiguous(memory_format=torch.channels_last_3d)))
        return half, self.coarser(self.down(half))


class CrossAttentionLayer(nn.Module):
    """One round on the tokens (b, n, 64) of a lattice: look at the other image, at one's neighbours, then think."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = Attention(WIDTH)
        self.near = Residual(WIDTH)
        self.think = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, tokens: Tensor, other: Tensor, lattice: Shape) -> Tensor:
        """Update `tokens` that lie on a `lattice` (z, y, x); `other` is (b, m, 64)."""
        tokens = tokens + self.cross(tokens, other)
        volume = on_lattice(tokens, lattice)
        tokens = (volume + self.near.change(volume)).flatten(2).mT
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


class GlandHead(nn.Module):
    """Where the gland is, at half the crop's size: logits (b, 1, z/2, y/2, x/2) from fine features and tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.context = nn.Conv3d(WIDTH, HALF_WIDTH, 1)
        self.mix = _convolution(HALF_WIDTH, HALF_WIDTH, 1)
        self.out = nn.Conv3d(HALF_WIDTH, 1, 1)

    def forward(self, half: Features, tokens: Tensor, lattice: Shape) -> Volume:
        """Mark the gland; float32."""
        context = F.interpolate(self.context(on_lattice(tokens, lattice)), scale_factor=2, mode="trilinear")
        return self.out(self.mix(half + context.to(half.dtype))).float()


def on_lattice(tokens: Tensor, lattice: Shape) -> Features:
    """Put tokens (b, n, w) on their lattice: (b, w, z, y, x)."""
    return tokens.mT.reshape(len(tokens), -1, *lattice)


def _convolution(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm3d(out), nn.ReLU())


def _heads(tokens: Tensor) -> Tensor:
    return tokens.reshape(*tokens.shape[:-1], HEADS, -1).transpose(1, 2)


WAVES = (0.5, 1)  # of the places' sines and cosines over half a crop


class TokenNetwork(nn.Module):
    """Extractors of the fixed and the moving crop, places as waves, and `rounds` of exchange (0: none).

    Crops are isotropic at `spacing_mm`; any size that is a multiple of 4 on each axis. A token stands for 4^3 voxels.
    """

    places_mm: Tensor

    def __init__(self, input_shape: Shape, spacing_mm: float, rounds: int) -> None:
        super().__init__()
        if any(size % STRIDE or size < 2 * STRIDE for size in input_shape):
            raise InputError(f"the crop must be a multiple of {STRIDE} (8 or more) on each axis, got {input_shape}")
        self.input_shape = input_shape
        self.token_mm = STRIDE * spacing_mm
        self.fixed_extractor, self.moving_extractor = TokenExtractor(), TokenExtractor()
        depth, height, width = (size // STRIDE for size in input_shape)
        self.lattice = (depth, height, width)
        places = crop_lattice(self.lattice, self.token_mm).float().flatten(0, 2)
        self.register_buffer("places_mm", places, persistent=False)
        self.place = nn.Linear(places.shape[1] * 2 * len(WAVES), WIDTH)
        self.fixed_rounds = nn.ModuleList(CrossAttentionLayer() for _ in range(rounds))
        self.moving_rounds = nn.ModuleList(CrossAttentionLayer() for _ in range(rounds))

    def exchanged(self, fixed: Volume, moving: Volume) -> tuple[tuple[Map, Tensor], tuple[Map, Tensor]]:
        """Return for each crop its features at half size (b, 32, z/2, ...) and its tokens (b, n, 64) after the rounds.

        Raises InputError for crops of another size.
        """
        check_crops(fixed, moving, self.input_shape)
        (half_a, a), (half_b, b) = self.fixed_extractor.both(fixed), self.moving_extractor.both(moving)
        a, b = self._tokens(a), self._tokens(b)
        for fixed_round, moving_round in zip(self.fixed_rounds, self.moving_rounds, strict=True):
            a, b = fixed_round(a, b, self.lattice), moving_round(b, a, self.lattice)
        return (half_a, a), (half_b, b)

    def _tokens(self, features: Map) -> Tensor:
        scaled = self.places_mm / (self.places_mm.amax() + self.token_mm / 2) * torch.pi
        waves = torch.cat([(scaled * f).sin() for f in WAVES] + [(scaled * f).cos() for f in WAVES], -1)
        return features.flatten(2).mT + self.place(waves.to(features.dtype))


class TokenRegression(TokenNetwork):
    """The ablation of CorrespondenceReg's head: the same tokens, flattened into layers that answer six numbers."""

    def __init__(self, input_shape: Shape, spacing_mm: float, rounds: int = 2) -> None:
        super().__init__(input_shape, spacing_mm, rounds)
        self.reduce = nn.Linear(2 * WIDTH, 16)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.ReLU(),
            nn.Linear(16 * len(self.places_mm), 128),
            nn.ReLU(),
            nn.Linear(128, 32),
            nn.ReLU(),
            nn.Linear(32, 6),
        )

    def forward(self, fixed: Volume, moving: Volume) -> Parameters:
        """Return (b, 6): the correction in mm and degrees about the crop's centre, from two crops (b, 1, z, y, x)."""
        (_, a), (_, b) = self.exchanged(fixed, moving)
        answer: Parameters = self.head(self.reduce(torch.cat((a, b), dim=-1)))
        return answer
