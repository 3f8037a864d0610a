"""Settings of an adaptation. Importing them is quick: the command line makes its options from these."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from crossalign.fields import check_bounds, check_choices, check_over_zero
from crossalign.training.settings import BATCH_BOUNDS, MOST_STEPS, STRONG_AUGMENTATION, Augmentation


@dataclass(frozen=True)
class AdaptationSettings:
    """How a model is adapted to a site's pairs."""

    steps: int = 120
    """Optimiser steps of each stage."""
    batch: int = 16
    """Pairs in a step."""
    rate: float = 5e-4
    """Highest learning rate."""
    val_every: int = 30
    """Steps between validations; the weights of the best one are kept."""
    ema_decay: float = 0.97
    """Decay of the exponential moving average of the weights, which is validated and kept."""
    stages: Literal["all", "initial"] = "all"
    """Which stages are trained: all of them, or the one alone that the model names for training to go on from."""
    synthesised_pairs: int = 120
    """Pairs that are also made from the training cases with both structures, deformed to new shapes."""
    synthesised_fraction: float = 0.5
    """Fraction of a step's pairs that are synthesised ones."""
    augmentation: Augmentation = field(default_factory=lambda: STRONG_AUGMENTATION)
    """How far training pairs are varied; cut_mm cuts the fields of view."""
    val_fraction: float = 0.3
    """Fraction of the patients that the result is measured on (two at least), where the pairs have no split."""
    val_initialisations: int = 5
    """Initialisations of each val case, drawn from 0 to 20 mm SRE."""
    reference_initialisations: int = 8
    """Initialisations whose answers are averaged to a reference, where there is none and no structure to fit."""
    orientation_correction: Literal[0, 90, 180, 270] = 0
    """Rotation about the z axis that corrects wrong axes in all headers of the site, degrees; the adapted model then
    corrects them by itself."""
    seed: int = 0
    """Seed of everything that is drawn."""

    def __post_init__(self) -> None:
        check_choices(self)
        bounds = {
            "steps": (1, MOST_STEPS),
            "val_every": (1, MOST_STEPS),
            "batch": BATCH_BOUNDS,
            "ema_decay": (0, 1 - 1e-9),
            "synthesised_pairs": (0, 100_000),
            "synthesised_fraction": (0, 1),
            "val_initialisations": (1, 10_000),
            "reference_initialisations": (1, 10_000),
            "seed": (0, 2**31 - 1),
            "rate": (0, math.inf),
            "val_fraction": (0, 0.9),
        }
        check_bounds(self, bounds)
        check_over_zero(self, "val_fraction")
