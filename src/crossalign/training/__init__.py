"""Training of a stage from a manifest or from simulated pairs. The loop itself reads no image files."""

from crossalign.training.bank import Bank
from crossalign.training.loop import TrainingResult, train_stage
from crossalign.training.settings import NO_AUGMENTATION, STRONG_AUGMENTATION, Augmentation, TrainingSettings

__all__ = [
    "NO_AUGMENTATION",
    "STRONG_AUGMENTATION",
    "Augmentation",
    "Bank",
    "TrainingResult",
    "TrainingSettings",
    "train_stage",
]
