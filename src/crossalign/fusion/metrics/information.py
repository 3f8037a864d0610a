"""How much of the inputs' information a fused volume (or plane) holds: entropy, MI, NMI and FMI."""

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.similarity.local_scores import check_alike, check_scored
from crossalign.similarity.windows import Field

BINS = 256
NMI_BINS = 100  # scikit-image's, which the published numbers were made with
WINDOW = 3
CHUNK_WINDOWS = 20_000  # seven times as fast as 100,000, whose joint distributions do not fit into the cache


def entropy_bits(field: Field) -> float:
    """Entropy of the grey values, bits: 256 bins over [0, 1]. Raises InputError for values outside."""
    check_scored(field)
    counts = torch.bincount(_binned(field, 0.0, 1.0, BINS), minlength=BINS)
    return float(_entropy(counts.double() / counts.sum()))


def mutual_information_score(fused: Field, reference: Field) -> float:
    """Mutual information, bits: 256 x 256 bins over [0, 1]. Raises InputError for values outside."""
    check_scored(fused, reference)
    joint = _joint(_binned(fused, 0.0, 1.0, BINS), _binned(reference, 0.0, 1.0, BINS), BINS)
    return float(_entropy(joint.sum(0)) + _entropy(joint.sum(1)) - _entropy(joint))


def normalized_mutual_information_score(fused: Field, reference: Field) -> float:
    """(H(F) + H(R)) / H(F, R), 1 to 2 (Studholme et al. 1999): 100 bins over each one's own range, as scikit-image's.

    NaN where both are constant. No scale of either changes it.
    """
    check_alike(fused, reference)
    of_fused, of_reference = (_binned(f, float(f.min()), float(f.max()), NMI_BINS) for f in (fused, reference))
    joint = _joint(of_fused, of_reference, NMI_BINS)
    joint_bits = _entropy(joint)
    marginal_bits = _entropy(joint.sum(0)) + _entropy(joint.sum(1))
    return float(marginal_bits / joint_bits) if float(joint_bits) > 0 else float("nan")


def feature_mutual_information_score(fused: Field, reference: Field) -> float:
    """Mean over 3 x 3 windows of the last two axes of the windows' normalised mutual information, 0 to 1.

    Fast-FMI (Haghighat and Razian 2014) with grey values as features. In each window both are scaled to [0, 1] and
    taken as distributions over its nine voxels; their joint distribution is a mixture of the independent one and the
    Frechet bound of the sign of their correlation. A volume counts as its axial planes, since the definition orders
    the voxels of a window in a plane only. No scale of either changes it. Raises InputError for fewer than 3 voxels on
    one of those axes.
    """
    check_alike(fused, reference)
    if min(fused.shape[-2:]) < WINDOW:
        raise InputError(f"FMI needs {WINDOW} voxels or more on both axes of a plane, got {tuple(fused.shape)}")
    f, r = _windows(fused), _windows(reference)
    differ = (f != r).any(dim=-1)
    total = float((~differ).sum())  # windows that are equal count as 1
    f, r = f[differ], r[differ]
    for first in range(0, len(f), CHUNK_WINDOWS):
        last = first + CHUNK_WINDOWS
        total += float(_window_information(f[first:last], r[first:last]).double().sum())
    return total / len(differ)


def _binned(field: Field, low: float, high: float, bins: int) -> Tensor:
    width = high - low if high > low else 1.0
    return ((field.flatten().double() - low) / width * bins).long().clamp(0, bins - 1)


def _joint(x: Tensor, y: Tensor, bins: int) -> Tensor:
    counts = torch.bincount(x * bins + y, minlength=bins * bins).double()
    return (counts / counts.sum()).reshape(bins, bins)


def _entropy(probabilities: Tensor) -> Tensor:
    return -torch.special.xlogy(probabilities, probabilities).sum() / torch.log(torch.tensor(2.0, dtype=torch.float64))


def _windows(field: Field) -> Tensor:
    """Every 3 x 3 window of the last two axes, (n, 9), rows fastest as in the authors' program."""
    tiles = field.unfold(-2, WINDOW, 1).unfold(-2, WINDOW, 1)
    return tiles.transpose(-1, -2).reshape(-1, WINDOW * WINDOW)


def _window_information(f: Tensor, r: Tensor) -> Tensor:
    """Normalised mutual information of each window, (n,)."""
    f, r = _distributions(f), _distributions(r)
    correlation = _correlation(f, r)
    sums_f, sums_r = f.cumsum(-1)[:, :, None], r.cumsum(-1)[:, None, :]
    upper, lower = torch.minimum(sums_f, sums_r), (sums_f + sums_r - 1).clamp(min=0)
    bound = torch.where((correlation >= 0)[:, None, None], upper, lower)
    weight = _bound_weight(correlation, bound - sums_f * sums_r, _position_sd(f) * _position_sd(r))[:, None, None]
    mass = bound.diff(dim=1, prepend=torch.zeros_like(bound[:, :1]))
    mass = mass.diff(dim=2, prepend=torch.zeros_like(mass[:, :, :1]))
    joint = weight * mass + (1 - weight) * f[:, :, None] * r[:, None, :]
    marginal = _window_entropy(f) + _window_entropy(r)
    return 2 * (marginal - _window_entropy(joint.clamp(min=0).flatten(1))) / marginal.clamp(min=1e-12)


def _distributions(windows: Tensor) -> Tensor:
    low, high = windows.amin(-1, keepdim=True), windows.amax(-1, keepdim=True)
    flat = high == low
    scaled = torch.where(flat, torch.ones_like(windows), (windows - low) / torch.where(flat, 1.0, high - low))
    return scaled / scaled.sum(-1, keepdim=True)


def _correlation(f: Tensor, r: Tensor) -> Tensor:
    f, r = f - f.mean(-1, keepdim=True), r - r.mean(-1, keepdim=True)
    product = (f * r).sum(-1)
    norm = ((f**2).sum(-1) * (r**2).sum(-1)).sqrt()
    return torch.where(norm > 1e-12, product / norm.clamp(min=1e-12), torch.zeros_like(product))


def _position_sd(probabilities: Tensor) -> Tensor:
    """Return the standard deviation of the position, 1 to 9, under each distribution, (n,)."""
    position = torch.arange(1, probabilities.shape[-1] + 1, dtype=probabilities.dtype)
    variance = (probabilities * position**2).sum(-1) - (probabilities * position).sum(-1) ** 2
    return variance.clamp(min=0).sqrt()


def _bound_weight(correlation: Tensor, excess: Tensor, sd_product: Tensor) -> Tensor:
    """Weight of the Frechet bound in the mixture: the correlation over the bound's own, 0 where it has none."""
    covariance = excess.sum((1, 2))
    usable = (sd_product > 0) & (covariance != 0)
    return torch.where(usable, correlation * sd_product / torch.where(usable, covariance, 1.0), 0.0)


def _window_entropy(probabilities: Tensor) -> Tensor:
    return -torch.special.xlogy(probabilities, probabilities).sum(-1)
