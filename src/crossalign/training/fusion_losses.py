"""What a fusion network is trained on: ours keeps both modalities, the paper's weighs the MRI twice."""

import torch
from torch import Tensor

from crossalign.similarity import gradient_transfer_score, lncc_loss, ssim3d_loss, ssim_pair_score
from crossalign.training.fusion_bank import FusionPatches
from crossalign.types import Volume

MRI_WEIGHT, PET_WEIGHT = 2.0, 1.0
KEPT = 0.7  # share of a lesion's contrast; the average keeps a half
LEAST_CONTRAST = 0.05


def keeping_loss(fused: Volume, patches: FusionPatches, transfer: tuple[float, float]) -> Tensor:
    """1 - the mean structural similarity to both inputs, + a weight times the share of gradients lost.

    The weight of each patch follows its emphasis; patches where neither input has a gradient have no second part.
    """
    total = fused.new_zeros(())
    low, high = transfer
    for number in range(len(fused)):
        one, a, b = (volume[number : number + 1] for volume in (fused, patches.a, patches.b))
        of_a, of_b = ssim_pair_score(one, a, b)
        total = total + 1 - (of_a + of_b) / 2
        kept = gradient_transfer_score(one, a, b)
        if bool(kept.isfinite()):
            weight = low * (high / low) ** float(patches.emphasis[number])
            total = total + weight * (1 - kept)
    return total / len(fused)


def lesion_loss(bare: Volume, fused: Volume, patches: FusionPatches) -> Tensor:
    """Square of what planted lesions' contrast falls short of KEPT of it; `bare` is fused without, `fused` with them.

    Contrast is the mean change within the lesion. A lesion that clipping left nothing of does not count.
    """
    planted = patches.planted
    if planted is None:
        return fused.new_zeros(())
    change = planted.a - patches.a + planted.b - patches.b
    shown, own = (((v * planted.where).flatten(1).sum(1)) for v in (fused - bare, change))
    enough = own.abs() > LEAST_CONTRAST * planted.where.flatten(1).sum(1)
    share = shown / torch.where(enough, own, torch.ones_like(own))
    return torch.where(enough, (KEPT - share).clamp(min=0) ** 2, torch.zeros_like(share)).mean()


def paper_fusion_loss(fused: Volume, patches: FusionPatches) -> Tensor:
    """2 LNCC(F, MRI) + LNCC(F, PET) + 2 (1 - SSIM)(MRI) + (1 - SSIM)(PET) + 2 L1(MRI) + L1(PET), as published.

    A volume that is flat everywhere has no local correlation; that term is left out then.
    """
    total = fused.new_zeros(())
    for weight, reference in ((MRI_WEIGHT, patches.a), (PET_WEIGHT, patches.b)):
        correlation = lncc_loss(fused, reference)
        if bool(correlation.isfinite()):
            total = total + weight * correlation
        total = total + weight * (ssim3d_loss(fused, reference) + torch.nn.functional.l1_loss(fused, reference))
    return total
