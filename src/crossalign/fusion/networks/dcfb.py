"""The fusion network of Liu et al. (ICONIP 2023), DCFB, at the paper's size or smaller."""

import torch
import torch.nn.functional as F
from torch import nn

from crossalign.fusion.networks.blend_block import ChannelNorm, DeformableCrossBlend
from crossalign.fusion.networks.settings import TOKEN, DCFBSettings
from crossalign.types import Map, Shape, Volume


class SharedBlocks(nn.Module):
    """Blocks with one set of weights for both modalities: x attends to other, then other to the new x."""

    def __init__(self, channels: int, heads: int, window: int, drops: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DeformableCrossBlend(channels, heads, (window,) * 3, drop) for drop in drops)

    def forward(self, x: Volume, other: Volume) -> tuple[Volume, Volume]:
        """Blend both maps."""
        for block in self.blocks:
            x = block(x, other)
            other = block(other, x)
        return x, other


class Merge(nn.Module):
    """Half the size, twice the channels: each `box` (z, y, x) of voxels through one linear layer, then normalised."""

    def __init__(self, channels: int, box: Shape = (2, 2, 2)) -> None:
        super().__init__()
        self.linear = nn.Conv3d(channels, 2 * channels, box, stride=box)
        self.norm = ChannelNorm(2 * channels)

    def forward(self, x: Volume) -> Map:
        """Merge; sizes are even."""
        return self.norm(self.linear(x))


class Expand(nn.Module):
    """Each voxel becomes a `box` (z, y, x) of them, with half the channels."""

    def __init__(self, channels: int, box: Shape = (2, 2, 2)) -> None:
        super().__init__()
        self.linear = nn.ConvTranspose3d(channels, channels // 2, box, stride=box)
        self.norm = ChannelNorm(channels // 2)

    def forward(self, x: Volume) -> Map:
        """Expand."""
        return self.norm(self.linear(x))


class DCFB(nn.Module):
    """Fuse two volumes (b, 1, z, y, x) in [0, 1] into one, of any size: `forward(a, b)`.

    One set of weights serves both modalities in the encoder, and in the decoder, which mirrors it. The two channels of
    the head are the two inputs' contributions, each weighted by its fraction of the activity, |.| summed over the
    channel (the paper's L1 norm). Since the fractions sum to 1 the output's scale does not depend on the volume's size.
    """

    def __init__(self, settings: DCFBSettings | None = None) -> None:
        super().__init__()
        self.settings = settings = settings or DCFBSettings()
        widths = [settings.channels << level for level in range(len(settings.depths))]
        self.embed = nn.Conv3d(1, settings.channels, TOKEN, stride=TOKEN)
        self.embed_norm = ChannelNorm(settings.channels)
        levels = range(len(widths))
        self.encoder = nn.ModuleList(_level(settings, number) for number in levels)
        self.merges = nn.ModuleList(Merge(width) for width in widths[:-1])
        self.middle_norm = ChannelNorm(widths[-1])
        self.decoder = nn.ModuleList(_level(settings, number) for number in reversed(levels))
        self.expands = nn.ModuleList(Expand(width) for width in widths[:0:-1])
        self.skips = nn.ModuleList(nn.Conv3d(2 * width, width, 1) for width in widths[-2::-1])
        self.head_norm = ChannelNorm(2 * settings.channels)
        self.head_up = nn.ConvTranspose3d(2 * settings.channels, settings.channels // 2, TOKEN, stride=TOKEN)
        self.head_out = nn.Conv3d(settings.channels // 2, 2, 3, padding=1)

    def forward(self, a: Volume, b: Volume) -> Volume:
        """Fuse; the result is (b, 1, z, y, x), about the range of the inputs."""
        shape = a.shape[2:]
        a, b = (padded_to(volume, (self.settings.multiple,) * 3) for volume in (a, b))
        x, other = (self.embed_norm(self.embed(volume)) for volume in (a, b))
        skipped = []
        for level, merge in zip(self.encoder, self.merges, strict=False):  # the last level is not merged
            x, other = level(x, other)
            skipped.append((x, other))
            x, other = merge(x), merge(other)
        x, other = (self.middle_norm(volume) for volume in self.encoder[-1](x, other))
        x, other = self.decoder[0](x, other)
        for expand, skip, level in zip(self.expands, self.skips, self.decoder[1:], strict=True):
            skip_x, skip_other = skipped.pop()
            x = skip(torch.cat((expand(x), skip_x), dim=1))
            other = skip(torch.cat((expand(other), skip_other), dim=1))
            x, other = level(x, other)
        maps = self.head_out(self.head_up(self.head_norm(torch.cat((x, other), dim=1))))
        return weighted_sum(maps)[:, :, : shape[0], : shape[1], : shape[2]]


def _level(settings: DCFBSettings, number: int) -> SharedBlocks:
    """Make a level of the encoder or the decoder; deeper blocks are dropped more often."""
    first, total = sum(settings.depths[:number]), sum(settings.depths)
    drops = [settings.drop_path * (first + k) / max(1, total - 1) for k in range(settings.depths[number])]
    return SharedBlocks(settings.channels << number, settings.heads[number], settings.window, drops)


def weighted_sum(maps: Volume) -> Map:
    """Sum channels (b, c, z, y, x), each weighted by its fraction of the mean |value|: (b, 1, z, y, x).

    Doubling the volume does not change the weights; the authors' program takes raw sums instead. The weights of maps
    that are 0 everywhere are equal.
    """
    strength = maps.abs().mean(dim=(2, 3, 4), keepdim=True)
    total = strength.sum(dim=1, keepdim=True)
    even = torch.full_like(strength, 1 / maps.shape[1])
    weight = torch.where(total > 0, strength / torch.where(total > 0, total, torch.ones_like(total)), even)
    return (maps * weight).sum(dim=1, keepdim=True)


def padded_to(volume: Volume, multiple: Shape) -> Map:
    """Repeat the far border until each axis is a multiple of its number (z, y, x)."""
    sizes = zip(volume.shape[:1:-1], multiple[::-1], strict=True)
    padding = [value for size, part in sizes for value in (0, -size % part)]
    return F.pad(volume, padding, mode="replicate") if any(padding) else volume
