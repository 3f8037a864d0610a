"""Local normalised cross-correlation."""

import torch
from torch import Tensor

from crossalign.similarity.ranges import check_unit_range
from crossalign.similarity.windows import box_means
from crossalign.types import Volume

WIDTH = 9
FLAT = 1e-5  # variance of a window under which it counts as flat, for values in [0, 1]: an sd of 0.003


def lncc_score(x: Volume, reference: Volume, width: int = WIDTH) -> Tensor:
    """Mean squared correlation over windows of `width` voxels, a scalar from 0 to 1.

    Windows where the reference is flat have no correlation and are left out (NaN where there is no other); where only
    `x` is flat it is 0. Raises InputError where the reference leaves [0, 1].
    """
    check_unit_range(reference)
    parts = torch.cat((x, reference, x * x, reference * reference, x * reference), dim=1)
    mean_x, mean_y, square_x, square_y, product = box_means(parts, width).chunk(5, dim=1)
    variance_x, variance_y = square_x - mean_x**2, square_y - mean_y**2
    covariance = product - mean_x * mean_y
    share = covariance**2 / (variance_x.clamp(min=FLAT) * variance_y.clamp(min=FLAT))
    inside = variance_y > FLAT
    return torch.where(inside, share, torch.zeros_like(share)).sum() / inside.sum()


def lncc_loss(x: Volume, reference: Volume, width: int = WIDTH) -> Tensor:
    """1 - `lncc_score`."""
    return 1 - lncc_score(x, reference, width)
