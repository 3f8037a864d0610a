"""Training of networks from a manifest or from simulated pairs.

Loaded on first use: the command line reads the settings' modules of this room without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_MODULES = {
    "Augmentation": "settings",
    "NO_AUGMENTATION": "settings",
    "STRONG_AUGMENTATION": "settings",
    "TrainingSettings": "settings",
    "PairDataset": "dataset",
    "RegistrationTask": "tasks.registration",
    "RunResult": "engine",
    "run_task": "engine",
}
__all__ = [
    "Augmentation",
    "NO_AUGMENTATION",
    "PairDataset",
    "RegistrationTask",
    "RunResult",
    "STRONG_AUGMENTATION",
    "TrainingSettings",
    "run_task",
]

if TYPE_CHECKING:
    from crossalign.training.dataset import PairDataset
    from crossalign.training.engine import RunResult, run_task
    from crossalign.training.settings import NO_AUGMENTATION, STRONG_AUGMENTATION, Augmentation, TrainingSettings
    from crossalign.training.tasks.registration import RegistrationTask


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'crossalign.training' has no attribute '{name}'")
    return getattr(import_module(f"crossalign.training.{_MODULES[name]}"), name)
