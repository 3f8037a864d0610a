"""Weights and their settings in one safetensors file: what stages of every kind are kept in. No pickles."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossalign.errors import WeightsError
from crossalign.fields import settings_of
from crossalign.input import excerpt, parse_json
from crossalign.models.tensor_files import (
    GIB,
    SEAL,
    FileKind,
    TensorHeader,
    read_header,
    read_tensors,
    refused,
    save_tensors,
)

KIND = FileKind(limit_bytes=GIB)
METADATA = {"format", "settings", "notes", SEAL}
# What settings or weights of another version, or of somebody else's making, lead to.
UNFIT = (AttributeError, LookupError, TypeError, ValueError, RuntimeError)
HELD = {
    "crossalign-stage": "it holds a registration network: for `register --method` and `train --from`",
    "crossalign-fusion": "it holds a fusion network: for `fuse --method`",
    "crossalign-extractors": "it holds pre-trained extractors: for `train --pretrained`",
}


@dataclass(frozen=True, eq=False)
class WeightFile:
    """A file whose header is fine: the settings as they were saved, and free text from training."""

    path: Path
    header: TensorHeader
    settings: dict[str, Any]
    notes: dict[str, str]
    rename: Callable[[str], str] = str

    def tensors(self) -> dict[str, Tensor]:
        """Read the tensors by name; raises WeightsError where they are damaged or not finite."""
        return {self.rename(name): value for name, value in read_tensors(self.path, KIND, self.header).items()}

    def network(self, build: Callable[[], nn.Module]) -> nn.Module:
        """Build a network and put the weights in; raises WeightsError where they are not this network's.

        Names and shapes are compared on torch's meta device first: settings that ask for more than the file holds
        cost no memory.
        """
        with torch.device("meta"):
            expected = build().state_dict()
        for name in sorted({*expected} | {*self.header.shapes}):
            self._check(name, expected.get(name))
        model = build()
        model.load_state_dict(self.tensors())
        return model

    def _check(self, name: str, expected: Tensor | None) -> None:
        got = self.header.shapes.get(name)
        if expected is None or got is None:
            fault = f"the weights hold '{excerpt(name)}', which the network has not" if got else f"'{name}' is missing"
        elif got != tuple(expected.shape):
            fault = f"'{name}' has the shape {got}, expected {tuple(expected.shape)}"
        elif ("F" in self.header.types[name]) != expected.dtype.is_floating_point:
            fault = f"'{name}' is of type {self.header.types[name]}, expected {expected.dtype}"
        else:
            return
        raise unfit(self.path, fault)


def save_weight_file(
    model: nn.Module,
    settings: Mapping[str, object],
    notes: Mapping[str, str],
    file_format: str,
    path: Path,
    overwrite: bool = False,
) -> None:
    """Write a network's weights, its settings and notes. Raises OutputError."""
    metadata = {"format": file_format, "settings": json.dumps(settings), "notes": json.dumps(notes)}
    save_tensors(model.state_dict(), metadata, path, overwrite)


def read_weight_file(
    path: str | os.PathLike[str], file_format: str, what: str, rename: Callable[[str], str] = str
) -> WeightFile:
    """Read what `save_weight_file` wrote, all but the tensors; `what` says in errors which kind of file was expected.

    `rename` maps the names of tensors that earlier versions wrote to today's. Raises WeightsError where the file is
    missing, damaged, or of another kind.
    """
    path = Path(path)
    if "\0" not in str(path) and not os.path.lexists(path):
        raise WeightsError(f"{excerpt(path, 200)}: no such weight file")
    header = read_header(path, KIND)
    held = header.metadata.get("format")
    if held != file_format:
        raise WeightsError(f"{path.name}: not {what} of crossalign ({_in_words(held, header.metadata)})")
    if odd := sorted(set(header.metadata) - METADATA):
        raise refused(path, KIND, f"its metadata holds '{excerpt(odd[0])}', which crossalign does not write")
    try:
        settings = dict(parse_json(header.metadata["settings"], "settings", WeightsError))
        notes = parse_json(header.metadata.get("notes", "{}"), "notes", WeightsError)
        shapes = {rename(name): one for name, one in header.shapes.items()}
        header = TensorHeader(header.metadata, shapes, {rename(name): one for name, one in header.types.items()})
        return WeightFile(path, header, settings, {str(name): str(value) for name, value in notes.items()}, rename)
    except UNFIT as error:
        raise unfit(path, error) from error


def unfit(path: str | os.PathLike[str], error: object) -> WeightsError:
    """Say that settings and weights are not of this version."""
    return WeightsError(
        f"{excerpt(Path(path).name)}: settings and weights do not fit this version: {excerpt(error, 300)}: "
        "use a file that `crossalign train`, `train-fusion` or `pretrain` wrote, or train it again"
    )


def _in_words(held: str | None, metadata: Mapping[str, str]) -> str:
    """Say what a file of another format holds, and what it is for."""
    if "progress" in metadata:
        return "it is the checkpoint of a training run: take best.safetensors beside it"
    kind = HELD.get((held or "").rpartition("-")[0])
    return f"format '{excerpt(held)}'" + ("" if kind is None else f": {kind}")
