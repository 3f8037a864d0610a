"""How much detail a fusion shows: by name, or chosen for a pair by what it retains of both scans."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import torch

from crossalign.errors import InputError
from crossalign.fusion.networks.mixture import LocalMoments
from crossalign.similarity import qabf_score
from crossalign.similarity.gradients import sobel
from crossalign.similarity.local_scores import ssim_of_moments
from crossalign.types import Scan, Shape, Volume

# How much detail is wanted, by name, as the command line spells it; None is chosen for each pair.
AUTO = "auto"
BALANCED, LEAST_DETAIL, MOST_DETAIL = 0.0, -0.3, 1.0
EMPHASES: Mapping[str, float | None] = {AUTO: None, "balanced": BALANCED, "detail": MOST_DETAIL}

MORE_DETAIL = 0.2
SSIM_MARGIN = 0.005  # by which the mean SSIM should be above the plain average's
QABF_WORTH = 0.15  # of SSIM: what a gain in Qabf may cost
BLOCK: Shape = (24, 32, 32)  # voxels
BLOCKS = 12  # the standard error of the estimated Qabf is about 0.06
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
SMALL = 500_000  # voxels of a pair that is taken as a whole: blocks would save no time

Box = tuple[slice, slice, slice]
FuseBlocks = Callable[[Volume, Volume, float], Volume]


@dataclass(frozen=True)
class Gains:
    """By how much a fused volume's mean SSIM to both inputs, and its Qabf, are above the plain average's."""

    ssim: float
    qabf: float

    def worth(self) -> float:
        """Both in one number."""
        return self.ssim + QABF_WORTH * self.qabf


@dataclass(frozen=True)
class DetailChoice:
    """The detail that was chosen for a pair, and what is then gained over the plain average, as estimated."""

    detail: float
    gains: Gains

    def notes(self) -> tuple[str, ...]:
        """Say where the fused volume is estimated to retain less than the plain average."""
        notes = []
        if round(self.gains.qabf, 2) < 0:
            notes.append(
                "fewer of both scans' gradients are retained than in their plain average (Qabf "
                f"{-self.gains.qabf:.2f} lower, estimated): look at both scans too, or use --emphasis detail"
            )
        if round(self.gains.ssim, 3) < 0:
            notes.append(
                "the fused volume is less similar to both scans than their plain average (SSIM "
                f"{-self.gains.ssim:.3f} lower, estimated): look at both scans too"
            )
        return tuple(notes)


def check_detail(detail: float | None) -> None:
    """Raise InputError for a detail out of range; None is chosen for each pair."""
    if detail is not None and not LEAST_DETAIL <= detail <= MOST_DETAIL:
        raise InputError(
            f"'detail' runs from {LEAST_DETAIL:g} (nearer to the PET) and 0 (balanced) to 1 (detail), got {detail}"
        )


def detail_of(emphasis: str) -> float | None:
    """Return how much detail an emphasis asks for. Raises InputError for an unknown one."""
    if emphasis not in EMPHASES:
        raise InputError(f"the emphasis is one of {', '.join(EMPHASES)}, got '{emphasis}'")
    return EMPHASES[emphasis]


def emphasised_name(label: str, detail: float | None, usual: float | None) -> str:
    """Name a method with its emphasis, where it is not the usual one."""
    names = [name for name, value in EMPHASES.items() if value == detail]
    return label if detail == usual else f"{label}-{names[0] if names else f'{detail:g}'}"


def detail_settings(detail: float | None, choice: DetailChoice | None) -> dict[str, str]:
    """Say as text how much detail there is and, where it was chosen for the pair, what it gains over the average."""
    if choice is None:
        return {"detail": "chosen for each pair" if detail is None else f"{detail:g}"}
    return {
        "emphasis": AUTO,
        "detail": f"{choice.detail:.3g}",
        "ssim_gain_estimated": f"{choice.gains.ssim:.3f}",
        "qabf_gain_estimated": f"{choice.gains.qabf:.3f}",
    }


@torch.no_grad()
def choose_detail(a: Scan, b: Scan, fuse: FuseBlocks) -> DetailChoice:
    """Choose the detail with which `fuse` retains most of a and b, against their plain average (`chosen_by`).

    Both scores are estimated on blocks of the pair (`sample_boxes`), which `fuse` fuses together (n, 1, z, y, x). A
    pair without any gradient is fused balanced.
    """
    boxes = sample_boxes(a, b)
    if not boxes:
        return DetailChoice(BALANCED, Gains(0.0, 0.0))
    blocks_a, blocks_b = (torch.stack([scan[box] for box in boxes])[:, None] for scan in (a, b))
    return chosen_by(lambda detail: _mean_gains(fuse(blocks_a, blocks_b, detail), blocks_a, blocks_b))


def chosen_by(gains: Callable[[float], Gains]) -> DetailChoice:
    """Choose the detail by what each gains over the plain average: balanced, a little more, or less.

    Where balanced fusion has no mean SSIM above the average's by SSIM_MARGIN it is LEAST_DETAIL, if that has more.
    Otherwise it is MORE_DETAIL where what that gains in Qabf is worth what it costs in SSIM, and SSIM stays above the
    margin.
    """
    balanced = DetailChoice(BALANCED, gains(BALANCED))
    if balanced.gains.ssim < SSIM_MARGIN:
        less = DetailChoice(LEAST_DETAIL, gains(LEAST_DETAIL))
        return less if less.gains.ssim > balanced.gains.ssim else balanced
    more = DetailChoice(MORE_DETAIL, gains(MORE_DETAIL))
    better = more.gains.ssim >= SSIM_MARGIN and more.gains.worth() > balanced.gains.worth()
    return more if better else balanced


def sample_boxes(a: Scan, b: Scan) -> list[Box]:
    """Return BLOCKS boxes of a pair, of a small one the whole; none where neither has a gradient.

    A box is more likely to be among them the stronger its gradients are, which is how Qabf weighs them: they lie at
    points of the cumulated strength that are spread evenly, not in step with the rows of boxes. So the mean of their
    Qabf is an estimate of that of the whole. One that is much stronger than others comes several times.
    """
    if a.numel() <= SMALL:
        whole = (slice(None), slice(None), slice(None))
        return [whole] if any(float(_strength(scan).max()) > 0 for scan in (a, b)) else []
    starts = (_starts(size, part) for size, part in zip(a.shape, BLOCK, strict=True))
    boxes = [_box(first, a.shape) for first in product(*starts)]
    strengths = [sum(float(_strength(scan[box]).sum()) for scan in (a, b)) for box in boxes]
    cumulated = torch.tensor(strengths, dtype=torch.float64).cumsum(0)
    if not float(cumulated[-1]) > 0:
        return []
    marks = (0.5 + torch.arange(BLOCKS, dtype=torch.float64) * GOLDEN_RATIO) % 1 * cumulated[-1]
    return [boxes[int(number)] for number in torch.searchsorted(cumulated, marks)]


def _mean_gains(fused: Volume, a: Volume, b: Volume) -> Gains:
    """Mean gains over blocks (n, 1, z, y, x)."""
    each = [_gains(*(volume[k : k + 1] for volume in (fused, a, b))) for k in range(len(a))]
    return Gains(sum(one.ssim for one in each) / len(each), sum(one.qabf for one in each) / len(each))


def _gains(fused: Volume, a: Volume, b: Volume) -> Gains:
    ssim, qabf = (float(score(fused, a, b)) - float(score((a + b) / 2, a, b)) for score in (_mean_ssim, qabf_score))
    return Gains(ssim, qabf)


def _mean_ssim(fused: Volume, *inputs: Volume) -> torch.Tensor:
    """Mean structural similarity to the inputs, over windows that are clipped at the border: for blocks of any size."""
    pairs = [LocalMoments.of(fused, volume) for volume in inputs]
    return torch.stack([ssim_of_moments(pair.of_a, pair.of_b, pair.covariance).mean() for pair in pairs]).mean()


def _strength(block: Scan) -> Scan:
    return sobel(block[None, None])[0].square().sum(0).sqrt()


def _starts(size: int, part: int) -> list[int]:
    """First voxels of about size / part boxes, spread evenly from border to border."""
    part = min(part, size)
    count = max(1, round(size / part))
    return [(size - part) // 2] if count == 1 else [round(k * (size - part) / (count - 1)) for k in range(count)]


def _box(starts: tuple[int, ...], shape: torch.Size) -> Box:
    z, y, x = (slice(first, first + min(part, n)) for first, part, n in zip(starts, BLOCK, shape, strict=True))
    return z, y, x
