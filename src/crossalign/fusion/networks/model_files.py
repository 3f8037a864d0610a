"""Trained fusion networks: their settings, their files, and how they are run."""

import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossalign.errors import InputError, WeightsError
from crossalign.fusion.networks.compact import CompactSettings, DCFBCompact
from crossalign.fusion.networks.dcfb import DCFB, DCFBSettings
from crossalign.fusion.networks.slabwise import fuse_by_slabs
from crossalign.models.weight_files import UNFIT, read_weight_file, save_weight_file, settings_of, unfit
from crossalign.types import Volume

FORMAT = "crossalign-fusion-1"
SLICES = 16  # of the twin in the plane at a time

# Names in the files of earlier versions, and today's.
RENAMED_PARTS = {"think": "mlp", "beside": "convolution", "place_gate": "spatial_gate", "mix": "pointwise"}
RENAMED_PARTS |= {"around": "spatial", "tune": "modulation", "choose": "initial", "climb": "ssim_steps"}
RENAMED_PARTS |= {"length": "size"}
RENAMED_SETTINGS = {"climbs": "ssim_steps", "steps": "refinements"}


@dataclass(frozen=True)
class FusionStageSettings:
    """Which network, and its size; those of the network that is not named are not used."""

    model: str = "dcfb-compact"
    compact: CompactSettings = field(default_factory=CompactSettings)
    paper: DCFBSettings = field(default_factory=DCFBSettings)

    def __post_init__(self) -> None:
        if self.model not in FUSION_BUILDERS:
            raise InputError(f"no fusion network is called '{self.model}': choose one of {', '.join(FUSION_BUILDERS)}")

    @property
    def multiple(self) -> int:
        """Tiles start at multiples of this and their sizes are multiples of it."""
        return self.paper.multiple if self.model == "dcfb" else self.compact.multiple


@dataclass(frozen=True, eq=False)
class FusionStage:
    """A network in eval mode with its settings; `notes` are free text from training."""

    model: nn.Module
    settings: FusionStageSettings
    notes: dict[str, str]


FUSION_BUILDERS: dict[str, Callable[[FusionStageSettings], nn.Module]] = {
    "dcfb-compact": lambda settings: DCFBCompact(settings.compact),
    "dcfb-compact-2d": lambda settings: DCFBCompact(settings.compact, planar=True),
    "dcfb": lambda settings: DCFB(settings.paper),
}


def build_fusion_model(settings: FusionStageSettings) -> nn.Module:
    """Make an untrained network; its weights are drawn from torch's global generator."""
    return FUSION_BUILDERS[settings.model](settings)


@torch.no_grad()
def apply_fusion_model(model: nn.Module, a: Volume, b: Volume, detail: float) -> Volume:
    """Run a network on one pair (1, 1, z, y, x) without gradients; `detail` is for the compact networks.

    On the CPU the compact network in 3-D is run slab by slab; its twin in the plane on a few slices at a time, which
    are independent.
    """
    if not isinstance(model, DCFBCompact):
        return model(a, b)
    if a.device.type == "cpu" and not model.planar:
        return fuse_by_slabs(model, a, b, detail)
    details = a.new_full((len(a),), detail)
    slices = SLICES if model.planar else a.shape[2]
    fused = []
    for first in range(0, a.shape[2], slices):
        part = (volume[:, :, first : first + slices] for volume in (a, b))
        fused.append(model(*(one.contiguous(memory_format=torch.channels_last_3d) for one in part), details))
    return torch.cat(fused, dim=2)


def fusion_estimates(model: nn.Module, a: Volume, b: Volume, detail: Tensor) -> list[Volume]:
    """Run a network and return what its loss is the mean of: its successive estimates, the fused volume last."""
    return model.estimates(a, b, detail) if isinstance(model, DCFBCompact) else [model(a, b)]


def save_fusion_stage(stage: FusionStage, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write weights and settings to one safetensors file. Raises OutputError."""
    save_weight_file(stage.model, asdict(stage.settings), stage.notes, FORMAT, Path(path), overwrite)


def load_fusion_stage(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> FusionStage:
    """Read what `save_fusion_stage` wrote; raises WeightsError where the file is missing, damaged or something else."""
    file = read_weight_file(path, FORMAT, "a fusion network", current_name)
    try:
        settings = settings_of(FusionStageSettings, _current_settings(file.settings))
        model = file.network(lambda: build_fusion_model(settings))
    except WeightsError:
        raise
    except UNFIT as error:
        raise unfit(path, error) from error
    return FusionStage(model.to(device).eval(), settings, file.notes)


def current_name(name: str) -> str:
    """Return today's name of a weight; files of earlier versions have other ones."""
    name = re.sub(r"^(refinements\.\d+)\.weight$", r"\1.qabf_weight", name)
    return ".".join(RENAMED_PARTS.get(part, part) for part in name.split("."))


def _current_settings(settings: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(compact := settings.get("compact"), dict):
        return settings
    return settings | {"compact": {RENAMED_SETTINGS.get(name, name): value for name, value in compact.items()}}
