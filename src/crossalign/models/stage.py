"""A stage: one trained network, what it is to be fed with, and the file that holds both."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from crossalign.errors import InputError, WeightsError
from crossalign.models.weight_files import UNFIT, read_weight_file, save_weight_file, settings_of, unfit
from crossalign.networks.registry import build_network, check_crop_shape, names_in_words, network_names
from crossalign.types import Shape

FORMAT = "crossalign-stage-1"
FIXED_INPUTS = ("image", "label")
SPACING_MM = 1e-3, 1e3  # of crops: of a micrometre to a metre


@dataclass(frozen=True)
class StageSettings:
    """What a network sees: an isotropic crop about the fixed gland's centroid, axes along L, P and S.

    `crop_shape` is (z, y, x). Both images are first brought to `working_spacing_mm`, smoothed against aliasing, then
    sampled at the crop's points. `fixed_input` is the image, or the gland's mask (the paper's label mode).
    """

    OLD_NAMES: ClassVar[Mapping[str, str]] = {"model": "network"}  # in files of earlier versions

    network: str = "attention-reg"
    crop_shape: Shape = (32, 32, 32)
    crop_spacing_mm: float = 2.5
    working_spacing_mm: float = 1.5
    fixed_input: str = "image"

    def __post_init__(self) -> None:
        if self.network not in network_names():
            raise InputError(f"no network is called '{self.network}': choose one of {names_in_words()}")
        check_crop_shape(self.network, self.crop_shape)
        spacings = (self.crop_spacing_mm, self.working_spacing_mm)
        if not all(math.isfinite(value) and value > 0 for value in spacings):
            raise InputError(f"spacings must be over 0 mm and finite, got {spacings[0]} and {spacings[1]}")
        if not all(SPACING_MM[0] <= value <= SPACING_MM[1] for value in spacings):
            raise InputError(
                f"spacings must lie in {SPACING_MM[0]:g}..{SPACING_MM[1]:g} mm, got {spacings[0]} and {spacings[1]}"
            )
        if self.fixed_input not in FIXED_INPUTS:
            raise InputError(f"the fixed input is 'image' or 'label', got '{self.fixed_input}'")

    def extent_mm(self) -> float:
        """Length of the crop's longest side."""
        return max(self.crop_shape) * self.crop_spacing_mm


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
    file = read_weight_file(path, FORMAT, "a trained stage")
    try:
        settings = settings_of(StageSettings, file.settings)
        model = file.network(lambda: build_network(settings.network, settings.crop_shape, settings.crop_spacing_mm))
    except WeightsError:
        raise
    except UNFIT as error:
        raise unfit(path, error) from error
    return Stage(model.to(device).eval(), settings, file.notes)
