"""The small fusion network that comes with weights: deformable cross-attention far off, convolutions close by."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.models.dcfb import padded_to
from crossalign.models.dcfb_block import ChannelNorm, DeformableCrossBlend
from crossalign.models.fusion_moments import MEAN_C, SPREAD_C, PairMoments, pair_moments, ssim_step
from crossalign.types import Map, Volume

EMBED = 4  # voxels to a token, along each axis
STEP_LIMIT = 0.25
MOMENTS = 12


@dataclass(frozen=True)
class CompactSettings:
    """The size of the network. `window` counts tokens of 4^3 voxels; `steps` are refinements at full resolution."""

    channels: int = 32
    blocks: int = 2
    heads: int = 4
    window: int = 4
    kernel: int = 5
    context: int = 12
    hidden: int = 16
    steps: int = 3

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1 or self.channels % self.heads:
            raise InputError(f"sizes are 1 or more and the heads divide the channels, got {self}")
        if self.kernel % 2 == 0:
            raise InputError(f"'kernel' must be odd, got {self.kernel}")

    @property
    def multiple(self) -> int:
        """Volumes are padded to multiples of this on each axis, and tiles must start at multiples of it."""
        return EMBED * self.window


class DCFBCompact(nn.Module):
    """Fuse two volumes (b, 1, z, y, x) in [0, 1] into one of the same size: `forward(a, b, emphasis)`.

    `emphasis` (b,) goes from 0 (balanced) to 1 (detail). DCFB blocks, shared by both modalities, work on tokens of 4^3
    voxels; what they find is brought to full resolution beside the local moments of both inputs, where convolutions
    choose, voxel by voxel, the level between the two local means and the share of each input's detail:
    mean + gain_a (a - mean_a) + gain_b (b - mean_b). A few refinements follow, each told where structural similarity to
    both inputs would rise. Nothing is normalised over the whole volume, so that a tile gives what the whole volume
    gives, but for its border.
    """

    def __init__(self, settings: CompactSettings | None = None) -> None:
        super().__init__()
        self.settings = settings = settings or CompactSettings()
        width, hidden = settings.channels, settings.hidden
        self.embed = nn.Sequential(
            nn.Conv3d(2, width // 2, 2, stride=2),
            nn.GELU(),
            nn.Conv3d(width // 2, width, 2, stride=2),
            ChannelNorm(width),
        )
        self.blocks = nn.ModuleList(
            DeformableCrossBlend(width, settings.heads, settings.window, reach=settings.window, kernel=settings.kernel)
            for _ in range(settings.blocks)
        )
        self.context = nn.Sequential(ChannelNorm(2 * width), nn.Conv3d(2 * width, settings.context, 1))
        self.mix = nn.Conv3d(settings.context + MOMENTS + 1, hidden + 8, 1)
        self.around = nn.Conv3d(hidden + 8, hidden, 3, padding=1, padding_mode="replicate")
        self.tune = nn.Linear(1, 2 * hidden)
        self.choose = nn.Conv3d(hidden, 3, 1)
        self.refinements = nn.ModuleList(Refinement(hidden) for _ in range(settings.steps))
        with torch.no_grad():  # begin near the plain average
            self.choose.weight.mul_(0.3)
            self.choose.bias = nn.Parameter(torch.tensor([0.0, -1.1, -1.1]))

    def forward(self, a: Volume, b: Volume, emphasis: Tensor) -> Volume:
        """Fuse; the result lies in [0, 1]."""
        shape = a.shape[2:]
        a, b = (padded_to(volume, self.settings.multiple) for volume in (a, b))
        x, other = (self.embed(torch.cat((volume, _loud(volume, MEAN_C)), dim=1)) for volume in (a, b))
        for block in self.blocks:
            x = block(x, other)
            other = block(other, x)
        context = self.context(torch.cat((x, other), dim=1))
        context = F.interpolate(context, scale_factor=float(EMBED), mode="trilinear", align_corners=False)
        moments = pair_moments(a, b)
        wish = 2 * emphasis.to(a)[:, None] - 1
        condition = wish[:, :, None, None, None].expand_as(a)
        hidden = F.gelu(self.mix(torch.cat((context, _described(a, b, moments), condition), dim=1)))
        scale, shift = self.tune(wish)[:, :, None, None, None].chunk(2, dim=1)
        hidden = F.gelu(self.around(hidden)) * (1 + scale) + shift
        fused = _chosen(self.choose(hidden), a, b, moments)
        for refinement in self.refinements:
            fused = refinement(fused, a, b, moments, hidden)
        return fused[:, :, : shape[0], : shape[1], : shape[2]]


class Refinement(nn.Module):
    """One step at full resolution: some of the way that structural similarity points, some towards either input."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mix = nn.Conv3d(hidden + 4, 12, 1)
        self.around = nn.Conv3d(12, 8, 3, padding=1, padding_mode="replicate")
        self.out = nn.Conv3d(8, 3, 1)
        with torch.no_grad():
            self.out.weight.mul_(0.3)
            self.out.bias = nn.Parameter(torch.zeros(3))

    def forward(self, fused: Volume, a: Volume, b: Volume, moments: PairMoments, hidden: Map) -> Volume:
        """Refine; the step is taken as given: no gradient runs through it."""
        with torch.no_grad():
            step = ssim_step(fused.detach(), a, b, moments).clamp(-STEP_LIMIT, STEP_LIMIT)
        told = torch.cat((step * 10, _loud(step, 0.01), (a - fused) * 3, (b - fused) * 3, hidden), dim=1)
        go, to_a, to_b = self.out(F.gelu(self.around(F.gelu(self.mix(told))))).chunk(3, dim=1)
        moved = fused + 2 * torch.sigmoid(go) * step
        return (moved + 0.3 * torch.tanh(to_a) * (a - fused) + 0.3 * torch.tanh(to_b) * (b - fused)).clamp(0, 1)


def _described(a: Volume, b: Volume, moments: PairMoments) -> Map:
    """Twelve channels of the order of 1: both volumes, their means and spreads, and how they go together."""
    of_a, of_b = moments.a, moments.b
    spreads = (of_a.variance.clamp(min=0) + SPREAD_C).sqrt(), (of_b.variance.clamp(min=0) + SPREAD_C).sqrt()
    together = moments.covariance / (spreads[0] * spreads[1])
    louder = torch.log(spreads[0] / spreads[1])
    details = (a - of_a.mean) / spreads[0], (b - of_b.mean) / spreads[1]
    spread_logs = (spreads[0].log() + 2.5, spreads[1].log() + 2.5)
    mean_logs = _loud(of_a.mean, MEAN_C) - 2, _loud(of_b.mean, MEAN_C) - 2
    return torch.cat((a, b, of_a.mean, of_b.mean, *mean_logs, *spread_logs, *details, together, louder), dim=1)


def _chosen(choice: Map, a: Volume, b: Volume, moments: PairMoments) -> Volume:
    level, gain_a, gain_b = choice.chunk(3, dim=1)
    share = torch.sigmoid(level)
    mean = share * moments.a.mean + (1 - share) * moments.b.mean
    detail = 2 * torch.sigmoid(gain_a) * (a - moments.a.mean) + 2 * torch.sigmoid(gain_b) * (b - moments.b.mean)
    return (mean + detail).clamp(0, 1)


def _loud(value: Volume, floor: float) -> Volume:
    """Sign and logarithm, so that faint values tell as much as bright ones."""
    return torch.sign(value) * torch.log1p(value.abs() / floor)
