"""Settings of a training run; they validate themselves and are saved beside the weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from crossalign.errors import InputError
from crossalign.models import StageSettings
from crossalign.models.cascade_settings import HEADER_TURNS
from crossalign.networks.registry import BUILDERS, WITHOUT_MATCHES

LOSSES = ("auto", "sre", "parameters", "guided")
SCHEDULES = ("cosine", "paper")
LARGEST_SCALE = 0.6  # an axis is stretched by 1 +- 4/3 of it, and must not vanish
PRECISIONS = ("auto", "float32", "bfloat16")
# What settings may ask for: beyond these a run takes more memory or time than anyone has.
MOST = {"steps": 10**8, "batch": 65_536, "val_starts": 10_000, "val_every": 10**8, "recombined": 100_000}


@dataclass(frozen=True)
class Augmentation:
    """How far a training pair is varied; both images move together, so the truth stays exact.

    Ranges are half-widths of uniform draws; `bend_mm` is the sd of a smooth displacement of both images, `part_mm` of
    one that only the moving image takes (the two scans of a prostate differ by a deformation). Intensity changes are
    drawn for each image by itself. `mirror` names the axes that half of the pairs are flipped along: x is the
    patient's left-right where the headers tell the truth; flipping front and back teaches anatomy that does not exist.
    """

    turn_deg: float = 10.0
    scale: float = 0.1
    shift_mm: float = 5.0
    mirror: str = "x"
    bend_mm: float = 2.5
    part_mm: float = 0.7
    gamma: float = 0.4
    bias: float = 0.3
    noise: float = 0.04
    blank: float = 0.15

    def __post_init__(self) -> None:
        if not set(self.mirror) <= set("xyz"):
            raise InputError(f"augmentation 'mirror' names axes (x, y, z) or none, got '{self.mirror}'")
        for name, value in vars(self).items():
            if name != "mirror" and not 0 <= value < math.inf:
                raise InputError(f"augmentation '{name}' must be 0 or more and finite, got {value}")
        for name, most in (("scale", LARGEST_SCALE), ("blank", 1.0)):
            if getattr(self, name) > most:
                raise InputError(f"augmentation '{name}' must be {most:g} or less, got {getattr(self, name)}")


NO_AUGMENTATION = Augmentation(0.0, 0.0, 0.0, "", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
# Where pairs are few or not quite those of later use: what most of the shipped weights were trained with.
STRONG_AUGMENTATION = Augmentation(
    turn_deg=12.0, scale=0.15, bend_mm=3.5, part_mm=1.0, gamma=0.8, bias=0.7, noise=0.06, blank=0.3
)
AUGMENTATIONS = {"none": NO_AUGMENTATION, "usual": Augmentation(), "strong": STRONG_AUGMENTATION}


def named_augmentation(name: str, mirror: str = "x") -> Augmentation:
    """Return one of AUGMENTATIONS, mirrored along these axes where it varies anything; raises InputError."""
    if name not in AUGMENTATIONS:
        raise InputError(f"the augmentation must be one of {', '.join(AUGMENTATIONS)}, got '{name}'")
    chosen = AUGMENTATIONS[name]
    return chosen if chosen == NO_AUGMENTATION else replace(chosen, mirror=mirror)


@dataclass(frozen=True)
class TrainingSettings:
    """One stage's training. The papers': loss `parameters`, schedule `paper`, rate 1e-3, batch 8, 19,800 steps.

    `start_sre_mm` is the range of the starts: 0 to 20 mm for the first stage, 0 to 8 mm for the second. The loss `auto`
    is `guided` for a network that matches places, else `sre`. Validation uses `val_starts` fixed starts a case.
    `average` is the decay of the running mean of the weights that is validated and kept (0 keeps the weights
    themselves). The rest are records, acted on by who makes the banks and the network: `pretrained` names the
    extractors that the network starts from, `patients` is the share of the training patients that is used, `recombined`
    the number of pairs that are made from theirs, `header_turn_deg` the turn about z that mends all headers, and
    `shapes_share` the share of random shapes among simulated pairs.
    """

    stage: StageSettings = field(default_factory=StageSettings)
    steps: int = 4000
    batch: int = 16
    rate: float = 1e-3
    weight_decay: float = 1e-2
    loss: str = "auto"
    schedule: str = "cosine"
    start_sre_mm: tuple[float, float] = (0.0, 20.0)
    val_starts: int = 5
    val_every: int = 250
    average: float = 0.995
    precision: str = "auto"
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    pretrained: str = ""
    patients: float = 1.0
    recombined: int = 0
    header_turn_deg: int = 0
    shapes_share: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.start_sre_mm
        if not 0 <= low <= high < math.inf:
            raise InputError(f"the starts' SRE runs from 0 or more upwards and is finite, got {self.start_sre_mm} mm")
        for name in ("steps", "batch", "val_starts", "val_every"):
            if getattr(self, name) < 1:
                raise InputError(f"'{name}' must be 1 or more, got {getattr(self, name)}")
        check_most(self, MOST)
        if self.batch < 2:
            raise InputError("'batch' must be 2 or more: batch normalisation needs it")
        if not 0 < self.rate < math.inf or not 0 <= self.average < 1:
            raise InputError(f"'rate' must be over 0 and 'average' in [0, 1), got {self.rate} and {self.average}")
        if not 0 <= self.weight_decay < math.inf or not 0 <= self.seed < 2**31:
            raise InputError(
                f"'weight_decay' must be 0 or more and 'seed' in [0, 2^31), got {self.weight_decay} and {self.seed}"
            )
        if not 0 < self.patients <= 1:
            raise InputError(f"'patients' is a share in (0, 1], got {self.patients}")
        if self.recombined < 0 or not 0 <= self.shapes_share <= 1:
            raise InputError(
                "'recombined' must be 0 or more and 'shapes_share' must lie in 0..1, "
                f"got {self.recombined} and {self.shapes_share}"
            )
        self._check_choices()

    def _check_choices(self) -> None:
        choices: tuple[tuple[str, tuple[object, ...]], ...] = (
            ("loss", LOSSES),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("header_turn_deg", HEADER_TURNS),
        )
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                listed = ", ".join(map(str, allowed))
                raise InputError(f"'{name}' must be one of {listed}, got '{getattr(self, name)}'")
        if self.loss == "guided" and self.stage.network in WITHOUT_MATCHES:
            matching = ", ".join(name for name in BUILDERS if name not in WITHOUT_MATCHES)
            raise InputError(
                f"the loss 'guided' needs matches, which '{self.stage.network}' has not: take another loss (auto, sre or "
                f"parameters), or one of {matching}"
            )


def check_most(settings: object, most: Mapping[str, int]) -> None:
    """Raise InputError where one of the settings is over what it may be at most."""
    for name, limit in most.items():
        if getattr(settings, name) > limit:
            raise InputError(f"'{name}' must be {limit} or less, got {getattr(settings, name)}")
