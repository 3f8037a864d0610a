"""The recognition network in a model file, and the one that comes in the package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from crossalign.models.card import Card
from crossalign.models.model_file import ModelContents, NetworkTask, StageContents, read_model_file, save_model_file
from crossalign.models.recognition_settings import RecognitionSettings
from crossalign.networks.recognition import RecognitionNet

RECOGNITION = NetworkTask("recognition", RecognitionSettings, lambda settings: RecognitionNet(settings.width))


def save_recognition(
    network: nn.Module,
    settings: RecognitionSettings,
    path: str | os.PathLike[str],
    notes: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a recognition network to one file. Raises OutputError."""
    stage = StageContents(network.state_dict(), settings, dict(notes or {}))
    save_model_file(ModelContents(RECOGNITION.name, [stage], card=Card()), path, overwrite)


def load_recognition(
    path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[nn.Module, RecognitionSettings]:
    """Load a recognition network, in eval mode and single precision, with its settings. Raises WeightsError."""
    ((network, settings),) = read_model_file(Path(path), RECOGNITION.name).networks(RECOGNITION, device)
    return network.float(), settings
