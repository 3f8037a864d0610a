"""Settings of the iterative methods. Standard library only: the command line makes its options from these.

Lengths hold for structures of 45 to 200 mm (MIND: 100 mm); smaller and larger ones are scaled to that.
"""

from __future__ import annotations

from dataclasses import dataclass

from crossalign.errors import InputError


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
        if not self.shrink_factors or len(self.shrink_factors) != len(self.smoothing_mm):
            raise InputError(
                "shrink_factors and smoothing_mm need one value for each level, "
                f"got {self.shrink_factors} and {self.smoothing_mm}"
            )
        counts = (self.samples, self.iterations, self.initialisations, self.threads, *self.shrink_factors)
        if min(self.bins - 4, *counts) < 1:
            raise InputError(
                "bins must be 5 or more; samples, iterations, initialisations, threads and shrink_factors 1 or more"
            )
        if self.seed < 1 or not 0 < self.last_step_mm <= self.first_step_mm:
            raise InputError("expected a seed of 1 or more and 0 < last_step_mm <= first_step_mm")
        if min(self.margin_mm, self.perturbation_mm, self.motion_penalty, self.checks) < 0:
            raise InputError("expected margin_mm, perturbation_mm, motion_penalty and checks of 0 or more")


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
        if not self.spacing_mm or not min(self.spacing_mm) > 0:
            raise InputError(f"spacing_mm needs a spacing above 0 mm for each level, got {self.spacing_mm}")
        if min(self.points, self.initialisations, self.iterations, self.distance_voxel) < 1:
            raise InputError("points, initialisations, iterations and distance_voxel must be 1 or more")
        if min(self.margin_mm, self.perturbation_mm, self.motion_penalty) < 0 or not self.sigma_voxel > 0:
            raise InputError("expected margin_mm, perturbation_mm, motion_penalty of 0 or more and sigma_voxel above 0")


# The coarse level alone did best on the real pairs (docs/concepts/iterative-methods.md).
MIND_BEST = MindSettings(spacing_mm=(4.0,))
