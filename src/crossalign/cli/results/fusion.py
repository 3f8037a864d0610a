"""What `fuse`, `evaluate-fusion`, `prepare-fusion` and `train-fusion` return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossalign.cli.results.training import RunFacts


@dataclass(frozen=True)
class ScalingResult:
    """How the values of an input became 0 to 1."""

    low: float
    """Value that became 0."""
    high: float
    """Value that became 1."""
    unit: str
    """Their unit; empty where it is not known."""
    modality: str
    """What the input was taken for: mr, ct, pet, spect or other."""
    source: str
    """How that is known: given (or its window is), DICOM header, unit, order (first MR, second PET) or values."""
    saturated: int
    """How many voxels lie above the window."""
    saturated_fraction: float
    """Their fraction of the input."""


@dataclass(frozen=True)
class AlignmentResult:
    """How the PET was aligned to the MRI."""

    mri_to_pet: list[list[float]]
    """4 x 4 matrix that maps MRI points (x, y, z, 1) to PET points, LPS, mm."""
    shift_mm: float
    """How far the alignment moved the centre."""
    angle_deg: float
    """Angle of its rotation."""


@dataclass(frozen=True)
class FuseResult:
    """A fused volume."""

    method: str
    """Method that was run."""
    fused: Path
    """The volume, on the MRI's grid, in [0, 1]."""
    trusted: bool | None
    """Whether nothing speaks against the alignment; null without `--register`, and where it has no verdict."""
    reasons: tuple[str, ...]
    """Why the alignment is not to be trusted, each with what to try next."""
    alignment: AlignmentResult | None
    """The alignment; null without `--register`."""
    mri_scaling: ScalingResult
    """Scaling of the MRI."""
    pet_scaling: ScalingResult
    """Scaling of the PET."""
    notes: tuple[str, ...]
    """What is worth knowing and no fault."""
    settings: Mapping[str, str]
    """Everything that decided the outcome."""
    seconds: float
    """Time of the method."""


@dataclass(frozen=True)
class FusionScoresEntry:
    """Scores of one fused volume or plane."""

    case: str
    """Which pair."""
    method: str
    """Which method."""
    protocol: str
    """whole-volume or published-slice."""
    mri: Mapping[str, float | None]
    """Scores against the MRI by name: `ssim`, `psnr_db`, `nmi`, `fmi`, `mi_bits`, `vif`, `qabf_input`."""
    pet: Mapping[str, float | None]
    """The same against the PET."""
    qabf: float | None
    """Fraction of both inputs' gradients that is preserved."""
    nabf: float | None
    """Fraction of both inputs' gradients where the fused image has a stronger one of its own; smaller is better."""
    entropy_bits: float | None
    """Entropy of the fused image."""
    spatial_frequency: float | None
    """Spatial frequency of the fused image."""
    lesion: Mapping[str, float | None] | None
    """How far the lesion stands out, by the names of the table's columns; null without a mask."""
    read_out: Mapping[str, float | None] | None
    """R2 of the linear read-out of each input, by the names of the table's columns; null of a slice."""
    seconds: float
    """Time of the method."""


@dataclass(frozen=True)
class EvaluateFusionResult:
    """Methods by pairs."""

    pairs: int
    """How many pairs."""
    table: Path
    """Table of every score."""
    scores: tuple[FusionScoresEntry, ...]
    """Each pair, protocol and method."""


@dataclass(frozen=True)
class PreparedEntry:
    """One pair that was prepared."""

    case: str
    """Its name."""
    mri_to_pet_shift_mm: float
    """How far the registration moved the PET."""
    mri_to_pet_angle_deg: float
    """Angle of its rotation."""
    template_to_mri_shift_mm: float
    """How far the registration to the template moved the MRI."""
    template_to_mri_angle_deg: float
    """Angle of its rotation."""
    reasons: tuple[str, ...]
    """Why one of the registrations is not to be trusted."""


@dataclass(frozen=True)
class PrepareFusionResult:
    """Pairs that were prepared."""

    folder: Path
    """Folder of the pairs."""
    manifest: Path
    """CSV file that lists them."""
    pairs: tuple[PreparedEntry, ...]
    """Each pair."""


@dataclass(frozen=True)
class TrainFusionResult(RunFacts):
    """A fusion network that was trained."""

    average_val_loss: float
    """Validation loss of the plain average."""
    val_loss: float | None
    """Validation loss of the best weights."""
