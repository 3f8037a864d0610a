"""Settings of a fusion network's training; they validate themselves and are saved beside the weights."""

import math
from dataclasses import dataclass, field

from crossalign.errors import InputError
from crossalign.fusion.networks.model_files import FusionStageSettings
from crossalign.training.settings import PRECISIONS, check_most

FUSION_LOSSES = ("keeping", "paper")
FUSION_SCHEDULES = ("cosine", "power")
MOST = {"steps": 10**8, "batch": 4096, "val_every": 10**8, "patch": 512}


@dataclass(frozen=True)
class FusionAugmentation:
    """How a patch is varied: both volumes turned together, contrast and noise changed in the MRI alone.

    As published: turns of up to 0.2 rad about each axis. `gamma` is the half-width of the exponent's logarithm, `noise`
    the largest sd, `mirror` allows flips of each axis, `gain` dims each input on its own.
    """

    turn_rad: float = 0.2
    turned_share: float = 0.25
    gamma: float = 0.3
    noise: float = 0.02
    gain: float = 0.3
    mirror: bool = True

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise InputError(f"augmentation '{name}' must be 0 or more and finite, got {value}")
        if self.turned_share > 1 or self.gain >= 1:
            raise InputError(f"'turned_share' is 1 at most and 'gain' under 1, got {self.turned_share} and {self.gain}")


NO_FUSION_AUGMENTATION = FusionAugmentation(0.0, 0.0, 0.0, 0.0, 0.0, False)


@dataclass(frozen=True)
class FusionTrainingSettings:
    """One network's training. The paper's: loss `paper`, rate 1e-4, schedule `power`, batch 1.

    `keeping` is the mean structural similarity to both inputs plus `transfer` times the share of their gradients kept;
    its weight runs from transfer[0] at emphasis 0 (balanced) to transfer[1] at emphasis 1 (detail), evenly in its
    logarithm. `lesions` weighs what planted lesions lose of their contrast (0: none are planted), and `planted_share`
    is the share of the steps that plant one. `patch` is the edge of the cubes, in voxels. `average` is the decay of
    the running mean of the weights.
    """

    stage: FusionStageSettings = field(default_factory=FusionStageSettings)
    steps: int = 2000
    batch: int = 1
    patch: int = 48
    rate: float = 2e-3
    weight_decay: float = 1e-4
    loss: str = "keeping"
    transfer: tuple[float, float] = (0.015, 0.25)
    lesions: float = 0.1
    planted_share: float = 0.5
    schedule: str = "cosine"
    val_every: int = 100
    average: float = 0.99
    precision: str = "auto"
    seed: int = 0
    augmentation: FusionAugmentation = field(default_factory=FusionAugmentation)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "val_every"):
            if getattr(self, name) < 1:
                raise InputError(f"'{name}' must be 1 or more, got {getattr(self, name)}")
        if self.patch < 16:
            raise InputError(f"'patch' must be 16 voxels or more, got {self.patch}")
        check_most(self, MOST)
        if not 0 <= self.weight_decay < math.inf or not 0 <= self.seed < 2**31:
            raise InputError(
                f"'weight_decay' must be 0 or more and 'seed' in [0, 2^31), got {self.weight_decay} and {self.seed}"
            )
        if not 0 < self.rate < math.inf or not 0 <= self.average < 1:
            raise InputError(f"'rate' must be over 0 and 'average' in [0, 1), got {self.rate} and {self.average}")
        if len(self.transfer) != 2 or not 0 < self.transfer[0] <= self.transfer[1] < math.inf:
            raise InputError(f"'transfer' runs from over 0 upwards, got {self.transfer}")
        if not 0 <= self.lesions < math.inf or not 0 <= self.planted_share <= 1:
            raise InputError(
                f"'lesions' is 0 or more and 'planted_share' in [0, 1], got {self.lesions} and {self.planted_share}"
            )
        choices = (("loss", FUSION_LOSSES), ("schedule", FUSION_SCHEDULES), ("precision", PRECISIONS))
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                raise InputError(f"'{name}' must be one of {', '.join(allowed)}, got '{getattr(self, name)}'")
