"""What `evaluate`, `calibrate`, `models` and `combine` return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EvaluateResult:
    """Methods by initialisations."""

    cases: int
    """How many cases."""
    registrations: int
    """How many registrations."""
    failed: int
    """How many of them failed; they keep their initialisation."""
    table: Path
    """Table of every registration."""
    summary: tuple[Mapping[str, Any], ...]
    """One object for each method and initialisation, with the columns of the summary table: `sre_mm_mean`, ..."""


@dataclass(frozen=True)
class ReliabilityResult:
    """Registrations whose expected SRE is alike."""

    count: int
    """How many."""
    expected_mm: float
    """Mean of their expected SRE."""
    true_mm: float
    """Mean of their true SRE."""


@dataclass(frozen=True)
class CalibrateResult:
    """A calibration, and what it is worth on the table that it is judged by."""

    fitted_on: Path
    """Table that it was fitted on."""
    judged_on: Path
    """Table that it is judged by."""
    base_mm: float
    """Expected SRE where all evidence is 0."""
    per_dispersion: float
    """Slope of the dispersion, mm per mm."""
    per_network: float
    """Slope of the network's own expectation, mm per mm."""
    terms: tuple[Mapping[str, Any], ...]
    """Terms of other evidence: `name`, `slope`, `beyond`, `largest`, `falls`."""
    threshold_mm: float
    """Expected SRE up to which a result is trusted."""
    bound_factor: float | None
    """The bound is this times the expected SRE; null without one."""
    bound_probability: float | None
    """Fraction of trusted results whose true SRE lies under the bound."""
    trusted_count: int
    """How many registrations are trusted."""
    within_bound_fraction: float | None
    """Fraction of them whose true SRE lies under the bound."""
    trusted_sre_mm: float | None
    """Mean true SRE of the trusted ones."""
    untrusted_sre_mm: float | None
    """Mean true SRE of the others."""
    rank_correlation: float
    """Spearman's, of expected and true SRE."""
    reliability: tuple[ReliabilityResult, ...]
    """Expected and true SRE of registrations, by fifths of the expected."""


@dataclass(frozen=True)
class ModelEntry:
    """One method or shipped model."""

    name: str
    """What `--method` takes."""
    task: str
    """registration, fusion or recognition."""
    network: str | None
    """Name of its network; null for methods without weights."""
    size_mb: float | None
    """Size of its file."""
    licence: str | None
    """Licence of its weights."""
    is_default: bool
    """Whether it is the default of its task, with or without a fixed mask."""
    stages_sha256: tuple[str, ...]
    """SHA-256 of each stage's weights."""


@dataclass(frozen=True)
class ModelsResult:
    """The methods and models that there are, or one of them with its card."""

    models: tuple[ModelEntry, ...]
    """Every method and shipped model, or the one that was named."""
    card: str | None
    """Card of the model that was named, as Markdown; null for the list."""


@dataclass(frozen=True)
class CombineResult:
    """A model file that was made of others."""

    model: Path
    """The file."""
    facts: Mapping[str, str]
    """How it is run, by label."""
