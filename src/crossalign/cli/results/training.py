"""What `simulate`, `train`, `adapt`, `pretrain` and `train-error-head` return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SimulateResult:
    """Simulated pairs."""

    pairs: int
    """How many pairs."""
    seed: int
    """Seed of everything that was drawn."""
    split: str
    """What the manifest calls them."""
    folder: Path
    """Folder of the pairs."""
    manifest: Path
    """CSV file that lists them."""


@dataclass(frozen=True)
class RunFacts:
    """The state of a run of training."""

    folder: Path
    """Folder of the run."""
    is_finished: bool
    """Whether every step is done; otherwise the same command goes on."""
    steps: int
    """Steps that are done."""
    seconds: float
    """Time of the run, all calls together."""
    samples_per_second: float | None
    """How fast it was."""
    best_step: int
    """Step of the best weights; 0 are those that the run began with."""
    best: Path | None
    """File of the best weights; null ahead of the first validation."""


@dataclass(frozen=True)
class TrainResult(RunFacts):
    """A stage that was trained."""

    initial_val_sre_mm: float
    """Validation SRE of the initialisations."""
    val_sre_mm: float | None
    """Validation SRE after the best stage."""


@dataclass(frozen=True)
class RetrievalResult:
    """How often the right token is found, as fractions of the validation tokens."""

    radius_mm: float
    """How near a match must lie."""
    top1: float
    """The most similar token is right."""
    top5: float
    """One of the five most similar is."""
    chance1: float
    """A random token is."""
    chance5: float
    """One of five random tokens is."""
    other_case1: float | None
    """The most similar token of another case's image is; null for one case."""


@dataclass(frozen=True)
class PretrainResult(RunFacts):
    """Extractors that were pre-trained."""

    before: RetrievalResult
    """Retrieval with the weights that the run began with."""
    after: RetrievalResult | None
    """Retrieval with the best weights; null ahead of the first validation."""


@dataclass(frozen=True)
class ErrorHeadResult:
    """A stage with a new error-estimation head."""

    model: Path
    """The stage's file."""
    steps: int
    """Steps of training."""
    first_loss_mm: float
    """Loss of the first step."""
    last_loss_mm: float
    """Loss of the last step."""


@dataclass(frozen=True)
class ErrorsEntry:
    """SRE of registrations."""

    count: int
    """How many."""
    mean_mm: float
    """Mean."""
    sd_mm: float | None
    """Standard deviation (n - 1); null for one."""


@dataclass(frozen=True)
class ComparisonResult:
    """Errors on unseen patients without a model, before the adaptation and after it."""

    patients: int
    """How many patients."""
    initial: ErrorsEntry
    """Of the initialisations."""
    before: ErrorsEntry
    """Of the starting model."""
    after: ErrorsEntry
    """Of the adapted model."""
    gain_mm: float
    """What the SRE became smaller by, mean over patients."""
    noise_mm: float
    """How much of it may be chance."""
    before_tre_mm: float | None
    """TRE of the starting model; null without landmarks."""
    after_tre_mm: float | None
    """TRE of the adapted model; null without landmarks."""


@dataclass(frozen=True)
class CurveResult:
    """How the validation SRE of a stage went."""

    stage: int
    """Number of the stage."""
    steps: tuple[int, ...]
    """Steps that were validated; 0 are the starting weights."""
    val_sre_mm: tuple[float, ...]
    """Validation SRE at each of them."""
    best_step: int
    """Step of the best weights."""


@dataclass(frozen=True)
class AdaptResult:
    """A model adapted to one site, or left as it was."""

    folder: Path
    """Folder of the adaptation."""
    model: Path | None
    """Model file to use; null while the training is not finished."""
    is_adapted: bool
    """Whether it holds adapted weights."""
    verdict: str
    """Why, or why not."""
    patients_trained_on: int
    """How many patients were trained on."""
    patients_measured_on: int
    """How many were measured on."""
    references: Mapping[str, int]
    """How many pairs have a reference of each kind: given, structures, model."""
    left_out: Mapping[str, str]
    """Pairs without a reference, and why."""
    curves: tuple[CurveResult, ...]
    """Each stage's training."""
    comparison: ComparisonResult | None
    """Errors before and after; null where no step was better, and while the training is not finished."""
    seconds: float
    """Time of this call."""
    notes: tuple[str, ...]
    """What is worth knowing and no fault."""
