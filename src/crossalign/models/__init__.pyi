"""Models: trained stages, how they are combined and run, their files, and those that come in the package.

Loaded on first use: the command line reads the settings' modules of this room without waiting for torch.
"""

from .arrangement import Cascade as Cascade
from .arrangement import Ensemble as Ensemble
from .arrangement import Stage as Stage
from .calibration import Calibration as Calibration
from .calibration import EvidenceTerm as EvidenceTerm
from .card import Card as Card
from .model import (
    Model as Model,
)
from .model import (
    combine as combine,
)
from .model import (
    load_model as load_model,
)
from .model import (
    load_stage as load_stage,
)
from .model import (
    save_model as save_model,
)
from .model import (
    save_stage as save_stage,
)
from .pretrained import shipped_names as shipped_names
from .published import load_original_checkpoint as load_original_checkpoint
from .run_settings import RunSettings as RunSettings
from .stage_settings import StageSettings as StageSettings
