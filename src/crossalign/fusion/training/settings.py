"""Settings of a fusion network's training; they validate themselves and are saved beside the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from crossalign.errors import SettingError
from crossalign.fields import Bounds, check_bounds
from crossalign.fusion.networks.settings import FusionStageSettings
from crossalign.training.settings import Precision, check_run_settings

SMALLEST_PATCH = 16  # voxels on an axis
BOUNDS: Bounds = {
    "batch": (1, 4096),
    "patch": (16, 512),
    "planes": (0, 512),
    "salience_weight": (0, math.inf),
    "outline_weight": (0, math.inf),
    "invented_gradient_weight": (0, math.inf),
    "baseline_weight": (0, math.inf),
    "lesion_weight": (0, math.inf),
    "lesion_fraction": (0, 1),
}


@dataclass(frozen=True)
class FusionAugmentation:
    """How a patch is varied: both volumes together, but contrast and noise in the MRI alone. Rotations as published."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {"turn_rad": "rotation_rad", "turned_share": "rotated_fraction"}

    rotation_rad: float = 0.2
    """Largest rotation of both volumes about each axis, rad."""
    rotated_fraction: float = 0.25
    """Fraction of the patches that are rotated."""
    gamma: float = 0.3
    """Half-width of the logarithm of the MRI's gamma."""
    noise: float = 0.02
    """Largest standard deviation of the MRI's noise."""
    gain: float = 0.3
    """Largest fraction by which either volume is made darker."""
    mirror: bool = True
    """Whether half of the patches are flipped along each axis."""

    def __post_init__(self) -> None:
        most = {"rotated_fraction": 1.0, "gain": math.nextafter(1.0, 0.0)}
        check_bounds(self, {name: (0, most.get(name, math.inf)) for name in vars(self)})


NO_FUSION_AUGMENTATION = FusionAugmentation(0.0, 0.0, 0.0, 0.0, 0.0, False)


@dataclass(frozen=True)
class FusionTrainingSettings:
    """How a fusion network is trained. The paper's: loss `paper`, rate 1e-4, schedule `power`, batch 1."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {
        "transfer": "qabf_weights",
        "lesions": "lesion_weight",
        "planted_share": "lesion_fraction",
        "average": "ema_decay",
    }

    stage: FusionStageSettings = field(default_factory=FusionStageSettings)
    """The network and its size."""
    steps: int = 2000
    """Optimiser steps."""
    batch: int = 1
    """Patches in a step."""
    patch: int = 48
    """Edge of a patch, voxels."""
    planes: int = 0
    """Axial planes of a patch; 0 is as many as its edge."""
    rate: float = 2e-3
    """Highest learning rate."""
    weight_decay: float = 1e-4
    """Weight decay of the optimiser (AdamW)."""
    loss: Literal["ssim-qabf", "paper"] = "ssim-qabf"
    """What is minimised: ssim-qabf (what SSIM to both inputs, Qabf and lesions lack), or the paper's."""
    qabf_weights: tuple[float, float] = (0.015, 0.25)
    """Weight of Qabf in ssim-qabf for balanced fusion and for detail; between them it is even in its logarithm."""
    salience_weight: float = 1.0
    """Weight in ssim-qabf of how far uptake above that around it fails to be above it in the fused volume."""
    outline_weight: float = 0.0
    """Weight in ssim-qabf of how far outlined lesions fail to be brighter than what is around them; 0: unsupervised."""
    invented_gradient_weight: float = 0.3
    """Weight in ssim-qabf of gradients of the fused volume that are stronger than those of both inputs (Nabf)."""
    limit_gradient: bool = True
    """Whether the loss's gradient is kept from growing on its way through a compact network's steps."""
    baseline_weight: float = 0.0
    """Weight in ssim-qabf of how far the SSIM of balanced fusion lies below that of the plain average."""
    lesion_weight: float = 0.1
    """Weight in ssim-qabf of the contrast that inserted lesions lose; 0 inserts none."""
    lesion_fraction: float = 0.5
    """Fraction of the steps in which lesions are inserted."""
    schedule: Literal["cosine", "power"] = "cosine"
    """How the learning rate falls: as a cosine, or as the paper's power of what is left."""
    val_every: int = 100
    """Steps between validations, each of which writes a checkpoint."""
    ema_decay: float = 0.99
    """Decay of the exponential moving average of the weights, which is validated and kept; 0 keeps the weights."""
    precision: Precision = "auto"
    """Number format of the network's activations; auto is bfloat16 where the processor computes in it."""
    seed: int = 0
    """Seed of everything that is drawn."""
    augmentation: FusionAugmentation = field(default_factory=FusionAugmentation)
    """How far patches are varied."""

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS)
        check_run_settings(self, self.ema_decay)
        if not 0 < self.qabf_weights[0] <= self.qabf_weights[1] < math.inf:
            raise SettingError("qabf_weights", f"must run from over 0 upwards, got {self.qabf_weights}")
        if self.outline_weight > 0 and self.loss == "paper":
            raise SettingError("outline_weight", "must be 0 with the paper's loss, in which no outline takes part")
        if 0 < self.planes < SMALLEST_PATCH:
            raise SettingError("planes", f"must be 0 or {SMALLEST_PATCH} at least, got {self.planes}")

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Voxels of a patch along z, y, x."""
        return self.planes or self.patch, self.patch, self.patch
