"""What `export` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExportedNetwork:
    """One network in a file."""

    file: Path
    """The ONNX file."""
    name: str
    """Name of the model."""
    network: str
    """Kind of network."""
    stage: int
    """Which network of the model it is, from 1."""
    stages: int
    """How many the model has."""
    task: str
    """registration, recognition or fusion."""
    licence: str
    """Licence of the weights, or "not stated"."""
    sha256: str
    """SHA-256 of weights and settings."""
    inputs: Mapping[str, str]
    """Size of each input, by name; `batch` is any number."""
    checked_batches: tuple[int, ...]
    """Sizes of the batches of fresh inputs that the file was checked on."""
    largest_difference: float
    """Largest difference of any output between onnxruntime and the network; at most 1e-4."""
    differences: Mapping[str, float]
    """Largest difference by output, in its own unit."""


@dataclass(frozen=True)
class ExportResult:
    """The networks of a model as files."""

    networks: tuple[ExportedNetwork, ...]
    """One for each file."""
    tolerance: float
    """Difference up to which a file is written."""
