"""The Deformable Cross Feature Blend block (Liu et al., ICONIP 2023; arXiv 2310.06291), as the paper describes it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.geometry import sample
from crossalign.types import Map, PointLattice, Volume

REACH_VOXEL = 1.0
CONVOLUTION = 7


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (b, c, z, y, x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, volume: Volume) -> Volume:
        """Normalise each voxel by itself."""
        return self.norm(volume.movedim(1, -1)).movedim(-1, 1)


class DropPath(nn.Module):
    """Leave out a residual branch for a share `rate` of the batch, in training only."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, volume: Volume) -> Volume:
        """Drop, or keep and scale up, so that the mean stays."""
        if not self.training or self.rate == 0:
            return volume
        kept = torch.rand(len(volume), 1, 1, 1, 1, device=volume.device) >= self.rate
        return volume * kept / (1 - self.rate)


class Offsets(nn.Module):
    """Where to look in the other map: offsets (b, z, y, x, 3), ordered (x, y, z), within +-1 voxel of the place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv3d(2 * channels, channels, 1)
        self.around = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        self.norm = ChannelNorm(channels)
        self.out = nn.Conv3d(channels, 3, 1, bias=False)

    def forward(self, x: Volume, other: Volume) -> PointLattice:
        """Predict offsets from both maps."""
        hidden = F.gelu(self.norm(self.around(self.mix(torch.cat((x, other), dim=1)))))
        return torch.tanh(self.out(hidden)).movedim(1, -1) * REACH_VOXEL


class WindowAttention(nn.Module):
    """Softmax attention in windows of `window`^3 voxels, side by side: values of x, found by keys of the other map.

    Keys have no bias: it would shift every score of a query alike and change nothing.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        if channels % heads:
            raise InputError(f"{channels} channels do not split into {heads} heads")
        self.heads, self.window = heads, window
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.position = nn.Parameter(torch.randn(heads, (2 * window - 1) ** 3) * 0.02)
        self.register_buffer("pairs", _position_pairs(window), persistent=False)

    def forward(self, x: Volume, other: Volume, gate: Map) -> Volume:
        """Attend; `gate` multiplies the values. Sizes are multiples of the window on each axis."""
        shape = x.shape
        query = self._heads(self.query(self._windows(x)))
        key = self._heads(self.key(self._windows(other)))
        value = self._heads(self.value(self._windows(x)) * self._windows(gate.expand(shape)))
        pairs: Tensor = self.pairs  # type: ignore[assignment]
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=self.position[:, pairs].to(query.dtype))
        return self._volume(found.transpose(1, 2).flatten(2), shape)

    def _windows(self, volume: Volume) -> Tensor:
        """Cut (b, c, z, y, x) into (b * windows, window^3, c)."""
        w = self.window
        b, c, z, y, x = volume.shape
        cut = volume.reshape(b, c, z // w, w, y // w, w, x // w, w)
        return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(-1, w**3, c)

    def _volume(self, tokens: Tensor, shape: torch.Size) -> Volume:
        w = self.window
        b, c, z, y, x = shape
        cut = tokens.reshape(b, z // w, y // w, x // w, w, w, w, c)
        return cut.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(shape)

    def _heads(self, tokens: Tensor) -> Tensor:
        n, count, channels = tokens.shape
        return tokens.reshape(n, count, self.heads, channels // self.heads).transpose(1, 2)


class ChannelGate(nn.Module):
    """A factor from 0 to 1 for each channel of the values, out of the convolution's branch.

    The branch is averaged over the whole volume, as in MixFormer, or over cubes of `reach` voxels: then a voxel's
    result does not depend on how far the volume goes on.
    """

    def __init__(self, channels: int, reach: int | None) -> None:
        super().__init__()
        inner = max(4, channels // 8)
        self.reach = reach
        self.squeeze = nn.Conv3d(channels, inner, 1)
        self.excite = nn.Conv3d(inner, channels, 1)

    def forward(self, branch: Volume) -> Map:
        """Return the gate, (b, c, 1, 1, 1) or (b, c, z, y, x)."""
        pooled = F.adaptive_avg_pool3d(branch, 1) if self.reach is None else F.avg_pool3d(branch, self.reach)
        gate = torch.sigmoid(self.excite(F.gelu(self.squeeze(pooled))))
        if self.reach is None:
            return gate
        for axis in (2, 3, 4):
            gate = gate.repeat_interleave(self.reach, dim=axis)
        return gate


class DeformableCrossBlend(nn.Module):
    """One block: x, told about the other modality's map `other` of the same shape (b, c, z, y, x).

    The other map is resampled at learned offsets; windowed cross-attention and a grouped convolution (7^3) on both maps
    run side by side, each gating the other as in MixFormer; both are blended by a linear layer, added to x, and
    followed by an MLP. `reach` is that of `ChannelGate`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int,
        drop: float = 0.0,
        reach: int | None = None,
        kernel: int = CONVOLUTION,
    ) -> None:
        super().__init__()
        self.norm_x, self.norm_other = ChannelNorm(channels), ChannelNorm(channels)
        self.offsets = Offsets(channels)
        self.attention = WindowAttention(channels, heads, window)
        self.beside = nn.Conv3d(2 * channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.channel_gate = ChannelGate(channels, reach)
        inner = max(4, channels // 8)
        self.place_gate = nn.Sequential(nn.Conv3d(channels, inner, 1), nn.GELU(), nn.Conv3d(inner, 1, 1))
        self.blend = nn.Conv3d(2 * channels, channels, 1)
        self.think = nn.Sequential(
            ChannelNorm(channels), nn.Conv3d(channels, 4 * channels, 1), nn.GELU(), nn.Conv3d(4 * channels, channels, 1)
        )
        self.drop = DropPath(drop)

    def forward(self, x: Volume, other: Volume) -> Volume:
        """Blend."""
        own, theirs = self.norm_x(x), self.norm_other(other)
        theirs = resampled_at(theirs, self.offsets(own, theirs))
        branch = F.gelu(self.beside(torch.stack((own, theirs), dim=2).flatten(1, 2)))  # a group sees both maps' channel
        attended = self.attention(own, theirs, self.channel_gate(branch))
        branch = branch * torch.sigmoid(self.place_gate(attended))
        x = x + self.drop(self.blend(torch.cat((attended, branch), dim=1)))
        return x + self.drop(self.think(x))


def resampled_at(volume: Volume, offsets_voxel: PointLattice) -> Volume:
    """Sample a map (b, c, z, y, x) trilinearly at its own voxels moved by offsets (b, z, y, x, 3), ordered (x, y, z).

    Places beyond the border take the border's value.
    """
    axes = [torch.arange(size, device=volume.device, dtype=offsets_voxel.dtype) for size in volume.shape[2:]]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    points = torch.stack((x, y, z), dim=-1) + offsets_voxel
    last = torch.tensor(volume.shape[:1:-1], device=volume.device, dtype=points.dtype) - 1
    return sample(volume, torch.minimum(points.clamp(min=0), last))


def _position_pairs(window: int) -> Tensor:
    """Return the number (window^3, window^3) of the relative position of each pair of voxels of a window."""
    axes = torch.meshgrid(*(torch.arange(window),) * 3, indexing="ij")
    places = torch.stack(axes, dim=-1).reshape(-1, 3)
    gap = places[:, None] - places + window - 1
    return (gap * torch.tensor([(2 * window - 1) ** 2, 2 * window - 1, 1])).sum(-1)
