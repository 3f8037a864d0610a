"""What `simulate`, `train`, `adapt`, `pretrain` and `train-error-head` take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter

from crossalign.cli.options import Given, command
from crossalign.cli.requests.registration import Device
from crossalign.fields import check_bounds
from crossalign.simulation.settings import ShapeSettings, SimulationSettings
from crossalign.training.adaptation.settings import AdaptationSettings
from crossalign.training.pretraining_settings import PretrainingSettings
from crossalign.training.settings import ErrorHeadSettings, TrainingSettings

Preset: TypeAlias = Literal["none", "usual", "strong"]
MOST_PAIRS = 100_000
MOST_DEVICES = 64
MINUTES = (0, float("inf"))


@dataclass(frozen=True)
class SimulateRequest:
    """Write simulated pairs whose truth is known, with their manifest."""

    count: int
    """How many pairs."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Folder to make: manifest.csv and a folder a pair."""
    seed: int = field(default=0, kw_only=True)
    """Seed of everything that is drawn."""
    split: Literal["train", "val", "test"] = field(default="test", kw_only=True)
    """What the manifest calls them."""
    shapes: bool = field(default=False, kw_only=True)
    """Random shapes in any two modalities, instead of MR and ultrasound of a pelvis."""
    pelvis_settings: Annotated[Given[SimulationSettings], Parameter(name="*", group="MR and ultrasound")] = field(
        default_factory=Given, kw_only=True
    )
    shape_settings: Annotated[Given[ShapeSettings], Parameter(name="--shapes", group="Random shapes (--shapes)")] = (
        field(default_factory=Given, kw_only=True)
    )

    def __post_init__(self) -> None:
        check_bounds(self, {"count": (1, MOST_PAIRS), "seed": (0, 2**31 - 1)})


@dataclass(frozen=True)
class TrainRequest:
    """Train one stage; the weights with the lowest validation SRE are kept."""

    manifest: Path | None = None
    """CSV file of the cases; its train and val splits."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Folder of the run; one that was cut off goes on."""
    simulate: int = field(default=0, kw_only=True)
    """Train on this many simulated pairs instead."""
    initial: Annotated[str | None, Parameter(name="--from")] = field(default=None, kw_only=True)
    """Stage to start from: a file, or a shipped model (NAME, or NAME:2 for stage 2)."""
    pretrained: Path | None = field(default=None, kw_only=True)
    """Extractors to start from, of `crossalign pretrain`."""
    augmentation_preset: Preset = field(default="usual", kw_only=True)
    """How far training pairs are varied where --augmentation.* does not say: strong is for few pairs."""
    minutes: float = field(default=0.0, kw_only=True)
    """Stop this call after so long; 0 is never."""
    device: Device = field(default="auto", kw_only=True)
    """Where to train."""
    devices: Annotated[int, Parameter(alias="--processes")] = field(default=1, kw_only=True)
    """How many GPUs of this machine to train on, or processes on a CPU; the batch is divided among them."""
    mlflow: str | None = field(default=None, kw_only=True)
    """Address of an MLflow tracking server, such as http://localhost:5000, to log the run in as well."""
    mlflow_experiment: str = field(default="crossalign", kw_only=True)
    """Experiment of that server."""
    settings: Annotated[Given[TrainingSettings], Parameter(name="*", group="Settings")] = field(
        default_factory=Given, kw_only=True
    )

    def __post_init__(self) -> None:
        check_bounds(self, {"simulate": (0, MOST_PAIRS), "minutes": MINUTES, "devices": (1, MOST_DEVICES)})


@dataclass(frozen=True)
class AdaptRequest:
    """Adapt a model to the pairs of one site; it never ends worse than it began."""

    source: Path
    """Folder with a folder for each patient (mr, us, mr_gland; us_gland and reference.tfm where there are some), or a
    manifest."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Folder of the adaptation; one that was cut off goes on."""
    initial: Annotated[str, Parameter(name="--from")] = field(default="correspondence-few-shot", kw_only=True)
    """Model to adapt: a shipped one, or a file."""
    name: str = field(default="adapted", kw_only=True)
    """Name of the adapted model and its file."""
    fixed_orientation: str = field(default="header", kw_only=True)
    """Where the voxel axes of all fixed images point: header (as they say), or a code such as LPS. In place of
    --orientation-correction."""
    moving_orientation: str = field(default="header", kw_only=True)
    """The same of all moving images; both must ask for the same rotation about z."""
    minutes: float = field(default=0.0, kw_only=True)
    """Stop training in this call after so long; 0 is never."""
    device: Device = field(default="auto", kw_only=True)
    """Where to train."""
    settings: Annotated[Given[AdaptationSettings], Parameter(name="*", group="Settings")] = field(
        default_factory=Given, kw_only=True
    )

    def __post_init__(self) -> None:
        check_bounds(self, {"minutes": MINUTES})


@dataclass(frozen=True)
class PretrainRequest:
    """Pre-train the two extractors of a network by contrast; `train --pretrained` starts from them."""

    manifest: Path | None = None
    """CSV file of the cases; its train and val splits."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Folder of the run; one that was cut off goes on."""
    simulate: int = field(default=0, kw_only=True)
    """Train on this many simulated pairs instead."""
    augmentation_preset: Preset = field(default="usual", kw_only=True)
    """How far training pairs are varied where --augmentation.* does not say."""
    minutes: float = field(default=0.0, kw_only=True)
    """Stop this call after so long; 0 is never."""
    device: Device = field(default="auto", kw_only=True)
    """Where to train."""
    settings: Annotated[Given[PretrainingSettings], Parameter(name="*", group="Settings")] = field(
        default_factory=Given, kw_only=True
    )

    def __post_init__(self) -> None:
        check_bounds(self, {"simulate": (0, MOST_PAIRS), "minutes": MINUTES})


@dataclass(frozen=True)
class TrainErrorHeadRequest:
    """Train the error-estimation head of a stage anew; its matches and its answers stay as they are."""

    stage: str
    """Stage: a file, or a shipped model (NAME, or NAME:2 for stage 2)."""
    manifest: Path | None = None
    """CSV file of the cases; its train split."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Model file to write: the stage with the new head."""
    simulate: int = field(default=0, kw_only=True)
    """Train on this many simulated pairs instead."""
    augmentation_preset: Preset = field(default="usual", kw_only=True)
    """How far training pairs are varied."""
    device: Device = field(default="auto", kw_only=True)
    """Where to train."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace an output that exists."""
    settings: Annotated[Given[ErrorHeadSettings], Parameter(name="*", group="Settings")] = field(
        default_factory=Given, kw_only=True
    )

    def __post_init__(self) -> None:
        check_bounds(self, {"simulate": (0, MOST_PAIRS)})


simulate = command(SimulateRequest)
train = command(TrainRequest)
adapt = command(AdaptRequest)
pretrain = command(PretrainRequest)
train_error_head = command(TrainErrorHeadRequest)
