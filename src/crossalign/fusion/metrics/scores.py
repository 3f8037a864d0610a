"""Every score of one fused image, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from crossalign.fusion.metrics.fidelity import (
    peak_signal_noise_ratio_db,
    spatial_frequency_score,
    visual_information_fidelity_score,
)
from crossalign.fusion.metrics.information import (
    entropy_bits,
    feature_mutual_information_score,
    mutual_information_score,
    normalized_mutual_information_score,
)
from crossalign.similarity import nabf_score, qabf_score, ssim_score
from crossalign.similarity.local_scores import check_alike, check_scored
from crossalign.similarity.windows import Field


def structural_similarity_score(fused: Field, reference: Field) -> Tensor:
    """SSIM of one volume (z, y, x) or plane (y, x), both in [0, 1]. Raises InputError."""
    check_scored(fused, reference)
    return ssim_score(fused[None, None], reference[None, None])


def gradient_preservation_score(fused: Field, *sources: Field) -> Tensor:
    """Qabf of one volume (z, y, x) or plane (y, x), of any scale. Raises InputError."""
    check_alike(fused, *sources)
    return qabf_score(*_volumes(fused, *sources))


def invented_gradient_score(fused: Field, *sources: Field) -> Tensor:
    """Nabf of one volume (z, y, x) or plane (y, x), of any scale; smaller is better. Raises InputError."""
    check_alike(fused, *sources)
    return nabf_score(*_volumes(fused, *sources))


def _volumes(*fields: Field) -> tuple[Tensor, ...]:
    return tuple(field.reshape(1, 1, -1, *field.shape[-2:]) for field in fields)


# Scores of the fused image against one input, larger is better, in the order of the tables.
INPUT_SCORES: Mapping[str, Callable[[Field, Field], float | Tensor]] = {
    "ssim": structural_similarity_score,
    "psnr_db": peak_signal_noise_ratio_db,
    "nmi": normalized_mutual_information_score,
    "fmi": feature_mutual_information_score,
    "mi_bits": mutual_information_score,
    "vif": visual_information_fidelity_score,
    "qabf_input": gradient_preservation_score,
}


@dataclass(frozen=True)
class InputScores:
    """One score of a fused image against each input."""

    mri: float
    pet: float

    def mean(self) -> float:
        """Mean of the two."""
        return (self.mri + self.pet) / 2

    def smaller(self) -> float:
        """Return the lower score of the two."""
        return min(self.mri, self.pet)


@dataclass(frozen=True)
class FusionScores:
    """Every score of one fused image.

    `inputs` has one entry for each of INPUT_SCORES; `qabf_input` is the fraction of each input's own gradients that is
    preserved, `qabf` that of both; `nabf` is that where the fused image has stronger ones of its own. Entropy (bits)
    and spatial frequency are the fused image's own.
    """

    inputs: Mapping[str, InputScores]
    qabf: float
    nabf: float
    entropy_bits: float
    spatial_frequency: float


def score_fusion(fused: Field, mri: Field, pet: Field) -> FusionScores:
    """Score a fused volume (z, y, x) or plane (y, x) against both inputs, all of them in [0, 1].

    Where neither input has a gradient Qabf and Nabf are NaN. Raises InputError for fewer than 11 voxels on an axis, for
    values outside [0, 1], and for volumes of different shapes.
    """
    check_scored(fused, mri, pet)
    inputs = {
        name: InputScores(float(score(fused, mri)), float(score(fused, pet))) for name, score in INPUT_SCORES.items()
    }
    return FusionScores(
        inputs=inputs,
        qabf=float(gradient_preservation_score(fused, mri, pet)),
        nabf=float(invented_gradient_score(fused, mri, pet)),
        entropy_bits=entropy_bits(fused),
        spatial_frequency=spatial_frequency_score(fused),
    )
