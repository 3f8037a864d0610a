"""Model files: trained stages, how they are run, and the models that come in the package."""

from crossalign.models.published import (
    load_original_checkpoint,
)
from crossalign.models.stage import (
    Stage,
    StageSettings,
    load_stage,
    save_stage,
)

__all__ = [
    "Stage",
    "StageSettings",
    "load_original_checkpoint",
    "load_stage",
    "save_stage",
]
