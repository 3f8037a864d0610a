"""A trained fusion network, its settings, and the file that holds both."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from crossalign.errors import InputError, WeightsError
from crossalign.models.dcfb import DCFB, DCFBSettings
from crossalign.models.dcfb_compact import CompactSettings, DCFBCompact
from crossalign.output import whole_file
from crossalign.types import Volume

FORMAT = "crossalign-fusion-1"


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
        return self.compact.multiple if self.model == "dcfb-compact" else self.paper.multiple


@dataclass(frozen=True, eq=False)
class FusionStage:
    """A network in eval mode with its settings; `notes` are free text from training."""

    model: nn.Module
    settings: FusionStageSettings
    notes: dict[str, str]


FUSION_BUILDERS: dict[str, Callable[[FusionStageSettings], nn.Module]] = {
    "dcfb-compact": lambda settings: DCFBCompact(settings.compact),
    "dcfb": lambda settings: DCFB(settings.paper),
}


def fusion_model_names() -> tuple[str, ...]:
    """Names that `FusionStageSettings` takes."""
    return tuple(FUSION_BUILDERS)


def build_fusion_model(settings: FusionStageSettings) -> nn.Module:
    """Make an untrained network; its weights are drawn from torch's global generator."""
    return FUSION_BUILDERS[settings.model](settings)


def apply_fusion_model(model: nn.Module, a: Volume, b: Volume, emphasis: Tensor) -> Volume:
    """Run a network; `emphasis` (b,) goes to the one that takes it."""
    if isinstance(model, DCFBCompact):
        return model(a, b, emphasis)
    return model(a, b)


def save_fusion_stage(stage: FusionStage, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write weights and settings to one safetensors file. Raises OutputError."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in stage.model.state_dict().items()}
    metadata = {"format": FORMAT, "settings": json.dumps(asdict(stage.settings)), "notes": json.dumps(stage.notes)}
    with whole_file(path, overwrite) as partial:
        save_file(tensors, partial, metadata)


def load_fusion_stage(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> FusionStage:
    """Read what `save_fusion_stage` wrote; raises WeightsError where the file is missing, damaged or something else."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path.name}: not a safetensors file, or damaged: {error}") from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path.name}: not a fusion network of crossalign (format '{metadata.get('format')}')")
    try:
        settings = _settings(json.loads(metadata["settings"]))
        model = build_fusion_model(settings)
        model.load_state_dict(tensors)
        notes = json.loads(metadata.get("notes", "{}"))
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path.name}: settings and weights do not fit this version: {reason}") from error
    return FusionStage(model.to(device).eval(), settings, notes)


def _settings(values: dict[str, Any]) -> FusionStageSettings:
    paper: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values["paper"].items()}
    compact = CompactSettings(**values["compact"])
    return FusionStageSettings(str(values["model"]), compact, DCFBSettings(**paper))
