"""A stage: one trained network, what it is to be fed with, and the file that holds both."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from crossalign.errors import WeightsError
from crossalign.models.earlier_files import current_tensor_name
from crossalign.models.saved_settings import settings_of
from crossalign.models.stage_settings import StageSettings
from crossalign.models.weight_files import UNFIT, read_weight_file, save_weight_file, unfit
from crossalign.networks.registry import build_network

FORMAT = "crossalign-stage-1"


@dataclass(frozen=True, eq=False)
class Stage:
    """A network in eval mode with its settings; `notes` are free text from training (steps, data, validation SRE)."""

    network: nn.Module
    settings: StageSettings
    notes: dict[str, str]


def save_stage(stage: Stage, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write weights and settings to one safetensors file. Raises OutputError."""
    save_weight_file(stage.network, asdict(stage.settings), stage.notes, FORMAT, Path(path), overwrite)


def load_stage(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Stage:
    """Read what `save_stage` wrote; raises WeightsError where the file is missing, damaged, or of something else."""
    file = read_weight_file(path, FORMAT, "a trained stage", current_tensor_name)
    try:
        settings = settings_of(StageSettings, file.settings)
        model = file.network(lambda: build_network(settings.network, settings.crop_shape, settings.crop_spacing_mm))
    except WeightsError:
        raise
    except UNFIT as error:
        raise unfit(path, error) from error
    return Stage(model.to(device).eval(), settings, file.notes)
