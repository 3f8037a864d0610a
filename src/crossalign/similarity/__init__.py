"""How alike volumes are, in batches and differentiable: structural similarity, local correlation, gradients kept."""

from crossalign.similarity.gradients import (
    gradient_transfer_loss,
    gradient_transfer_score,
    sobel,
)
from crossalign.similarity.lncc import (
    lncc_loss,
    lncc_score,
)
from crossalign.similarity.mind import (
    mind,
    mind_loss,
    mind_ssc,
)
from crossalign.similarity.ssim import (
    ssim3d_loss,
    ssim3d_score,
    ssim_pair_score,
)

__all__ = [
    "gradient_transfer_loss",
    "gradient_transfer_score",
    "lncc_loss",
    "lncc_score",
    "mind",
    "mind_loss",
    "mind_ssc",
    "sobel",
    "ssim3d_loss",
    "ssim3d_score",
    "ssim_pair_score",
]
