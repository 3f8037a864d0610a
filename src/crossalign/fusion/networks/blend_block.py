"""The Deformable Cross Feature Blend block (Liu et al., ICONIP 2023; arXiv 2310.06291), as in the paper's text."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.geometry import sample
from crossalign.types import Map, PointGrid, Shape, Volume

LARGEST_OFFSET_VOXEL = 1.0
CONVOLUTION: Shape = (7, 7, 7)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (b, c, z, y, x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, volume: Volume) -> Volume:
        """Normalise each voxel by itself."""
        return self.norm(volume.movedim(1, -1)).movedim(-1, 1)


class DropPath(nn.Module):
    """Leave out a residual branch for a fraction `rate` of the batch, in training only."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, volume: Volume) -> Volume:
        """Drop, or scale up, so that the mean is unchanged."""
        if not self.training or self.rate == 0:
            return volume
        retained = torch.rand(len(volume), 1, 1, 1, 1, device=volume.device) >= self.rate
        return volume * retained / (1 - self.rate)


class Offsets(nn.Module):
    """Offsets (b, z, y, x, 3), ordered (x, y, z), of up to 1 voxel, at which the other map is sampled.

    With `planar` they lie in the axial plane.
    """

    def __init__(self, channels: int, planar: bool = False) -> None:
        super().__init__()
        kernel = (1, 3, 3) if planar else (3, 3, 3)
        self.pointwise = nn.Conv3d(2 * channels, channels, 1)
        self.spatial = nn.Conv3d(channels, channels, kernel, padding=half(kernel), groups=channels)
        self.norm = ChannelNorm(channels)
        self.out = nn.Conv3d(channels, 2 if planar else 3, 1, bias=False)

    def forward(self, x: Volume, other: Volume) -> PointGrid:
        """Predict offsets from both maps."""
        hidden = F.gelu(self.norm(self.spatial(self.pointwise(torch.cat((x, other), dim=1)))))
        offsets = torch.tanh(self.out(hidden)).movedim(1, -1) * LARGEST_OFFSET_VOXEL
        return F.pad(offsets, (0, 3 - offsets.shape[-1]))


class WindowAttention(nn.Module):
    """Softmax attention in windows of `window` (z, y, x) voxels: queries and values of x, keys of the other map.

    Keys have no bias: it would add the same number to every score of a query and change nothing.
    """

    def __init__(self, channels: int, heads: int, window: Shape) -> None:
        super().__init__()
        if channels % heads:
            raise InputError(f"{channels} channels do not split into {heads} heads")
        self.heads, self.window = heads, window
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.position = nn.Parameter(torch.randn(heads, math.prod(2 * n - 1 for n in window)) * 0.02)
        self.register_buffer("pairs", _position_pairs(window), persistent=False)

    def forward(self, x: Volume, other: Volume, gate: Map) -> Volume:
        """Attend; `gate` multiplies the values. Sizes are multiples of the window on each axis."""
        shape = x.shape
        query = self._heads(self.query(self._windows(x)))
        key = self._heads(self.key(self._windows(other)))
        value = self._heads(self.value(self._windows(x)) * self._windows(gate.expand(shape)))
        pairs: Tensor = self.pairs  # type: ignore[assignment]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=self.position[:, pairs].to(query.dtype))
        return self._volume(attended.transpose(1, 2).flatten(2), shape)

    def _windows(self, volume: Volume) -> Tensor:
        """Cut (b, c, z, y, x) into (b * windows, voxels of one, c)."""
        d, h, w = self.window
        b, c, z, y, x = volume.shape
        cut = volume.reshape(b, c, z // d, d, y // h, h, x // w, w)
        return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(-1, d * h * w, c)

    def _volume(self, tokens: Tensor, shape: torch.Size) -> Volume:
        d, h, w = self.window
        b, c, z, y, x = shape
        cut = tokens.reshape(b, z // d, y // h, x // w, d, h, w, c)
        return cut.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(shape)

    def _heads(self, tokens: Tensor) -> Tensor:
        n, count, channels = tokens.shape
        return tokens.reshape(n, count, self.heads, channels // self.heads).transpose(1, 2)


class ChannelGate(nn.Module):
    """A factor from 0 to 1 for each channel of the values, computed from the convolution's branch.

    The branch is averaged over the whole volume, as in MixFormer, or over boxes of `box` (z, y, x) voxels: then a
    voxel's result does not depend on the size of the volume.
    """

    def __init__(self, channels: int, box: Shape | None) -> None:
        super().__init__()
        inner = max(4, channels // 8)
        self.box = box
        self.squeeze = nn.Conv3d(channels, inner, 1)
        self.excite = nn.Conv3d(inner, channels, 1)

    def forward(self, branch: Volume) -> Map:
        """Return the gate, (b, c, 1, 1, 1) or (b, c, z, y, x)."""
        pooled = F.adaptive_avg_pool3d(branch, 1) if self.box is None else F.avg_pool3d(branch, self.box)
        gate = torch.sigmoid(self.excite(F.gelu(self.squeeze(pooled))))
        if self.box is None:
            return gate
        for axis, size in enumerate(self.box, start=2):
            gate = gate.repeat_interleave(size, dim=axis)
        return gate


class GatedValues(nn.Module):
    """What is left of the attention where nothing attends to anything: gated values of x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value = nn.Conv3d(channels, channels, 1)

    def forward(self, x: Volume, _other: Volume, gate: Map) -> Volume:
        """Return the values, multiplied by `gate`."""
        return self.value(x) * gate


@dataclass(frozen=True)
class BlendForm:
    """The form of a block: the box of `ChannelGate`, the kernel of its convolution, and parts that it may lack.

    An ablation lacks the attention, each voxel then has its own value; or the offsets, the other map is taken as it is.
    """

    box: Shape | None = None
    kernel: Shape = CONVOLUTION
    attention: bool = True
    offsets: bool = True


PUBLISHED_FORM = BlendForm()


class DeformableCrossBlend(nn.Module):
    """One block: cross-attention of x to the other modality's map `other`, both (b, c, z, y, x).

    The other map is resampled at learned offsets; windowed cross-attention and a grouped convolution (7^3) on both maps
    run in parallel, each gating the other as in MixFormer; both are blended by a linear layer, added to x, and followed
    by an MLP. With a window and a kernel of one plane, planes are independent.
    """

    def __init__(
        self, channels: int, heads: int, window: Shape, drop: float = 0.0, form: BlendForm = PUBLISHED_FORM
    ) -> None:
        super().__init__()
        self.norm_x, self.norm_other = ChannelNorm(channels), ChannelNorm(channels)
        self.offsets = Offsets(channels, planar=window[0] == 1) if form.offsets else None
        self.attention = WindowAttention(channels, heads, window) if form.attention else GatedValues(channels)
        self.convolution = nn.Conv3d(2 * channels, channels, form.kernel, padding=half(form.kernel), groups=channels)
        self.channel_gate = ChannelGate(channels, form.box)
        inner = max(4, channels // 8)
        self.spatial_gate = nn.Sequential(nn.Conv3d(channels, inner, 1), nn.GELU(), nn.Conv3d(inner, 1, 1))
        self.blend = nn.Conv3d(2 * channels, channels, 1)
        self.mlp = nn.Sequential(
            ChannelNorm(channels), nn.Conv3d(channels, 4 * channels, 1), nn.GELU(), nn.Conv3d(4 * channels, channels, 1)
        )
        self.drop = DropPath(drop)

    def forward(self, x: Volume, other: Volume) -> Volume:
        """Blend."""
        own, theirs = self.norm_x(x), self.norm_other(other)
        if self.offsets is not None:
            theirs = resampled_at(theirs, self.offsets(own, theirs))
        branch = F.gelu(self.convolution(torch.stack((own, theirs), dim=2).flatten(1, 2)))  # groups: a channel of both
        attended = self.attention(own, theirs, self.channel_gate(branch))
        branch = branch * torch.sigmoid(self.spatial_gate(attended))
        x = x + self.drop(self.blend(torch.cat((attended, branch), dim=1)))
        return x + self.drop(self.mlp(x))


def resampled_at(volume: Volume, offsets_voxel: PointGrid) -> Volume:
    """Sample a map (b, c, z, y, x) trilinearly at its own voxels plus offsets (b, z, y, x, 3), ordered (x, y, z).

    Points beyond the border take the border's value.
    """
    axes = [torch.arange(size, device=volume.device, dtype=offsets_voxel.dtype) for size in volume.shape[2:]]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    points = torch.stack((x, y, z), dim=-1) + offsets_voxel
    last = torch.tensor(volume.shape[:1:-1], device=volume.device, dtype=points.dtype) - 1
    return sample(volume, torch.minimum(points.clamp(min=0), last))


def half(kernel: Shape) -> Shape:
    """Return the padding with which an odd kernel preserves a volume's size."""
    depth, height, width = kernel
    return depth // 2, height // 2, width // 2


def _position_pairs(window: Shape) -> Tensor:
    """Return the number (n, n) of the relative position of each pair of the n voxels of a window."""
    axes = torch.meshgrid(*(torch.arange(n) for n in window), indexing="ij")
    voxels = torch.stack(axes, dim=-1).reshape(-1, 3)
    difference = voxels[:, None] - voxels + torch.tensor(window) - 1
    _, height, width = (2 * n - 1 for n in window)
    return (difference * torch.tensor([height * width, width, 1])).sum(-1)
