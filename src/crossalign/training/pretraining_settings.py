"""Settings of contrastive pre-training; they validate themselves and are saved beside the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from crossalign.errors import SettingError
from crossalign.fields import check_bounds, check_over_zero
from crossalign.models.stage_settings import StageSettings
from crossalign.training.settings import BATCH_BOUNDS, Augmentation, Precision, check_initial_sre, check_run_settings


@dataclass(frozen=True)
class PretrainingSettings:
    """How a network's two extractors are pre-trained by contrast; docs/how-to/pretrain.md says why so by default."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {
        "start_sre_mm": "initial_sre_mm",
        "places": "tokens",
        "seen_only": "foreground_only",
        "average": "ema_decay",
    }

    stage: StageSettings = field(default_factory=StageSettings)
    """The network and its crops."""
    steps: int = 1000
    """Optimiser steps."""
    batch: int = 16
    """Pairs in a step."""
    rate: float = 1e-3
    """Highest learning rate."""
    weight_decay: float = 1e-2
    """Weight decay of the optimiser (AdamW)."""
    initial_sre_mm: tuple[float, float] = (0.0, 0.0)
    """Range of the SRE of the crops, mm. At 0 the same position has the same index in both maps; otherwise too, the
    positive is the true position."""
    temperature: float = 0.1
    """Temperature of the contrast."""
    tokens: int = 128
    """Tokens of each pair that are contrasted in a step."""
    margin_mm: float = 10.0
    """Tokens this near the positive are left out, mm."""
    head: Literal["linear", "mlp", "none"] = "linear"
    """Projection head between features and contrast, one for each modality."""
    width: int = 32
    """Outputs of the projection head."""
    foreground_only: bool = True
    """Contrast only tokens at which the moving image is not empty."""
    radius_mm: float = 10.0
    """Distance within which a retrieved token counts as right, mm."""
    val_every: int = 100
    """Steps between validations, each of which writes a checkpoint."""
    ema_decay: float = 0.995
    """Decay of the exponential moving average of the weights, which is validated and kept; 0 keeps the weights."""
    precision: Precision = "auto"
    """Number format of the network's activations; auto is bfloat16 where the processor computes in it."""
    seed: int = 0
    """Seed of everything that is drawn."""
    patients: float = 1.0
    """Fraction of the training patients to use."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How far training pairs are varied."""

    def __post_init__(self) -> None:
        check_initial_sre(self.initial_sre_mm)
        check_run_settings(self, self.ema_decay)
        lengths = {"margin_mm": (0, math.inf), "radius_mm": (0, math.inf)}
        check_bounds(
            self, {**lengths, "batch": BATCH_BOUNDS, "width": (1, 65_536), "tokens": (2, 10**6), "patients": (0, 1)}
        )
        check_over_zero(self, "temperature", "patients")
        if self.stage.takes_moving_mask():
            raise SettingError(
                "stage.moving_input",
                "must be image for pre-training, got image-label: give a trained network the moving mask afterwards "
                "(train --from)",
            )
