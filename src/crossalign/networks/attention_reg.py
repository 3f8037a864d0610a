"""Attention-Reg and Feature-Reg (Song et al., MICCAI 2021): cross-modal attention (Eq. 1) and six rigid parameters."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.networks.attention import attended
from crossalign.networks.capabilities import AttentionBlock, AttentionRow, TokenGrid
from crossalign.networks.convolution import Convolution3d, normalised
from crossalign.networks.crop import Features, check_crops
from crossalign.types import Parameters, Shape, Volume


class CrossModalAttention(nn.Module):
    """Gather features of the primary map wherever they match a feature of the other map, and add the primary map.

    y_i = sum_j softmax_j(query(other_i) . key(primary_j)) value(primary_j); the output is relu(BN(W y) + primary).
    No 1/sqrt(d), as in the paper. The paper's names: query = theta, key = phi in Eq. 1.
    """

    def __init__(self, channels: int = 32, inner: int = 16) -> None:
        super().__init__()
        self.query = Convolution3d(channels, inner, 1)
        self.key = Convolution3d(channels, inner, 1)
        self.value = Convolution3d(channels, inner, 1)
        self.out = Convolution3d(inner, channels, 1)
        self.norm = nn.BatchNorm3d(channels)

    def forward(self, primary: Volume, other: Volume) -> Volume:
        """Attend; both maps are (b, channels, z, y, x), of one size. Raises InputError where they are not."""
        if primary.shape != other.shape:
            raise InputError(f"the two maps must have one size, got {tuple(primary.shape)} and {tuple(other.shape)}")
        query, key, value = _tokens(self.query(other)), _tokens(self.key(primary)), _tokens(self.value(primary))
        gathered = attended(query, key, value)  # (b, zyx, inner)
        volume = gathered.mT.reshape(primary.shape[0], -1, *primary.shape[2:])
        return F.relu(normalised(self.out, self.norm, volume) + primary)


def _tokens(volume: Volume) -> Tensor:
    """Flatten (b, c, z, y, x) to (b, zyx, c), contiguous: on a CPU the kernel that stores no map demands it."""
    return volume.flatten(2).mT.contiguous()


PAPER_SHAPE: Shape = (32, 96, 96)
CHANNELS = 32


class Extractor(nn.Module):
    """Two convolutions, each followed by max-pooling: (b, 1, z, y, x) to (b, 32, z/2, y/4, x/4)."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.conv1 = Convolution3d(1, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv2 = Convolution3d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(channels)

    def forward(self, volume: Volume) -> Features:
        """Extract features, stored channels last; the maximum of rectified values is the rectified maximum."""
        volume = volume.contiguous(memory_format=torch.channels_last_3d)
        first = F.relu(_pooled(normalised(self.conv1, self.norm1, volume), 2))
        return F.relu(_pooled(normalised(self.conv2, self.norm2, first), (1, 2, 2)))


def _pooled(volume: Tensor, stride: int | tuple[int, int, int]) -> Tensor:
    """Take the maximum of 3^3 neighbours, in the type that they have: autocast would make all of them float32 first."""
    if volume.is_meta:  # which autocast does not know: only the map's shape is asked for
        return F.max_pool3d(volume, 3, stride, 1)
    with torch.autocast(volume.device.type, enabled=False):
        return F.max_pool3d(volume, 3, stride, 1)


class RegressionHead(nn.Module):
    """Three convolutions and three linear layers from the concatenated maps to six numbers."""

    def __init__(self, feature_shape: Shape, channels: int = 2 * CHANNELS) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv1 = Convolution3d(channels, 16, 1)
        self.conv2 = Convolution3d(16, 4, 3, padding=1)
        self.conv3 = Convolution3d(4, 1, 3, padding=1)
        self.norm2 = nn.BatchNorm3d(1)
        self.linear1 = nn.Linear(feature_shape[0] * feature_shape[1] * feature_shape[2], 128)
        self.linear2 = nn.Linear(128, 32)
        self.linear3 = nn.Linear(32, 6)

    def forward(self, features: Volume) -> Parameters:
        """Regress (b, 6) from (b, 64, z, y, x)."""
        x = F.relu(self.conv1(self.norm1(features)))
        x = self.conv3(F.relu(self.conv2(x)))
        x = F.relu(self.norm2(x).flatten(1))
        return self.linear3(F.relu(self.linear2(F.relu(self.linear1(x)))))


class AttentionReg(nn.Module):
    """The paper's network; with `attention=False` it is Feature-Reg, the same network without the two blocks.

    `input_shape` is the size (z, y, x) of both volumes, (32, 96, 96) in the paper; the first linear layer grows with
    it. The fixed volume is an image, or in label mode the structure's mask. Call `eval()` before use.
    """

    def __init__(self, input_shape: Shape = PAPER_SHAPE, attention: bool = True) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.fixed_extractor = Extractor()
        self.moving_extractor = Extractor()
        self.fixed_attention = CrossModalAttention(CHANNELS) if attention else None
        self.moving_attention = CrossModalAttention(CHANNELS) if attention else None
        self.head = RegressionHead(feature_shape(input_shape))

    def forward(self, fixed: Volume, moving: Volume) -> Parameters:
        """Return (b, 6): translation (mm) and static x-y-z Euler angles (degrees) of the correction, from two crops."""
        check_crops(fixed, moving, self.input_shape)
        a, b = self.fixed_extractor(fixed), self.moving_extractor(moving)
        if self.fixed_attention is not None and self.moving_attention is not None:
            a, b = self.fixed_attention(a, b), self.moving_attention(b, a)
        return self.head(torch.cat((a, b), dim=1))

    def attention_blocks(self) -> tuple[AttentionBlock, ...]:
        """List both attention blocks; none for Feature-Reg."""
        blocks = (("fixed", self.fixed_attention), ("moving", self.moving_attention))
        return tuple(AttentionBlock(side, block) for side, block in blocks if block is not None)

    def token_grid(self) -> TokenGrid:
        """Position i of an axis lies on crop voxel 2 i (z) or 4 i (y, x), the middle of what its two poolings see."""
        return TokenGrid(feature_shape(self.input_shape), (2, 4, 4))

    def attention_row(self, fixed: Volume, moving: Volume, token: int) -> AttentionRow:
        """Return the attention of one fixed position, as the moving side's block computes it."""
        if self.moving_attention is None:
            raise InputError("Feature-Reg has no attention to show")
        query = self.moving_attention.query(self.fixed_extractor(fixed)).flatten(2)[0, :, token]
        keys = self.moving_attention.key(self.moving_extractor(moving)).flatten(2)[0]
        return AttentionRow(torch.softmax((query @ keys).cpu().double(), dim=0))


def feature_shape(input_shape: Shape) -> Shape:
    """Size (z, y, x) of the extractor's output."""
    depth, height, width = ((size + 1) // 2 for size in input_shape)
    return (depth, (height + 1) // 2, (width + 1) // 2)
