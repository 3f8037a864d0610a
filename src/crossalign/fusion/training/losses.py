"""What a fusion network is trained for: structure of both inputs, and the uptake's place above its surroundings."""

from collections.abc import Callable

import torch
from torch import Tensor

from crossalign.fusion.training.dataset import FusionPatches
from crossalign.similarity import lncc_score, nabf_score, qabf_score, ssim_pair_score, ssim_score
from crossalign.types import Map, Shape, Volume

MRI_WEIGHT, PET_WEIGHT = 2.0, 1.0
BASELINE_MARGIN = 0.01  # by which the SSIM should be above the plain average's
LESION_CONTRAST = 0.7  # fraction of a lesion's contrast to preserve; the average preserves a half
LEAST_CONTRAST = 0.05
# Of salience: the ratios of uptake that begin to count and count in full, their logarithms, and what is added to both
# uptakes before, a fraction of the window; the higher uptakes of a pair that begin to count and count in full; how far
# above the fused value must be; and the fraction of pairs under which a patch counts less.
FAINT, PLAIN, FLOOR, MARGIN, FEW = 0.5, 1.0, 0.05, 0.05, 0.05
LOW_UPTAKE, HIGH_UPTAKE = 0.07, 0.15
STEPS, SHORTEST, LONGEST = 10, 3.0, 36.0  # how many steps between the two voxels of a pair, and their length in voxels


def ssim_qabf_loss(fused: Volume, patches: FusionPatches, qabf_weights: tuple[float, float]) -> Tensor:
    """1 - the mean structural similarity to both inputs, plus a weight times 1 - Qabf.

    The weight of each patch depends on its `detail`; patches where neither input has a gradient have no second part.
    """
    total = fused.new_zeros(())
    low, high = qabf_weights
    for number in range(len(fused)):
        one, a, b = (volume[number : number + 1] for volume in (fused, patches.a, patches.b))
        with_a, with_b = ssim_pair_score(one, a, b)
        total = total + 1 - (with_a + with_b) / 2
        qabf = qabf_score(one, a, b)
        if bool(qabf.isfinite()):
            weight = low * (high / low) ** float(patches.detail[number])
            total = total + weight * (1 - qabf)
    return total / len(fused)


def baseline_loss(fused: Volume, patches: FusionPatches) -> Tensor:
    """How far the mean SSIM to both inputs lies below the plain average's plus BASELINE_MARGIN; the mean over patches.

    A patch counts by how balanced its emphasis is: with full detail not at all.
    """
    total = fused.new_zeros(())
    for number in range(len(fused)):
        one, a, b = (volume[number : number + 1] for volume in (fused, patches.a, patches.b))
        with torch.no_grad():
            wanted = _mean_ssim((a + b) / 2, a, b) + BASELINE_MARGIN
        lack = (wanted - _mean_ssim(one, a, b)).clamp(min=0)
        total = total + (1 - patches.detail[number]) * lack
    return total / len(fused)


def lesion_loss(without: Volume, fused: Volume, patches: FusionPatches) -> Tensor:
    """Square of what lesions lack of LESION_CONTRAST of their contrast; fused without them, and with them.

    Contrast is the mean change within the lesion. A lesion without contrast after clipping does not count.
    """
    lesions = patches.lesions
    if lesions is None:
        return fused.new_zeros(())
    change = lesions.a - patches.a + lesions.b - patches.b
    shown, own = (((v * lesions.mask).flatten(1).sum(1)) for v in (fused - without, change))
    enough = own.abs() > LEAST_CONTRAST * lesions.mask.flatten(1).sum(1)
    fraction = shown / torch.where(enough, own, torch.ones_like(own))
    return torch.where(enough, (LESION_CONTRAST - fraction).clamp(min=0) ** 2, torch.zeros_like(fraction)).mean()


def paper_fusion_loss(fused: Volume, patches: FusionPatches) -> Tensor:
    """2 LNCC(F, MRI) + LNCC(F, PET) + 2 (1 - SSIM)(MRI) + (1 - SSIM)(PET) + 2 L1(MRI) + L1(PET), as published.

    A volume that is flat everywhere has no local correlation; that term is left out then.
    """
    total = fused.new_zeros(())
    for weight, reference in ((MRI_WEIGHT, patches.a), (PET_WEIGHT, patches.b)):
        correlation_loss = 1 - lncc_score(fused, reference)
        if bool(correlation_loss.isfinite()):
            total = total + weight * correlation_loss
        total = total + weight * (1 - ssim_score(fused, reference) + torch.nn.functional.l1_loss(fused, reference))
    return total


def draw_steps(shape: Shape, generator: torch.Generator) -> list[Shape]:
    """Draw steps (z, y, x) in voxels from one voxel of a pair to the other, their lengths even in the logarithm.

    They are half as long along z, where voxels are often longer, and shorter than the patch.
    """
    direction = torch.randn(STEPS, 3, generator=generator)
    length = SHORTEST * (LONGEST / SHORTEST) ** torch.rand(STEPS, generator=generator)
    steps = direction / direction.norm(dim=1, keepdim=True) * length[:, None] * torch.tensor([0.5, 1.0, 1.0])
    most = (torch.tensor(shape) * 3) // 4
    rounded = torch.minimum(steps.round().long().maximum(-most), most).tolist()
    return [(z, y, x) for z, y, x in rounded if (z, y, x) != (0, 0, 0)]


def salience_loss(fused: Volume, uptake: Volume, steps: list[Shape]) -> Tensor:
    """How far uptake that is above that of another voxel some way off fails to be above it in the fused volume.

    For each pair of voxels a step apart: what the fused difference lacks of MARGIN, in the uptake's direction, squared
    and divided by MARGIN. It is weighted by the ratio of both uptakes, from 1.6 (below it is the usual contrast of
    tissues) to 2.7, and by the higher of both, from 0.07 to 0.15 of the window: uptake of no interest forces nothing.
    Where the mean over pairs is 0, the area under the ROC curve between what takes up more and what takes up less
    around it is 1.
    """
    logarithm = torch.log(uptake.clamp(min=0) + FLOOR)

    def rise_and_weight(step: Shape) -> tuple[Map, Map]:
        rise, higher = _difference(logarithm, step), torch.maximum(*_pairs(uptake, step))
        weight = ((rise.abs() - FAINT) / (PLAIN - FAINT)).clamp(0, 1)
        return rise, weight * ((higher - LOW_UPTAKE) / (HIGH_UPTAKE - LOW_UPTAKE)).clamp(0, 1)

    return _order_loss(fused, steps, rise_and_weight)


def outline_loss(fused: Volume, outline: Volume | None, steps: list[Shape]) -> Tensor:
    """How far what is outlined (1, elsewhere 0) fails to be brighter in the fused volume than what is around it.

    For each pair of voxels a step apart of which one lies in the outline: what the fused difference lacks of MARGIN,
    squared and divided by MARGIN; a pair's weight is 1. Patches without an outline add nothing; without any it is 0.
    """
    if outline is None:
        return fused.new_zeros(())

    def rise_and_weight(step: Shape) -> tuple[Map, Map]:
        rise = _difference(outline, step)
        return rise, rise.abs()

    return _order_loss(fused, steps, rise_and_weight)


def invented_gradient_loss(fused: Volume, patches: FusionPatches) -> Tensor:
    """Nabf of each patch, their mean: gradients stronger than those of both inputs, and not along them.

    Patches where neither input has a gradient do not count.
    """
    total = fused.new_zeros(())
    for number in range(len(fused)):
        nabf = nabf_score(*(volume[number : number + 1] for volume in (fused, patches.a, patches.b)))
        if bool(nabf.isfinite()):
            total = total + nabf
    return total / len(fused)


def _order_loss(fused: Volume, steps: list[Shape], rise_and_weight: Callable[[Shape], tuple[Map, Map]]) -> Tensor:
    """Weighted mean over pairs of voxels a step apart of what the fused difference lacks of MARGIN, squared / MARGIN.

    `rise_and_weight` gives for each pair a number whose sign is that which the difference must have, and its weight.
    FEW of all pairs are added to the weights, so that a patch with fewer that count has a smaller loss.
    """
    lacking, weights, count = fused.new_zeros(()), fused.new_zeros(()), 0
    for step in steps:
        rise, weight = rise_and_weight(step)
        lack = (MARGIN - rise.sign() * _difference(fused, step)).clamp(min=0) ** 2 / MARGIN
        lacking, weights, count = lacking + (weight * lack).sum(), weights + weight.sum(), count + rise.numel()
    return lacking / (weights + FEW * max(count, 1))


def _mean_ssim(fused: Volume, a: Volume, b: Volume) -> Tensor:
    return sum(ssim_pair_score(fused, a, b), fused.new_zeros(())) / 2


def _difference(volume: Volume, step: Shape) -> Map:
    """Subtract from each voxel the one a step before it, where there is one."""
    high, low = _pairs(volume, step)
    return high - low


def _pairs(volume: Volume, step: Shape) -> tuple[Map, Map]:
    """Return the voxels that have one a step before them, and those."""
    high = low = volume
    for axis, size in enumerate(step, start=2):
        inner, first = volume.shape[axis] - abs(size), max(0, size)
        high, low = high.narrow(axis, first, inner), low.narrow(axis, first - size, inner)
    return high, low
