"""The compact fusion network: an encoder-decoder of DCFB blocks, and steps towards both scores that it weighs."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.fusion.networks.blend_block import BlendForm, ChannelNorm, DeformableCrossBlend, half
from crossalign.fusion.networks.dcfb import Expand, Merge, padded_to
from crossalign.fusion.networks.mixture import (
    LOCAL_FEATURES,
    LocalMoments,
    geometric_mixture,
    local_features,
    signed_log,
)
from crossalign.fusion.networks.score_gradients import PairStatistics, pair_statistics
from crossalign.fusion.networks.settings import CompactSettings
from crossalign.fusion.networks.unrolled import (
    FROM_GEOMETRIC_MEAN,
    GAIN_A,
    GAIN_B,
    WEIGHT_A,
    StepWeights,
    improve_scores,
    qabf_log_weight,
)
from crossalign.similarity.local_scores import SSIM_K1
from crossalign.types import Map, Shape, Volume

PREDICTED = 5  # channels: the geometric mean's weight, both gains; Qabf's weight, the fraction of each step
LARGEST_LOG = 2.0  # of the factor by which Qabf's weight is changed
FIRST_SCALE = 0.1  # of the weights that the prediction is drawn with: it begins near the hand-set constants


class DCFBCompact(nn.Module):
    """Fuse two volumes (b, 1, z, y, x) in [0, 1] into one of the same size: `forward(a, b, detail)`.

    `detail` (b,) goes from 0 (balanced) to 1 (detail). DCFB blocks, shared by both modalities, work on tokens of 4^3
    voxels, then of 8^3, then of 4^3 again, joined with those of the first. Their output is interpolated to full
    resolution and joined with the local moments of both inputs. Convolutions predict five numbers for each voxel: the
    weight of a's local mean in a geometric mean of both, the fraction of each one's details, and for the steps towards
    structural similarity and Qabf that follow (`unrolled`) Qabf's weight and the fraction of each step. Gradients go
    through the steps. Nothing is normalised over the whole volume, so that a tile gives what the whole volume gives,
    except at its border. `planar` is the 2-D twin: the same layers and steps in the plane, axial slice by axial slice,
    each independent of the others. `limit_gradient` is for training: no voxel's gradient grows on its way through the
    steps.
    """

    def __init__(self, settings: CompactSettings | None = None, planar: bool = False) -> None:
        super().__init__()
        self.settings = settings = settings or CompactSettings()
        self.planar = planar
        self.limit_gradient = False
        width, hidden = settings.channels, settings.hidden
        two = box(2, planar)
        self.embed = nn.Sequential(
            nn.Conv3d(2, width // 2, two, stride=two),
            nn.GELU(),
            nn.Conv3d(width // 2, width, two, stride=two),
            ChannelNorm(width),
        )
        self.modality = nn.Parameter(torch.randn(2, width) * 0.02)
        self.encoder = self._blocks(width, settings.blocks)
        self.merge = Merge(width, two)
        self.middle = self._blocks(2 * width, settings.middle_blocks)
        self.expand = Expand(2 * width, two)
        self.skip = nn.Conv3d(2 * width, width, 1)
        self.decoder = self._blocks(width, settings.blocks)
        self.context = nn.Sequential(ChannelNorm(2 * width), nn.Conv3d(2 * width, settings.context, 1))
        self.pointwise = nn.Conv3d(settings.context + LOCAL_FEATURES + 1, hidden + 4, 1)
        self.spatial = _spatial(hidden + 4, hidden, planar)
        self.modulation = nn.Linear(1, 2 * hidden)
        self.second = nn.Conv3d(hidden, hidden, 1)
        self.out = nn.Conv3d(hidden, PREDICTED, 1)
        first = (_logit(WEIGHT_A), _logit(GAIN_A / 2), _logit(GAIN_B / 2), 0.0, 0.0)
        with torch.no_grad():
            self.out.weight.mul_(FIRST_SCALE)
            self.out.bias = nn.Parameter(torch.tensor(first))

    def forward(self, a: Volume, b: Volume, detail: Tensor) -> Volume:
        """Fuse; the result lies in [0, 1]."""
        fused = improve_scores(*self.first(a, b, detail), self.settings.score_steps, self.limit_gradient)
        return fused.reshape(a.shape)

    def first(self, a: Volume, b: Volume, detail: Tensor) -> tuple[Map, PairStatistics, StepWeights]:
        """Predict the first fused volume, and for the steps that follow the pair's statistics and the weights.

        In the plane each slice is one of a batch (b * z, 1, 1, y, x).
        """
        if self.planar:
            a, b, detail = _slices(a), _slices(b), detail.repeat_interleave(a.shape[2])
        pair, (depth, height, width) = (a, b), a.shape[2:]
        a, b = (padded_to(volume, box(self.settings.multiple, self.planar)) for volume in pair)
        context = F.interpolate(self.coarse_context(a, b), size=a.shape[2:], mode="trilinear", align_corners=False)
        moments, condition = LocalMoments.of(a, b), condition_of(detail, a)
        everywhere = condition[:, :, None, None, None].expand_as(a)
        mixed = F.gelu(self.pointwise(torch.cat((context, local_features(moments), everywhere), dim=1)))
        hidden = self.modulated(F.gelu(self.spatial(mixed)), condition)
        prediction = self.out(hidden + F.gelu(self.second(hidden))).float()
        start, weights = (part[..., :depth, :height, :width] for part in start_and_weights(prediction, moments, detail))
        return start, pair_statistics(*pair), step_weights_of(weights)

    def modulated(self, hidden: Map, condition: Tensor) -> Map:
        """Scale and shift hidden channels by the condition."""
        scale, shift = self.modulation(condition)[:, :, None, None, None].chunk(2, dim=1)
        return hidden * (1 + scale) + shift

    def coarse_context(self, a: Volume, b: Volume) -> Map:
        """Return the output of the blocks, a voxel for each token of 4^3 voxels (in the plane: 4^2)."""
        x, other = (self._tokens(volume, number) for number, volume in enumerate((a, b)))
        x, other = _both(self.encoder, x, other)
        deep, deep_other = _both(self.middle, self.merge(x), self.merge(other))
        x, other = (
            self.skip(torch.cat((self.expand(below), beside), dim=1))
            for below, beside in ((deep, x), (deep_other, other))
        )
        x, other = _both(self.decoder, x, other)
        return self.context(torch.cat((x, other), dim=1))

    def _tokens(self, volume: Volume, number: int) -> Map:
        tokens = self.embed(torch.cat((volume, signed_log(volume, SSIM_K1)), dim=1))
        return tokens + self.modality[number][:, None, None, None]

    def _blocks(self, width: int, count: int) -> nn.ModuleList:
        s = self.settings
        window = box(s.window, self.planar)
        form = BlendForm(window, box(s.kernel, self.planar), s.attention, s.offsets)
        return nn.ModuleList(DeformableCrossBlend(width, s.heads, window, form=form) for _ in range(count))


def start_and_weights(prediction: Map, pair: LocalMoments, detail: Tensor) -> tuple[Volume, Map]:
    """Turn the prediction (b, 5, z, y, x) into the first fused volume, and two weights (b, 2, z, y, x) of the steps."""
    level, gain_a, gain_b, qabf, fraction = prediction.chunk(PREDICTED, dim=1)
    gains = 2 * torch.sigmoid(gain_a), 2 * torch.sigmoid(gain_b)
    fused = geometric_mixture((pair.a, pair.b), (pair.of_a.mean, pair.of_b.mean), torch.sigmoid(level), gains)
    usual = qabf_log_weight(FROM_GEOMETRIC_MEAN.detail(detail.to(prediction)))[:, None, None, None, None]
    qabf = torch.exp(usual + LARGEST_LOG * torch.tanh(qabf / LARGEST_LOG))
    return fused, torch.cat((qabf, 2 * torch.sigmoid(fraction)), dim=1)


def step_weights_of(weights: Map) -> StepWeights:
    """Name the two weights that `start_and_weights` returns."""
    return StepWeights(*weights.chunk(2, dim=1))


def condition_of(detail: Tensor, like: Volume) -> Tensor:
    """Turn how much detail is wanted (b,) into the network's condition (b, 1), from -1 to 1."""
    return 2 * detail.to(like)[:, None] - 1


def box(size: int, planar: bool) -> Shape:
    """Size along z, y, x: in the plane 1 along z."""
    return (1 if planar else size, size, size)


def _both(blocks: nn.ModuleList, x: Map, other: Map) -> tuple[Map, Map]:
    """Let x attend to other, then other to the new x, in each block."""
    for block in blocks:
        x = block(x, other)
        other = block(other, x)
    return x, other


def _slices(volume: Volume) -> Map:
    """Return the axial slices of (b, 1, z, y, x) as a batch: (b * z, 1, 1, y, x)."""
    return volume.transpose(1, 2).flatten(0, 1)[:, :, None]


def _spatial(channels: int, out: int, planar: bool) -> nn.Conv3d:
    kernel = box(3, planar)
    return nn.Conv3d(channels, out, kernel, padding=half(kernel), padding_mode="replicate")


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
