"""Networks on tokens: convolutions to a grid of tokens for each crop, and layers of cross-attention between the two."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.networks.convolution import Convolution3d, NormalisedConvolution, normalised
from crossalign.networks.crop import Features, check_crops, crop_points
from crossalign.types import Map, Parameters, Shape, Volume

WIDTH = 64
HALF_WIDTH = 32
HEADS = 2
STRIDE = 4
FREQUENCIES = (0.5, 1)  # of the positional encoding, in periods over the crop


class Residual(nn.Module):
    """A residual convolution at constant size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = Convolution3d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm3d(width)

    def forward(self, features: Features) -> Features:
        """Refine (b, width, z, y, x)."""
        return F.relu(features + self.residual(features))

    def residual(self, features: Features) -> Features:
        """Return what is added to the features."""
        return normalised(self.conv, self.norm, features)


class TokenExtractor(nn.Module):
    """Convolutions down to a quarter of the size: (b, c, z, y, x) to (b, 64, z/4, y/4, x/4).

    The eight voxels of each 2 x 2 x 2 cell become channels first, the first image's before the next one's: convolutions
    at full size would take a third of the time of a training step on a CPU.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.stem = NormalisedConvolution(8 * channels, HALF_WIDTH)
        self.finer = nn.Sequential(Residual(HALF_WIDTH), Residual(HALF_WIDTH))
        self.down = NormalisedConvolution(HALF_WIDTH, WIDTH, 2)
        self.coarser = nn.Sequential(Residual(WIDTH), Residual(WIDTH))

    def forward(self, volume: Volume) -> Features:
        """Extract features at a quarter of the size."""
        return self.both(volume)[1]

    def both(self, volume: Volume) -> tuple[Map, Map]:
        """Extract features at half of the size, 32 channels, and at a quarter, 64."""
        b, c, z, y, x = volume.shape
        cells = volume.reshape(b, c, z // 2, 2, y // 2, 2, x // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)
        half = self.finer(self.stem(cells.contiguous(memory_format=torch.channels_last_3d)))
        return half, self.coarser(self.down(half))


class CrossAttentionLayer(nn.Module):
    """Cross-attention to the other image's tokens, a convolution over neighbouring tokens, and an MLP; all residual."""

    def __init__(self) -> None:
        super().__init__()
        self.cross_attention = Attention(WIDTH)
        self.convolution = Residual(WIDTH)
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, tokens: Tensor, other: Tensor, shape: Shape) -> Tensor:
        """Update tokens (b, n, 64) of a grid of `shape` (z, y, x) with the other image's (b, m, 64)."""
        tokens = tokens + self.cross_attention(tokens, other)
        volume = tokens_to_map(tokens, shape)
        tokens = (volume + self.convolution.residual(volume)).flatten(2).mT
        return tokens + self.mlp(tokens)


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
        query = _split_heads(self.query(self.norm_query(tokens)))
        key, value = (_split_heads(part) for part in self.source(self.norm_source(source)).chunk(2, dim=-1))
        if self.training:  # on a CPU the fused kernel's backward pass is ten times slower than the plain one here
            gathered = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, dim=-1) @ value
        else:
            gathered = F.scaled_dot_product_attention(query, key, value)
        return self.out(gathered.transpose(1, 2).flatten(2))


class StructureHead(nn.Module):
    """Segments the structure at half the crop's size: logits (b, 1, z/2, y/2, x/2) from fine features and tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.context = Convolution3d(WIDTH, HALF_WIDTH, 1)
        self.mix = NormalisedConvolution(HALF_WIDTH, HALF_WIDTH)
        self.out = Convolution3d(HALF_WIDTH, 1, 1)

    def forward(self, half: Features, tokens: Tensor, shape: Shape) -> Volume:
        """Segment; float32."""
        context = F.interpolate(self.context(tokens_to_map(tokens, shape)), scale_factor=2, mode="trilinear")
        return self.out(self.mix(half + context.to(half.dtype))).float()


def tokens_to_map(tokens: Tensor, shape: Shape) -> Features:
    """Reshape tokens (b, n, w) of a grid of `shape` to (b, w, z, y, x)."""
    return tokens.mT.reshape(tokens.shape[0], -1, *shape)


def _split_heads(tokens: Tensor) -> Tensor:
    return tokens.reshape(*tokens.shape[:-1], HEADS, -1).transpose(1, 2)


class TokenNetwork(nn.Module):
    """Extractors of both crops, a Fourier positional encoding, and `layers` of cross-attention (0: none).

    Crops are isotropic at `spacing_mm`; any size that is a multiple of 4 on each axis. A token stands for 4^3 voxels.
    With two moving channels the moving crop holds the structure's mask beside the image.
    """

    positions_mm: Tensor

    def __init__(self, input_shape: Shape, spacing_mm: float, layers: int, moving_channels: int = 1) -> None:
        super().__init__()
        self.input_shape, self.moving_channels = input_shape, moving_channels
        self.token_spacing_mm = STRIDE * spacing_mm
        self.fixed_extractor, self.moving_extractor = TokenExtractor(), TokenExtractor(moving_channels)
        depth, height, width = (size // STRIDE for size in input_shape)
        self.token_shape = (depth, height, width)
        positions = crop_points(self.token_shape, self.token_spacing_mm).float().flatten(0, 2)
        self.register_buffer("positions_mm", positions, persistent=False)
        self.position = nn.Linear(positions.shape[1] * 2 * len(FREQUENCIES), WIDTH)
        self.fixed_layers = nn.ModuleList(CrossAttentionLayer() for _ in range(layers))
        self.moving_layers = nn.ModuleList(CrossAttentionLayer() for _ in range(layers))

    def encode(self, fixed: Map, moving: Map) -> tuple[tuple[Map, Tensor], tuple[Map, Tensor]]:
        """Return for each crop its features at half size (b, 32, z/2, ...) and its tokens (b, n, 64) after all layers.

        Raises InputError for crops of another size.
        """
        check_crops(fixed, moving, self.input_shape, self.moving_channels)
        (half_a, a), (half_b, b) = self.fixed_extractor.both(fixed), self.moving_extractor.both(moving)
        a, b = self._tokens(a), self._tokens(b)
        for fixed_layer, moving_layer in zip(self.fixed_layers, self.moving_layers, strict=True):
            a, b = fixed_layer(a, b, self.token_shape), moving_layer(b, a, self.token_shape)
        return (half_a, a), (half_b, b)

    def _tokens(self, features: Map) -> Tensor:
        scaled = self.positions_mm / (self.positions_mm.amax((0, 1)) + self.token_spacing_mm / 2) * torch.pi
        parts = [(scaled * f).sin() for f in FREQUENCIES] + [(scaled * f).cos() for f in FREQUENCIES]
        return features.flatten(2).mT + self.position(torch.cat(parts, -1).to(features.dtype))


class TokenRegression(TokenNetwork):
    """An ablation of CorrespondenceReg's head: the same tokens, flattened into layers that predict six numbers."""

    def __init__(self, input_shape: Shape, spacing_mm: float, layers: int = 2) -> None:
        super().__init__(input_shape, spacing_mm, layers)
        self.reduce = nn.Linear(2 * WIDTH, 16)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.ReLU(),
            nn.Linear(16 * len(self.positions_mm), 128),
            nn.ReLU(),
            nn.Linear(128, 32),
            nn.ReLU(),
            nn.Linear(32, 6),
        )

    def forward(self, fixed: Volume, moving: Volume) -> Parameters:
        """Return (b, 6): the correction in mm and degrees about the crop's centre, from two crops (b, 1, z, y, x)."""
        (_, a), (_, b) = self.encode(fixed, moving)
        answer: Parameters = self.head(self.reduce(torch.cat((a, b), dim=-1)))
        return answer
