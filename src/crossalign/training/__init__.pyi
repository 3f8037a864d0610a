"""Training of networks from a manifest or from simulated pairs.

Loaded on first use: the command line reads the settings' modules of this room without waiting for torch.
"""

from .adaptation.adapt import adapt as adapt
from .adaptation.result import AdaptationResult as AdaptationResult
from .adaptation.settings import AdaptationSettings as AdaptationSettings
from .dataset import PairDataset as PairDataset
from .engine import RunResult as RunResult
from .engine import run_task as run_task
from .settings import (
    NO_AUGMENTATION as NO_AUGMENTATION,
)
from .settings import (
    STRONG_AUGMENTATION as STRONG_AUGMENTATION,
)
from .settings import (
    Augmentation as Augmentation,
)
from .settings import (
    TrainingSettings as TrainingSettings,
)
from .tasks.registration import RegistrationTask as RegistrationTask
