"""A stage: one trained network, what it is to be fed with, and the file that holds both."""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from crossalign.errors import InputError, WeightsError
from crossalign.models.registry import build_model, model_names
from crossalign.output import whole_file
from crossalign.types import Shape

FORMAT = "crossalign-stage-1"
FIXED_INPUTS = ("image", "label")


@dataclass(frozen=True)
class StageSettings:
    """What a network sees: an isotropic crop about the fixed gland's centroid, axes along L, P and S.

    `crop_shape` is (z, y, x). Both images are first brought to `working_spacing_mm`, smoothed against aliasing, then
    sampled at the crop's points. `fixed_input` is the image, or the gland's mask (the paper's label mode).
    """

    model: str = "attention-reg"
    crop_shape: Shape = (32, 32, 32)
    crop_spacing_mm: float = 2.5
    working_spacing_mm: float = 1.5
    fixed_input: str = "image"

    def __post_init__(self) -> None:
        if self.model not in model_names():
            raise InputError(f"no network is called '{self.model}': choose one of {', '.join(model_names())}")
        if len(self.crop_shape) != 3 or min(self.crop_shape) < 4:
            raise InputError(f"the crop needs 4 voxels or more on each of three axes, got {self.crop_shape}")
        spacings = (self.crop_spacing_mm, self.working_spacing_mm)
        if not all(math.isfinite(value) and value > 0 for value in spacings):
            raise InputError(f"spacings must be over 0 mm and finite, got {spacings[0]} and {spacings[1]}")
        if self.fixed_input not in FIXED_INPUTS:
            raise InputError(f"the fixed input is 'image' or 'label', got '{self.fixed_input}'")

    def extent_mm(self) -> float:
        """Length of the crop's longest side."""
        return max(self.crop_shape) * self.crop_spacing_mm


@dataclass(frozen=True, eq=False)
class Stage:
    """A network in eval mode with its settings; `notes` are free text from training (steps, data, validation SRE)."""

    model: nn.Module
    settings: StageSettings
    notes: dict[str, str]


def save_stage(stage: Stage, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write weights and settings to one safetensors file. Raises OutputError."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in stage.model.state_dict().items()}
    metadata = {"format": FORMAT, "settings": json.dumps(asdict(stage.settings)), "notes": json.dumps(stage.notes)}
    with whole_file(path, overwrite) as partial:
        save_file(tensors, partial, metadata)


def load_stage(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Stage:
    """Read what `save_stage` wrote; raises WeightsError where the file is missing, damaged, or of something else."""
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
        raise WeightsError(f"{path.name}: not a trained stage of crossalign (format '{metadata.get('format')}')")
    try:
        values = json.loads(metadata["settings"])
        settings = StageSettings(**{**values, "crop_shape": tuple(values["crop_shape"])})
        model = build_model(settings.model, settings.crop_shape, settings.crop_spacing_mm)
        model.load_state_dict(tensors)
        notes = {str(name): str(value) for name, value in json.loads(metadata.get("notes", "{}")).items()}
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path.name}: settings and weights do not fit this version: {reason}") from error
    return Stage(model.to(device).eval(), settings, notes)
