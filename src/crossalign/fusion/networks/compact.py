"""The compact fusion network: deformable cross-attention at low resolution, convolutions at full resolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.fusion.networks.blend_block import ChannelNorm, DeformableCrossBlend, half
from crossalign.fusion.networks.dcfb import padded_to
from crossalign.fusion.networks.score_gradients import (
    PairStatistics,
    ScoreGradient,
    joint_step,
    pair_statistics,
    qabf_gradient,
    ssim_gradient,
)
from crossalign.fusion.networks.settings import CompactSettings
from crossalign.similarity.local_scores import SSIM_C2, SSIM_K1
from crossalign.types import Map, Shape, Volume

STEP_LIMIT = 0.25
LOCAL_FEATURES, STEP_FEATURES = 12, 7
QABF_LOG, QABF_SLOPE = -1.95, 1.45  # logarithm of Qabf's weight at first: 0.03 balanced, 0.6 detail
QABF_RANGE = 1.5  # by which a voxel may change that logarithm
SCALE = 10.0  # step sizes and the like are stored divided by it, so that an optimiser's even steps change them as fast
ScoreGradients = tuple[ScoreGradient, ScoreGradient]  # of structural similarity, and of Qabf


class DCFBCompact(nn.Module):
    """Fuse two volumes (b, 1, z, y, x) in [0, 1] into one of the same size: `forward(a, b, detail)`.

    `detail` (b,) goes from 0 (balanced) to 1 (detail). DCFB blocks, shared by both modalities, work on tokens of 4^3
    voxels. Their output is interpolated to full resolution and joined with the local moments of both inputs.
    Convolutions predict for each voxel the weights of the two local means and of each input's detail:
    mean + gain_a (a - mean_a) + gain_b (b - mean_b). A few steps then optimise structural similarity to both inputs,
    and refinements follow, whose input includes the gradients of that and of Qabf. Nothing is normalised over the whole
    volume, so that a tile gives what the whole volume gives, except at its border. `planar` is the 2-D twin: the same
    layers in the plane, axial slice by axial slice, each independent of the others.
    """

    def __init__(self, settings: CompactSettings | None = None, planar: bool = False) -> None:
        super().__init__()
        self.settings = settings = settings or CompactSettings()
        self.planar = planar
        width, hidden = settings.channels, settings.hidden
        two, window = _box(2, planar), _box(settings.window, planar)
        self.embed = nn.Sequential(
            nn.Conv3d(2, width // 2, two, stride=two),
            nn.GELU(),
            nn.Conv3d(width // 2, width, two, stride=two),
            ChannelNorm(width),
        )
        self.blocks = nn.ModuleList(
            DeformableCrossBlend(width, settings.heads, window, box=window, kernel=_box(settings.kernel, planar))
            for _ in range(settings.blocks)
        )
        self.context = nn.Sequential(ChannelNorm(2 * width), nn.Conv3d(2 * width, settings.context, 1))
        self.pointwise = nn.Conv3d(settings.context + LOCAL_FEATURES + 1, hidden + 8, 1)
        self.spatial = _spatial(hidden + 8, hidden, planar)
        self.modulation = nn.Linear(1, 2 * hidden)
        self.initial = nn.Conv3d(hidden, 3, 1)
        self.ssim_steps = SSIMOptimisation(settings.ssim_steps)
        self.refinements = nn.ModuleList(RefinementStep(hidden, planar) for _ in range(settings.refinements))
        with torch.no_grad():  # begin near the plain average
            self.initial.weight.mul_(0.3)
            self.initial.bias = nn.Parameter(torch.tensor([0.0, -1.1, -1.1]))

    def forward(self, a: Volume, b: Volume, detail: Tensor) -> Volume:
        """Fuse; the result lies in [0, 1]."""
        return self.estimates(a, b, detail)[-1]

    def estimates(self, a: Volume, b: Volume, detail: Tensor) -> list[Volume]:
        """Fuse, and return the initial estimate, that after the SSIM steps, and each refinement's; the last is `fused`.

        Gradients run back through the SSIM steps to the initial estimate. None runs from one refinement to the one
        before: each is trained on its own output. With the score gradients treated as constants, a gradient through all
        refinements would leave out that later ones undo much of what earlier ones do: such a training was worse.
        """
        if not self.planar:
            return self._estimates(a, b, detail)
        depth = a.shape[2]
        estimates = self._estimates(_slices(a), _slices(b), detail.repeat_interleave(depth))
        return [one.reshape(len(a), depth, 1, *a.shape[3:]).transpose(1, 2) for one in estimates]

    def _estimates(self, a: Volume, b: Volume, detail: Tensor) -> list[Volume]:
        shape = a.shape[2:]
        a, b = (padded_to(volume, _box(self.settings.multiple, self.planar)) for volume in (a, b))
        pair, condition = pair_statistics(a, b), 2 * detail.to(a)[:, None] - 1
        everywhere = condition[:, :, None, None, None].expand_as(a)
        hidden = F.gelu(self.pointwise(torch.cat((self._context(a, b), local_features(pair), everywhere), dim=1)))
        scale, shift = self.modulation(condition)[:, :, None, None, None].chunk(2, dim=1)
        hidden = F.gelu(self.spatial(hidden)) * (1 + scale) + shift
        initial = initial_estimate(self.initial(hidden), pair)
        optimised, last_step = self.ssim_steps(initial, pair)
        estimates, last_step = [initial, optimised], last_step.detach()
        for refinement in self.refinements:
            before = estimates[-1].detach()
            estimates.append(refinement(before, last_step, pair, hidden, condition))
            last_step = estimates[-1].detach() - before
        return [fused[:, :, : shape[0], : shape[1], : shape[2]] for fused in estimates]

    def _context(self, a: Volume, b: Volume) -> Map:
        """Return the output of the blocks at full resolution."""
        context = self.coarse_context(a, b)
        return F.interpolate(context, size=a.shape[2:], mode="trilinear", align_corners=False)

    def coarse_context(self, a: Volume, b: Volume) -> Map:
        """Return the output of the blocks, a voxel for each token of 4^3 voxels (in the plane: 4^2)."""
        x, other = (self.embed(torch.cat((volume, signed_log(volume, SSIM_K1)), dim=1)) for volume in (a, b))
        for block in self.blocks:
            x = block(x, other)
            other = block(other, x)
        return self.context(torch.cat((x, other), dim=1))


class SSIMOptimisation(nn.Module):
    """Steps of gradient ascent with momentum in structural similarity to both inputs, all voxels alike.

    The step sizes, as fractions of the gradient over its curvature's bound, and the momentum are learned.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.full((steps,), 1.5 / SCALE))
        self.momentum = nn.Parameter(torch.tensor(0.5 / SCALE))

    def forward(self, fused: Volume, pair: PairStatistics) -> tuple[Volume, Volume]:
        """Return the optimised volume, in [0, 1], and the last step."""
        last_step = torch.zeros_like(fused)
        for number in range(len(self.size)):
            after = self.step(number, fused, last_step, ssim_gradient(fused, pair))
            fused, last_step = after, after - fused
        return fused, last_step

    def step(self, number: int, fused: Volume, last_step: Volume, ssim: ScoreGradient) -> Volume:
        """Take one step."""
        step = limited(ssim.gradient / ssim.curvature)
        return (fused + SCALE * (self.size[number] * step + self.momentum * last_step)).clamp(0, 1)


class RefinementStep(nn.Module):
    """One step at full resolution along the gradients of both scores, with momentum, and towards either input.

    The weight of Qabf beside structural similarity depends on the condition and is changed voxel by voxel. Untrained it
    is a step of gradient ascent with momentum, preconditioned by a bound of the curvature.
    """

    def __init__(self, hidden: int, planar: bool = False) -> None:
        super().__init__()
        self.pointwise = nn.Conv3d(hidden + STEP_FEATURES, 12, 1)
        self.spatial = _spatial(12, 8, planar)
        self.out = nn.Conv3d(8, 4, 1)
        self.qabf_weight = nn.Parameter(torch.tensor([QABF_LOG, QABF_SLOPE]) / SCALE)
        self.momentum = nn.Parameter(torch.zeros(()))
        with torch.no_grad():
            self.out.weight.mul_(0.03)
            self.out.bias = nn.Parameter(torch.zeros(4))

    def forward(self, fused: Volume, last_step: Volume, pair: PairStatistics, hidden: Map, condition: Tensor) -> Volume:
        """Refine; both score gradients are treated as constants."""
        with torch.no_grad():
            gradients = ssim_gradient(fused, pair), qabf_gradient(fused, pair)
        features = torch.cat((self.features(fused, last_step, pair, gradients), hidden), dim=1)
        out = self.out(F.gelu(self.spatial(F.gelu(self.pointwise(features))))).to(fused)
        return self.step(fused, last_step, pair, gradients, out, condition)

    @staticmethod
    def features(fused: Volume, last_step: Volume, pair: PairStatistics, gradients: ScoreGradients) -> Map:
        """Return the input of the convolutions beside the hidden features: seven channels of the order of 1."""
        ssim, qabf = gradients
        ssim_step, qabf_step = limited(ssim.gradient / ssim.curvature), limited(qabf.gradient / (qabf.curvature + 1))
        steps = ssim_step * 10, signed_log(ssim_step, 0.01), qabf_step * 10, signed_log(qabf_step, 0.01)
        return torch.cat((*steps, last_step * 10, (pair.a - fused) * 3, (pair.b - fused) * 3), dim=1)

    def step(
        self,
        fused: Volume,
        last_step: Volume,
        pair: PairStatistics,
        gradients: ScoreGradients,
        out: Map,
        condition: Tensor,
    ) -> Volume:
        """Take the step that the score gradients and the convolutions' output `out` (b, 4, z, y, x) make."""
        gain, balance, to_a, to_b = out.chunk(4, dim=1)
        level = SCALE * (self.qabf_weight[0] + self.qabf_weight[1] * condition)
        weight = torch.exp(level[:, :, None, None, None] + QABF_RANGE * torch.tanh(balance))
        step = limited(joint_step(*gradients, weight))
        fused = fused + 2 * torch.sigmoid(gain) * step + torch.sigmoid(SCALE * self.momentum) * last_step
        pulls = 0.3 * torch.tanh(to_a) * (pair.a - fused) + 0.3 * torch.tanh(to_b) * (pair.b - fused)
        return (fused + pulls).clamp(0, 1)


def limited(step: Volume) -> Volume:
    """Limit a step to a quarter of the range."""
    return step.clamp(-STEP_LIMIT, STEP_LIMIT)


def _slices(volume: Volume) -> Map:
    """Return the axial slices of (b, 1, z, y, x) as a batch: (b * z, 1, 1, y, x)."""
    return volume.transpose(1, 2).flatten(0, 1)[:, :, None]


def _box(size: int, planar: bool) -> Shape:
    """Size along z, y, x: in the plane 1 along z."""
    return (1 if planar else size, size, size)


def _spatial(channels: int, out: int, planar: bool) -> nn.Conv3d:
    kernel = _box(3, planar)
    return nn.Conv3d(channels, out, kernel, padding=half(kernel), padding_mode="replicate")


def local_features(pair: PairStatistics) -> Map:
    """Twelve channels of the order of 1: both volumes, their local means and sds, and their local correlation."""
    a, b, of_a, of_b = pair.a, pair.b, pair.of_a, pair.of_b
    sd_a, sd_b = ((moments.variance.clamp(min=0) + SSIM_C2).sqrt() for moments in (of_a, of_b))
    correlation, sd_ratio = pair.covariance / (sd_a * sd_b), torch.log(sd_a / sd_b)
    details = (a - of_a.mean) / sd_a, (b - of_b.mean) / sd_b
    sd_logs = sd_a.log() + 2.5, sd_b.log() + 2.5
    mean_logs = signed_log(of_a.mean, SSIM_K1) - 2, signed_log(of_b.mean, SSIM_K1) - 2
    return torch.cat((a, b, of_a.mean, of_b.mean, *mean_logs, *sd_logs, *details, correlation, sd_ratio), dim=1)


def initial_estimate(prediction: Map, pair: PairStatistics) -> Volume:
    """Combine local means and details by the predicted level and gains (b, 3, z, y, x), in [0, 1]."""
    level, gain_a, gain_b = prediction.chunk(3, dim=1)
    mean_a, mean_b, weight = pair.of_a.mean, pair.of_b.mean, torch.sigmoid(level)
    mean = weight * mean_a + (1 - weight) * mean_b
    detail = 2 * torch.sigmoid(gain_a) * (pair.a - mean_a) + 2 * torch.sigmoid(gain_b) * (pair.b - mean_b)
    return (mean + detail).clamp(0, 1)


def signed_log(value: Volume, floor: float) -> Volume:
    """Sign times logarithm, so that faint values count as much as bright ones."""
    return torch.sign(value) * torch.log1p(value.abs() / floor)
