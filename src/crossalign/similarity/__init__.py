"""Similarity of volumes, in batches and differentiable: SSIM, LNCC, MIND, gradients and Qabf, windows."""

from crossalign.similarity.gradients import nabf_score, qabf_score, sobel
from crossalign.similarity.local_scores import lncc_score, ssim_pair_score, ssim_score
from crossalign.similarity.mind import mind, mind_ssc

__all__ = [
    "lncc_score",
    "mind",
    "mind_ssc",
    "nabf_score",
    "qabf_score",
    "sobel",
    "ssim_pair_score",
    "ssim_score",
]
