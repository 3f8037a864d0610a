"""Model files: trained stages, how they are run, and the models that come in the package.

Loaded on first use: the command line reads the settings' modules of this room without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_MODULES = {
    "Stage": "stage",
    "StageSettings": "stage_settings",
    "load_original_checkpoint": "published",
    "load_stage": "stage",
    "save_stage": "stage",
}
__all__ = ["Stage", "StageSettings", "load_original_checkpoint", "load_stage", "save_stage"]

if TYPE_CHECKING:
    from crossalign.models.published import load_original_checkpoint
    from crossalign.models.stage import Stage, load_stage, save_stage
    from crossalign.models.stage_settings import StageSettings


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'crossalign.models' has no attribute '{name}'")
    return getattr(import_module(f"crossalign.models.{_MODULES[name]}"), name)
