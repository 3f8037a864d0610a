"""How a network's prediction mixes two volumes: their local moments, and a value made of both at each voxel."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from crossalign.fusion.networks.score_gradients import pair_moments, pair_products
from crossalign.similarity.local_scores import SSIM_C2, SSIM_K1, Moments
from crossalign.similarity.windows import clipped_means
from crossalign.types import Map, Volume

LOCAL_FEATURES = 12
LEVEL_FLOOR = 0.01  # added to both local means before their logarithms


@dataclass(frozen=True, eq=False)
class LocalMoments:
    """Two volumes (b, 1, z, y, x) and the moments of their windows, clipped at the border."""

    a: Volume
    b: Volume
    of_a: Moments
    of_b: Moments
    covariance: Volume

    @staticmethod
    def of(a: Volume, b: Volume) -> LocalMoments:
        """Compute them in float32."""
        return LocalMoments(a, b, *pair_moments(clipped_means(pair_products(a, b))))

    def of_planes(self, planes: slice) -> LocalMoments:
        """Take these planes alone."""
        a, b, covariance = (volume[:, :, planes] for volume in (self.a, self.b, self.covariance))
        of_a, of_b = (Moments(one.mean[:, :, planes], one.variance[:, :, planes]) for one in (self.of_a, self.of_b))
        return LocalMoments(a, b, of_a, of_b, covariance)


def local_features(pair: LocalMoments) -> Map:
    """Twelve channels of the order of 1: both volumes, their local means and sds, and their local correlation."""
    a, b, of_a, of_b = pair.a, pair.b, pair.of_a, pair.of_b
    sd_a, sd_b = ((moments.variance.clamp(min=0) + SSIM_C2).sqrt() for moments in (of_a, of_b))
    correlation, sd_ratio = pair.covariance / (sd_a * sd_b), torch.log(sd_a / sd_b)
    details = (a - of_a.mean) / sd_a, (b - of_b.mean) / sd_b
    sd_logs = sd_a.log() + 2.5, sd_b.log() + 2.5
    mean_logs = signed_log(of_a.mean, SSIM_K1) - 2, signed_log(of_b.mean, SSIM_K1) - 2
    return torch.cat((a, b, of_a.mean, of_b.mean, *mean_logs, *sd_logs, *details, correlation, sd_ratio), dim=1)


def geometric_mixture(
    volumes: tuple[Volume, Volume], means: tuple[Volume, Volume], weight_a: Map | float, gains: tuple[Map | float, ...]
) -> Volume:
    """Weighted geometric mean of two volumes' local means, and a fraction of each one's details; in [0, 1].

    SSIM compares local means by their ratio: a geometric mean is as similar to the bright input as to the dark one.
    """
    log_a, log_b = (torch.log(mean.clamp(min=0) + LEVEL_FLOOR) for mean in means)
    fused = torch.exp(weight_a * log_a + (1 - weight_a) * log_b) - LEVEL_FLOOR
    for gain, volume, mean in zip(gains, volumes, means, strict=True):
        fused = fused + gain * (volume - mean)
    return fused.clamp(0, 1)


def signed_log(value: Volume, floor: float) -> Volume:
    """Sign times logarithm, so that faint values count as much as bright ones."""
    return torch.sign(value) * torch.log1p(value.abs() / floor)
