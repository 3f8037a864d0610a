"""Settings of every training; they validate themselves and are saved beside the weights. Importing them is quick."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from crossalign.errors import InputError, SettingError
from crossalign.fields import Bounds, check_bounds, check_choices, check_over_zero
from crossalign.models.stage_settings import StageSettings
from crossalign.networks.registry import NETWORKS

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]

# What settings may ask for: beyond these a run takes more memory or time than anyone has.
MOST_STEPS = 10**8
LARGEST_SCALE = 0.6  # an axis is stretched by 1 +- 4/3 of it, and must not vanish
BATCH_BOUNDS = (2, 65_536)  # batch normalisation needs two
RUN_BOUNDS: Bounds = {
    "steps": (1, MOST_STEPS),
    "val_every": (1, MOST_STEPS),
    "weight_decay": (0, math.inf),
    "seed": (0, 2**31 - 1),
}


def check_run_settings(settings: object, ema_decay: float) -> None:
    """Raise InputError where a setting that every run has is out of its bounds, or one is none of its choices."""
    check_bounds(settings, RUN_BOUNDS)
    check_over_zero(settings, "rate")
    if not 0 <= ema_decay < 1:
        raise SettingError("ema_decay", f"must be in [0, 1), got {ema_decay}")
    check_choices(settings)


def check_initial_sre(range_mm: tuple[float, float]) -> None:
    """Raise InputError where a range of the initialisations' SRE does not run upwards from 0 or more."""
    low, high = range_mm
    if not 0 <= low <= high < math.inf:
        raise SettingError("initial_sre_mm", f"runs from 0 or more upwards and is finite, got {low:g},{high:g}")


@dataclass(frozen=True)
class Augmentation:
    """How far training pairs are varied. Both images move together, so the truth stays exact.

    Ranges are half-widths of uniform draws where nothing else is said.
    """

    OLD_NAMES: ClassVar[Mapping[str, str]] = {
        "turn_deg": "rotation_deg",
        "bend_mm": "deformation_mm",
        "part_mm": "moving_deformation_mm",
        "blank": "cutout",
    }

    rotation_deg: float = 10.0
    """Rotation of both images about each axis, degrees."""
    scale: float = 0.1
    """Stretching of both images: a fraction of their size."""
    shift_mm: float = 5.0
    """Shift of both images along each axis, mm."""
    mirror: str = "x"
    """Axes along which half of the pairs are flipped. x is the patient's left-right where the headers are right;
    flipping front and back teaches anatomy that does not exist."""
    deformation_mm: float = 2.5
    """Standard deviation of a smooth displacement of both images, mm."""
    moving_deformation_mm: float = 0.7
    """Standard deviation of a smooth displacement of the moving image alone, mm: two scans of a prostate differ so."""
    gamma: float = 0.4
    """Logarithm of each image's gamma."""
    bias: float = 0.3
    """Logarithm of a smooth factor on each image."""
    noise: float = 0.04
    """Largest standard deviation of each image's noise."""
    cutout: float = 0.15
    """Probability that a box of an image is set to 0."""
    cut_mm: float = 20.0
    """Most that is cut off a side of either image's field of view, mm: half of the sides lose 0 to so much. Without it
    a network learns where one scanner's fields of view end."""
    outline_mm: float = 0.0
    """Largest change of the masks that a network is given, mm, each by itself: thicker or thinner by up to so much,
    shifted by 0.3 of it and displaced smoothly by 0.6 of it (standard deviations). People outline a structure
    otherwise in each scan."""

    def __post_init__(self) -> None:
        if not set(self.mirror) <= set("xyz"):
            raise SettingError("mirror", f"names axes (x, y, z) or none, got '{self.mirror}'")
        most = {"scale": LARGEST_SCALE, "cutout": 1.0}
        check_bounds(self, {name: (0, most.get(name, math.inf)) for name in vars(self) if name != "mirror"})


NO_AUGMENTATION = Augmentation(0.0, 0.0, 0.0, "", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
# Where pairs are few or not quite those of later use: what most of the shipped weights were trained with.
STRONG_AUGMENTATION = Augmentation(
    rotation_deg=12.0,
    scale=0.15,
    deformation_mm=3.5,
    moving_deformation_mm=1.0,
    gamma=0.8,
    bias=0.7,
    noise=0.06,
    cutout=0.3,
)
AUGMENTATIONS = {"none": NO_AUGMENTATION, "usual": Augmentation(), "strong": STRONG_AUGMENTATION}


@dataclass(frozen=True)
class PairSynthesisSettings:
    """How far the shapes of synthesised pairs go from those of the cases that they are made of."""

    size_sd: float = 0.10
    """Standard deviation of the logarithm of a structure's radius, in all directions alike."""
    bump_sd: float = 0.06
    """Standard deviation of the same by direction."""
    blended_fraction: float = 0.5
    """Fraction of the images that are blends of two cases' images."""

    def __post_init__(self) -> None:
        check_bounds(self, dict.fromkeys(vars(self), (0, 1)))


@dataclass(frozen=True)
class TrainingSettings:
    """How one stage is trained. The papers': loss `parameters`, schedule `paper`, rate 1e-3, batch 8, 19,800 steps."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {
        "start_sre_mm": "initial_sre_mm",
        "val_starts": "val_initialisations",
        "average": "ema_decay",
        "recombined": "synthesised_pairs",
        "header_turn_deg": "orientation_correction",
        "shapes_share": "shapes_fraction",
    }
    # Which settings of earlier versions may lack.
    LATER: ClassVar[tuple[str, ...]] = (
        *("pretrained", "patients", "synthesised_pairs", "synthesis", "orientation_correction", "shapes_fraction"),
    )
    RECORDS: ClassVar[tuple[str, ...]] = ("pretrained",)  # which are no options: a run fills them in

    stage: StageSettings = field(default_factory=StageSettings)
    """The network and its crops."""
    steps: int = 4000
    """Optimiser steps."""
    batch: int = 16
    """Pairs in a step."""
    rate: float = 1e-3
    """Highest learning rate."""
    weight_decay: float = 1e-2
    """Weight decay of the optimiser (AdamW)."""
    loss: Literal["auto", "sre", "parameters", "guided"] = "auto"
    """What is minimised: sre, parameters (the papers'), guided (SRE, matches and masks), or auto: guided for a network
    that matches tokens, else sre."""
    schedule: Literal["cosine", "paper"] = "cosine"
    """How the learning rate falls: as a cosine, or as in the paper."""
    initial_sre_mm: tuple[float, float] = (0.0, 20.0)
    """Range of the SRE of the initialisations, mm: 0,20 for a first stage, 0,8 for a second."""
    val_initialisations: int = 5
    """Fixed initialisations of each validation case."""
    val_every: int = 250
    """Steps between validations, each of which writes a checkpoint."""
    ema_decay: float = 0.995
    """Decay of the exponential moving average of the weights, which is validated and kept; 0 keeps the weights."""
    precision: Precision = "auto"
    """Number format of the network's activations; auto is bfloat16 where the processor computes in it."""
    seed: int = 0
    """Seed of everything that is drawn."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How far training pairs are varied."""
    pretrained: str = ""
    """Which pre-trained extractors the network begins with: a record."""
    patients: float = 1.0
    """Fraction of the training patients to use."""
    synthesised_pairs: int = 0
    """Pairs that are also made from the training cases' images, deformed to new shapes."""
    synthesis: PairSynthesisSettings = field(default_factory=PairSynthesisSettings)
    """How far the shapes of those pairs go from the cases'."""
    orientation_correction: Literal[0, 90, 180, 270] = 0
    """Rotation about the z axis that corrects wrong axes in all headers, degrees."""
    shapes_fraction: float = 0.0
    """Fraction of simulated pairs that show random shapes in any two modalities."""

    def __post_init__(self) -> None:
        check_initial_sre(self.initial_sre_mm)
        check_run_settings(self, self.ema_decay)
        bounds = {"val_initialisations": (1, 10_000), "synthesised_pairs": (0, 100_000), "shapes_fraction": (0, 1)}
        check_bounds(self, {**bounds, "batch": BATCH_BOUNDS, "patients": (0, 1)})
        check_over_zero(self, "patients")
        if self.loss == "guided" and not NETWORKS[self.stage.network].matches_tokens:
            matching = ", ".join(name for name, entry in NETWORKS.items() if entry.matches_tokens)
            raise InputError(
                f"the loss 'guided' needs matches, which '{self.stage.network}' has not: take another loss (auto, sre "
                f"or parameters), or one of {matching}"
            )


@dataclass(frozen=True)
class ErrorHeadSettings:
    """How an error-estimation head is trained.

    Some crops are rotated by 90, 180 or 270 degrees about z, both alike, as scans are whose headers name the axes
    wrongly: the head learns to expect an error there.
    """

    steps: int = 200
    """Optimiser steps."""
    batch: int = 16
    """Pairs in a step."""
    rate: float = 5e-3
    """Highest learning rate."""
    initial_sre_mm: tuple[float, float] = (0.0, 30.0)
    """Range of the SRE of the initialisations, mm."""
    rotated_fraction: float = 0.4
    """Fraction of the crops that are rotated."""
    seed: int = 0
    """Seed of everything that is drawn."""

    def __post_init__(self) -> None:
        check_initial_sre(self.initial_sre_mm)
        check_bounds(self, {"steps": (1, MOST_STEPS), "batch": BATCH_BOUNDS, "rotated_fraction": (0, 1)})
        check_over_zero(self, "rate")
