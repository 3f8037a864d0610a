"""The small fusion network that comes with weights: deformable cross-attention far off, convolutions close by."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.fusion.networks.blend_block import ChannelNorm, DeformableCrossBlend, half
from crossalign.fusion.networks.dcfb import padded_to
from crossalign.fusion.networks.score_gradients import (
    MEAN_C,
    SPREAD_C,
    Ascent,
    PairFacts,
    joint_step,
    pair_facts,
    similarity_ascent,
    transfer_ascent,
)
from crossalign.types import Map, Shape, Volume

EMBED = 4  # voxels to a token, along each axis
STEP_LIMIT = 0.25
MOMENTS = 12
TOLD = 7  # what a refinement is told beside the hidden features
WEIGHT_LOG, WEIGHT_SLOPE = -1.95, 1.45  # logarithm of the weight of kept gradients at first: 0.03 balanced, 0.6 detail
WEIGHT_REACH = 1.5
QUICK = 10.0  # step lengths and the like are kept divided by this, so that an optimiser's even steps move them so much


# What settings may ask for: beyond these a network takes more memory than a workstation has.
MOST = {"channels": 1024, "blocks": 64, "heads": 64, "window": 16, "kernel": 31, "context": 1024, "hidden": 1024}
MOST |= {"climbs": 256, "steps": 256}
Ascents = tuple[Ascent, Ascent]  # in structural similarity, and in the gradients kept


@dataclass(frozen=True)
class CompactSettings:
    """The size of the network. `window` counts tokens of 4^3 voxels.

    At full resolution `climbs` steps go towards structural similarity alone, and `steps` refinements follow.
    """

    channels: int = 32
    blocks: int = 2
    heads: int = 4
    window: int = 4
    kernel: int = 5
    context: int = 12
    hidden: int = 16
    climbs: int = 6
    steps: int = 6

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1 or self.channels % self.heads:
            raise InputError(f"sizes are 1 or more and the heads divide the channels, got {self}")
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise InputError(f"'{name}' must be {most} or less, got {getattr(self, name)}")
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
    mean + gain_a (a - mean_a) + gain_b (b - mean_b). From there it climbs towards structural similarity to both inputs,
    and a few refinements follow, each told where that and the gradients kept would rise. Nothing is normalised over the
    whole volume, so that a tile gives what the whole volume gives, but for its border. `planar` is the 2-D twin: the
    same layers in the plane, axial slice by axial slice, none of which hears of another.
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
            DeformableCrossBlend(width, settings.heads, window, reach=window, kernel=_box(settings.kernel, planar))
            for _ in range(settings.blocks)
        )
        self.context = nn.Sequential(ChannelNorm(2 * width), nn.Conv3d(2 * width, settings.context, 1))
        self.mix = nn.Conv3d(settings.context + MOMENTS + 1, hidden + 8, 1)
        self.around = _around(hidden + 8, hidden, planar)
        self.tune = nn.Linear(1, 2 * hidden)
        self.choose = nn.Conv3d(hidden, 3, 1)
        self.climb = Climb(settings.climbs)
        self.refinements = nn.ModuleList(Refinement(hidden, planar) for _ in range(settings.steps))
        with torch.no_grad():  # begin near the plain average
            self.choose.weight.mul_(0.3)
            self.choose.bias = nn.Parameter(torch.tensor([0.0, -1.1, -1.1]))

    def forward(self, a: Volume, b: Volume, emphasis: Tensor) -> Volume:
        """Fuse; the result lies in [0, 1]."""
        return self.progress(a, b, emphasis)[-1]

    def progress(self, a: Volume, b: Volume, emphasis: Tensor) -> list[Volume]:
        """Fuse, and return the first guess, the climb's end and each refinement's; the last one is the fused volume.

        Gradients run back through the climb to the first guess. From one refinement to what it is given none runs: each
        is trained on what it makes of it. With the ascents taken as given, a gradient through all refinements would
        leave out that later ones undo much of what earlier ones do; trained so, the network grew worse.
        """
        if not self.planar:
            return self._progress(a, b, emphasis)
        depth = a.shape[2]
        made = self._progress(_slices(a), _slices(b), emphasis.repeat_interleave(depth))
        return [one.reshape(len(a), depth, 1, *a.shape[3:]).transpose(1, 2) for one in made]

    def _progress(self, a: Volume, b: Volume, emphasis: Tensor) -> list[Volume]:
        shape = a.shape[2:]
        a, b = (padded_to(volume, _box(self.settings.multiple, self.planar)) for volume in (a, b))
        pair, wish = pair_facts(a, b), 2 * emphasis.to(a)[:, None] - 1
        condition = wish[:, :, None, None, None].expand_as(a)
        hidden = F.gelu(self.mix(torch.cat((self._context(a, b), described(pair), condition), dim=1)))
        scale, shift = self.tune(wish)[:, :, None, None, None].chunk(2, dim=1)
        hidden = F.gelu(self.around(hidden)) * (1 + scale) + shift
        made = [chosen(self.choose(hidden), pair)]
        climbed, moved = self.climb(made[0], pair)
        made.append(climbed)
        moved = moved.detach()
        for refinement in self.refinements:
            given = made[-1].detach()
            made.append(refinement(given, moved, pair, hidden, wish))
            moved = made[-1].detach() - given
        return [fused[:, :, : shape[0], : shape[1], : shape[2]] for fused in made]

    def _context(self, a: Volume, b: Volume) -> Map:
        """Bring what the blocks find to full resolution."""
        context = self.coarse_context(a, b)
        return F.interpolate(context, size=a.shape[2:], mode="trilinear", align_corners=False)

    def coarse_context(self, a: Volume, b: Volume) -> Map:
        """Return what the blocks find, a place for each token of 4^3 voxels (in the plane: 4^2)."""
        x, other = (self.embed(torch.cat((volume, loud(volume, MEAN_C)), dim=1)) for volume in (a, b))
        for block in self.blocks:
            x = block(x, other)
            other = block(other, x)
        return self.context(torch.cat((x, other), dim=1))


class Climb(nn.Module):
    """Steps of gradient ascent in structural similarity to both inputs, with momentum: all voxels alike, and cheap.

    How far each step goes, as a share of the gradient over its curvature's bound, and its momentum are learned.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.length = nn.Parameter(torch.full((steps,), 1.5 / QUICK))
        self.momentum = nn.Parameter(torch.tensor(0.5 / QUICK))

    def forward(self, fused: Volume, pair: PairFacts) -> tuple[Volume, Volume]:
        """Return where the climb ends, in [0, 1], and its last move."""
        moved = torch.zeros_like(fused)
        for number in range(len(self.length)):
            after = self.step(number, fused, moved, similarity_ascent(fused, pair))
            fused, moved = after, after - fused
        return fused, moved

    def step(self, number: int, fused: Volume, moved: Volume, ascent: Ascent) -> Volume:
        """Take one step."""
        step = limited(ascent.gradient / ascent.curvature)
        return (fused + QUICK * (self.length[number] * step + self.momentum * moved)).clamp(0, 1)


class Refinement(nn.Module):
    """One step at full resolution: the way both scores point, with some of the last move, and towards either input.

    The weight of the gradients kept beside structural similarity follows the emphasis and is changed voxel by voxel.
    Untrained it is a step of gradient ascent with momentum, preconditioned by a bound of the curvature.
    """

    def __init__(self, hidden: int, planar: bool = False) -> None:
        super().__init__()
        self.mix = nn.Conv3d(hidden + TOLD, 12, 1)
        self.around = _around(12, 8, planar)
        self.out = nn.Conv3d(8, 4, 1)
        self.weight = nn.Parameter(torch.tensor([WEIGHT_LOG, WEIGHT_SLOPE]) / QUICK)
        self.momentum = nn.Parameter(torch.zeros(()))
        with torch.no_grad():
            self.out.weight.mul_(0.03)
            self.out.bias = nn.Parameter(torch.zeros(4))

    def forward(self, fused: Volume, moved: Volume, pair: PairFacts, hidden: Map, wish: Tensor) -> Volume:
        """Refine; both ascents are taken as given: no gradient runs through them."""
        with torch.no_grad():
            ascents = similarity_ascent(fused, pair), transfer_ascent(fused, pair)
        told = torch.cat((self.told(fused, moved, pair, ascents), hidden), dim=1)
        out = self.out(F.gelu(self.around(F.gelu(self.mix(told))))).to(fused)
        return self.gone(fused, moved, pair, ascents, out, wish)

    @staticmethod
    def told(fused: Volume, moved: Volume, pair: PairFacts, ascents: Ascents) -> Map:
        """Return what the convolutions are told beside the hidden features: seven channels of the order of 1."""
        similarity, transfer = ascents
        first = limited(similarity.gradient / similarity.curvature)
        second = limited(transfer.gradient / (transfer.curvature + 1))
        steps = first * 10, loud(first, 0.01), second * 10, loud(second, 0.01)
        return torch.cat((*steps, moved * 10, (pair.a - fused) * 3, (pair.b - fused) * 3), dim=1)

    def gone(self, fused: Volume, moved: Volume, pair: PairFacts, ascents: Ascents, out: Map, wish: Tensor) -> Volume:
        """Go the way that the ascents and the convolutions' last layer `out` tell."""
        go, balance, to_a, to_b = out.chunk(4, dim=1)
        level = QUICK * (self.weight[0] + self.weight[1] * wish)
        weight = torch.exp(level[:, :, None, None, None] + WEIGHT_REACH * torch.tanh(balance))
        step = limited(joint_step(*ascents, weight))
        fused = fused + 2 * torch.sigmoid(go) * step + torch.sigmoid(QUICK * self.momentum) * moved
        pulls = 0.3 * torch.tanh(to_a) * (pair.a - fused) + 0.3 * torch.tanh(to_b) * (pair.b - fused)
        return (fused + pulls).clamp(0, 1)


def limited(step: Volume) -> Volume:
    """Cut a step at a quarter of the range."""
    return step.clamp(-STEP_LIMIT, STEP_LIMIT)


def _slices(volume: Volume) -> Map:
    """Lay the axial slices of (b, 1, z, y, x) side by side as a batch: (b * z, 1, 1, y, x)."""
    return volume.transpose(1, 2).flatten(0, 1)[:, :, None]


def _box(size: int, planar: bool) -> Shape:
    """Size along z, y, x: in the plane 1 along z."""
    return (1 if planar else size, size, size)


def _around(into: int, out: int, planar: bool) -> nn.Conv3d:
    kernel = _box(3, planar)
    return nn.Conv3d(into, out, kernel, padding=half(kernel), padding_mode="replicate")


def described(pair: PairFacts) -> Map:
    """Twelve channels of the order of 1: both volumes, their means and spreads, and how they go together."""
    a, b, moments = pair.a, pair.b, pair.moments
    of_a, of_b = moments.a, moments.b
    spreads = (of_a.variance.clamp(min=0) + SPREAD_C).sqrt(), (of_b.variance.clamp(min=0) + SPREAD_C).sqrt()
    together = moments.covariance / (spreads[0] * spreads[1])
    louder = torch.log(spreads[0] / spreads[1])
    details = (a - of_a.mean) / spreads[0], (b - of_b.mean) / spreads[1]
    spread_logs = (spreads[0].log() + 2.5, spreads[1].log() + 2.5)
    mean_logs = loud(of_a.mean, MEAN_C) - 2, loud(of_b.mean, MEAN_C) - 2
    return torch.cat((a, b, of_a.mean, of_b.mean, *mean_logs, *spread_logs, *details, together, louder), dim=1)


def chosen(choice: Map, pair: PairFacts) -> Volume:
    """Choose level and detail (b, 3, z, y, x): the first guess, in [0, 1]."""
    a, b, moments = pair.a, pair.b, pair.moments
    level, gain_a, gain_b = choice.chunk(3, dim=1)
    share = torch.sigmoid(level)
    mean = share * moments.a.mean + (1 - share) * moments.b.mean
    detail = 2 * torch.sigmoid(gain_a) * (a - moments.a.mean) + 2 * torch.sigmoid(gain_b) * (b - moments.b.mean)
    return (mean + detail).clamp(0, 1)


def loud(value: Volume, floor: float) -> Volume:
    """Sign and logarithm, so that faint values tell as much as bright ones."""
    return torch.sign(value) * torch.log1p(value.abs() / floor)
