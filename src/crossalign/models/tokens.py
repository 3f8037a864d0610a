"""What CorrespondenceReg is built of: extractors, rounds of exchange between two images, heads that mark glands."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.models.crop import Features
from crossalign.types import Map, Shape, Volume

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


class Exchange(nn.Module):
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
