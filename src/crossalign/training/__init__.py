"""Training of registration networks from a manifest or from simulated pairs."""

from crossalign.training.dataset import (
    PairDataset,
)
from crossalign.training.settings import (
    NO_AUGMENTATION,
    STRONG_AUGMENTATION,
    Augmentation,
    TrainingSettings,
)
from crossalign.training.tasks.registration import (
    TrainingResult,
    train_stage,
)

__all__ = [
    "Augmentation",
    "PairDataset",
    "NO_AUGMENTATION",
    "STRONG_AUGMENTATION",
    "TrainingResult",
    "TrainingSettings",
    "train_stage",
]
