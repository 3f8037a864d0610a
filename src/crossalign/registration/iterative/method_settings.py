"""Settings of the iterative methods. Standard library only: the command line makes its options from these.

Lengths hold for structures of 45 to 200 mm (MIND: 100 mm); smaller and larger ones are scaled to that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from crossalign.errors import SettingError
from crossalign.fields import check_bounds, check_over_zero

MOST_COUNT, MOST_SEED = 2**31 - 1, 2**63 - 1


@dataclass(frozen=True)
class MutualInformationSettings:
    """How Mattes mutual information is maximised."""

    bins: int = 32
    """Bins of the joint histogram along each axis, 5 or more."""

    samples: int = 30_000
    """Random voxels at which the images are compared, at each level."""

    seed: int = 1
    """Seed of the samples and of the perturbed initialisations."""

    margin_mm: float = 10.0
    """How far from the fixed mask voxels are sampled, mm; without a mask, anywhere."""

    shrink_factors: tuple[int, ...] = (4, 2, 1)
    """Factor by which the fixed image is shrunk at each level of the pyramid."""

    smoothing_mm: tuple[float, ...] = (4.0, 2.0, 1.0)
    """Standard deviation of the Gaussian at each level, mm."""

    iterations: int = 100
    """Gradient steps at each level, at most."""

    first_step_mm: float = 1.0
    """Length of the first gradient step, mm."""

    last_step_mm: float = 0.01
    """A level ends when its step has become shorter than this, mm."""

    initialisations: int = 1
    """Initialisations from which the optimisation is run: the given one, and random perturbations of it."""

    perturbation_mm: float = 10.0
    """Perturbed initialisations move the structure by 0 to this on average, mm."""

    motion_penalty: float = 0.0
    """Weight (1/mm^2) of the structure's mean squared motion when the best of several runs is chosen."""

    checks: int = 4
    """Further runs, of the first level alone, from perturbed initialisations: they only tell how far to trust."""

    threads: int = 1
    """Threads of ITK. It adds their sums in the order in which they end: with more than one, answers vary."""

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("seed", "samples", "iterations", "initialisations", "threads"), (1, MOST_COUNT))
        lengths = dict.fromkeys(("margin_mm", "perturbation_mm", "motion_penalty"), (0.0, math.inf))
        check_bounds(self, {"bins": (5, MOST_COUNT), "checks": (0, MOST_COUNT), **counts, **lengths})
        check_over_zero(self, "first_step_mm", "last_step_mm")
        if self.last_step_mm > self.first_step_mm:
            raise SettingError("last_step_mm", f"must be first_step_mm or less, got {self.last_step_mm}")
        if not self.shrink_factors or min(self.shrink_factors) < 1:
            raise SettingError("shrink_factors", f"needs 1 or more for each level, got {self.shrink_factors}")
        if len(self.smoothing_mm) != len(self.shrink_factors) or not min(self.smoothing_mm) >= 0:
            levels = f"each of the {len(self.shrink_factors)} shrink_factors"
            raise SettingError("smoothing_mm", f"needs a length of 0 or more for {levels}, got {self.smoothing_mm}")


# What did best on the real MR-ultrasound pairs (docs/concepts/iterative-methods.md): one coarse level, ten steps, a
# wide margin, twelve initialisations and a penalty on motion. There the score rises along paths that lead away from
# the truth, so short runs do best.
MI_BEST = MutualInformationSettings(
    bins=16,
    samples=6000,
    margin_mm=25.0,
    shrink_factors=(3,),
    smoothing_mm=(5.0,),
    iterations=10,
    initialisations=12,
    perturbation_mm=12.0,
    motion_penalty=3e-3,
)


@dataclass(frozen=True)
class MindSettings:
    """How the squared difference of MIND descriptors is minimised."""

    spacing_mm: tuple[float, ...] = (4.0, 2.0)
    """Isotropic working spacing of each level of the pyramid, mm."""

    sigma_voxel: float = 1.0
    """MIND: standard deviation of the Gaussian that weights a patch, voxels of the level."""

    distance_voxel: int = 2
    """MIND: distance of the patches that are compared, voxels of the level."""

    margin_mm: float = 5.0
    """How far from the fixed mask voxels are compared, mm; without a mask, in the whole fixed image."""

    points: int = 1500
    """Random voxels that are compared, at most."""

    initialisations: int = 8
    """Initialisations: the given one, and random perturbations of it. They run at once; after each level the given one
    and the quarter with the lowest cost go on, and the lowest final cost wins."""

    perturbation_mm: float = 10.0
    """Perturbed initialisations move the structure by 0 to this on average, mm."""

    motion_penalty: float = 3e-4
    """Weight (1/mm^2) of the points' mean squared motion in the cost: it favours the given initialisation where the
    images say little."""

    iterations: int = 30
    """Gauss-Newton iterations at each level, at most."""

    seed: int = 1
    """Seed of the points and of the perturbed initialisations."""

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("points", "initialisations", "iterations", "distance_voxel"), (1, MOST_COUNT))
        lengths = dict.fromkeys(("margin_mm", "perturbation_mm", "motion_penalty"), (0.0, math.inf))
        check_bounds(self, {"seed": (0, MOST_SEED), **counts, **lengths})
        check_over_zero(self, "sigma_voxel")
        if not self.spacing_mm or not min(self.spacing_mm) > 0:
            raise SettingError("spacing_mm", f"needs a spacing above 0 mm for each level, got {self.spacing_mm}")


# The coarse level alone did best on the real pairs (docs/concepts/iterative-methods.md).
MIND_BEST = MindSettings(spacing_mm=(4.0,))


@dataclass(frozen=True)
class SurfaceSettings:
    """How the surfaces of both structures are fitted, beside what is known of the rotation beforehand."""

    points: int = 1000
    """Points on either surface."""

    noise_mm: tuple[float, float, float] = (0.95, 0.65, 0.45)
    """What the mean distance of two surfaces that are rightly registered is uncertain by, mm, where it tells of a
    rotation about the patient's left, posterior and superior axis: the more, the more the prior counts."""

    outline_shift_mm: tuple[float, float, float] = (0.0, 0.8, 0.3)
    """Shift of the fixed structure, along the patient's axes, mm, that is added to the fit: two outlines of one
    prostate differ by it on average. Not added where the rotation prior is not used, with which it was measured."""

    robust_mm: float = 3.0
    """Distances beyond this count in proportion to it, not to their square (Huber)."""

    iterations: int = 30
    """Gauss-Newton iterations, at most."""

    def __post_init__(self) -> None:
        check_bounds(self, {"points": (100, 100_000), "iterations": (1, MOST_COUNT)})
        check_over_zero(self, "robust_mm")
        if not all(0 < value < math.inf for value in self.noise_mm):
            raise SettingError("noise_mm", f"needs three lengths over 0, got {self.noise_mm}")
        if not all(math.isfinite(value) for value in self.outline_shift_mm):
            raise SettingError("outline_shift_mm", f"needs three finite lengths, got {self.outline_shift_mm}")
