"""The two feature extractors of a registration network: their feature map, and their weights in a file of their own."""

from __future__ import annotations

import copy
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossalign.errors import InputError, WeightsError
from crossalign.fields import settings_of
from crossalign.models.model_file import ModelContents, StageContents, read_model_file, save_model_file, unfit
from crossalign.models.stage_settings import StageSettings
from crossalign.types import Shape

TASK = "extractors"
NAMES = ("fixed_extractor", "moving_extractor")
PROBE = 64  # voxels on a side: many times any stride in use
# What the extractors' weights depend on; the crop's size is not among it, since they are convolutions.
BOUND = ("crop_spacing_mm", "working_spacing_mm", "fixed_input", "moving_input")


def extractors_of(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return a network's extractors of the fixed and of the moving image, each (b, 1, z, y, x) to (b, c, z', y', x').

    A network that has two names them `fixed_extractor` and `moving_extractor`. Raises InputError for any other.
    """
    fixed, moving = (getattr(model, name, None) for name in NAMES)
    if not isinstance(fixed, nn.Module) or not isinstance(moving, nn.Module):
        raise InputError(
            f"{type(model).__name__} has no separate extractors of the fixed and the moving image: "
            "take a network that has both (attention-reg, feature-reg or correspondence)"
        )
    return fixed, moving


@dataclass(frozen=True)
class FeatureMap:
    """The grid of an extractor's output on a crop of `crop_shape`: channels, size and stride in voxels of the crop.

    Shapes are (z, y, x). Position i along an axis lies on the crop's voxel i times the stride, to within half a voxel.
    """

    channels: int
    shape: Shape
    stride: Shape
    crop_shape: Shape

    def positions_mm(self, spacing_mm: float) -> Tensor:
        """Return the positions (n, 3) as x, y, z in mm from the crop's centre, in the order of `flatten`, float32."""
        axes = [torch.arange(size) * step for size, step in zip(self.shape, self.stride, strict=True)]
        z, y, x = torch.meshgrid(*axes, indexing="ij")
        voxels = torch.stack((x, y, z), dim=-1).flatten(0, 2)
        return ((voxels - self._middle()) * spacing_mm).float()

    def to_index(self, points_mm: Tensor, spacing_mm: float) -> Tensor:
        """Convert points (..., 3), mm from the crop's centre, to continuous indices x, y, z of the map."""
        middle = self._middle().to(points_mm)
        return (points_mm / spacing_mm + middle) / torch.tensor(self.stride[::-1]).to(points_mm)

    def _middle(self) -> Tensor:
        return (torch.tensor(self.crop_shape[::-1]) - 1) / 2


def feature_map(model: nn.Module, crop_shape: Shape) -> FeatureMap:
    """Return the map that both extractors make of a crop, without computing it; raises InputError where they differ."""
    maps = [_map_of(extractor, crop_shape) for extractor in extractors_of(model)]
    if maps[0] != maps[1]:
        raise InputError(f"the two extractors' maps must agree, got {maps[0]} and {maps[1]}")
    return maps[0]


@torch.no_grad()
def _map_of(extractor: nn.Module, crop_shape: Shape) -> FeatureMap:
    on_meta = copy.deepcopy(extractor).to("meta").eval()
    large = on_meta(torch.empty(1, 1, PROBE, PROBE, PROBE, device="meta")).shape
    channels, depth, height, width = on_meta(torch.empty(1, 1, *crop_shape, device="meta")).shape[1:]
    stride = (PROBE // large[2], PROBE // large[3], PROBE // large[4])
    expected = tuple(math.ceil(size / step) for size, step in zip(crop_shape, stride, strict=True))
    if (depth, height, width) != expected:
        raise InputError(f"an extractor makes {(depth, height, width)} of a crop {crop_shape}, expected {expected}")
    return FeatureMap(channels, (depth, height, width), stride, crop_shape)


@dataclass(frozen=True, eq=False)
class PretrainedExtractors:
    """Weights of both extractors, what they were trained to see, and free notes (steps, data, retrieval)."""

    tensors: Mapping[str, Tensor]
    settings: StageSettings
    notes: dict[str, str]

    def digest(self) -> str:
        """Return the first 16 digits of the weights' SHA-256, by which a run names what it started from."""
        summed = hashlib.sha256()
        for name in sorted(self.tensors):
            value = self.tensors[name].contiguous()
            summed.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            summed.update(value.flatten().view(torch.uint8).numpy().tobytes())
        return summed.hexdigest()[:16]


def save_extractors(
    model: nn.Module,
    settings: StageSettings,
    notes: dict[str, str],
    path: str | os.PathLike[str],
    overwrite: bool = False,
) -> None:
    """Write the extractors of a network, and nothing else of it, to one safetensors file. Raises OutputError."""
    extractors = nn.ModuleDict(dict(zip(NAMES, extractors_of(model), strict=True)))
    stage = StageContents(extractors.state_dict(), settings, notes)
    save_model_file(ModelContents(TASK, [stage]), path, overwrite)


def load_extractors(path: str | os.PathLike[str]) -> PretrainedExtractors:
    """Read what `save_extractors` wrote; raises WeightsError where the file is missing, damaged, or something else."""
    file = read_model_file(path, TASK)
    try:
        (stage,) = file.stages
        settings = settings_of(StageSettings, stage.settings)
    except ValueError as error:
        raise unfit(path, error) from error
    return PretrainedExtractors(stage.tensors, settings, dict(stage.notes))


def put_extractors(weights: PretrainedExtractors, model: nn.Module, settings: StageSettings) -> None:
    """Put the weights into a network's extractors; the rest of it stays as it is.

    Networks with the same extractors share weights (attention-reg and feature-reg), and so do crops of different size.
    Raises InputError where the network has not two extractors, WeightsError where theirs are others or where what they
    were trained to see is not what `settings` shows them.
    """
    for name in BOUND:
        trained, wanted = getattr(weights.settings, name), getattr(settings, name)
        if trained != wanted:
            raise WeightsError(
                f"the extractors were pre-trained with {name} {trained}, this stage has {wanted}: "
                "pre-train again with the stage's setting, or give the stage theirs"
            )
    try:
        for name, extractor in zip(NAMES, extractors_of(model), strict=True):
            own = {key.removeprefix(f"{name}."): v for key, v in weights.tensors.items() if key.startswith(name)}
            extractor.load_state_dict(own)
    except RuntimeError as error:
        raise WeightsError(
            f"the extractors were pre-trained for {weights.settings.network} and do not fit {settings.network}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
