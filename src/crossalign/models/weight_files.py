"""Weights and their settings in one safetensors file: what stages of every kind are kept in. No pickles."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from crossalign.errors import WeightsError
from crossalign.output import whole_file

# What settings or weights of another version, or of somebody else's making, lead to.
UNFIT = (AttributeError, LookupError, TypeError, ValueError, RuntimeError)


@dataclass(frozen=True, eq=False)
class WeightFile:
    """What a file holds: tensors by name, the settings as they were saved, and free text from training."""

    tensors: Mapping[str, Tensor]
    settings: dict[str, Any]
    notes: dict[str, str]


def save_weight_file(
    model: nn.Module,
    settings: Mapping[str, object],
    notes: Mapping[str, str],
    file_format: str,
    path: Path,
    overwrite: bool = False,
) -> None:
    """Write a network's weights, its settings and notes. Raises OutputError."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    metadata = {"format": file_format, "settings": json.dumps(settings), "notes": json.dumps(notes)}
    with whole_file(path, overwrite) as partial:
        save_file(tensors, partial, metadata)


def read_weight_file(path: str | os.PathLike[str], file_format: str, what: str) -> WeightFile:
    """Read what `save_weight_file` wrote; `what` says in errors which kind of file was expected.

    Raises WeightsError where the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path.name}: not a safetensors file, or damaged: {error}") from error
    if metadata.get("format") != file_format:
        raise WeightsError(f"{path.name}: not {what} of crossalign (format '{metadata.get('format')}')")
    try:
        settings = dict(json.loads(metadata["settings"]))
        notes = {str(name): str(value) for name, value in json.loads(metadata.get("notes", "{}")).items()}
    except UNFIT as error:
        raise unfit(path, error) from error
    return WeightFile(tensors, settings, notes)


def unfit(path: str | os.PathLike[str], error: Exception) -> WeightsError:
    """Say that settings and weights are not of this version."""
    reason = " ".join(str(error).split())[:300]
    return WeightsError(f"{Path(path).name}: settings and weights do not fit this version: {reason}")
