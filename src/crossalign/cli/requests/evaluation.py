"""What `evaluate`, `calibrate`, `models` and `combine` take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from crossalign.cli.options import Given, command
from crossalign.cli.requests.registration import (
    Device,
    MindOptions,
    MutualInformationOptions,
    Run,
    SurfaceOptions,
)
from crossalign.fields import check_bounds


@dataclass(frozen=True)
class EvaluateRequest:
    """Measure methods on cases whose answer is known, from initialisations of the papers' protocol."""

    manifest: Path
    """CSV file of the cases."""
    method: tuple[str, ...] = field(kw_only=True)
    """A method; may be given again. NAME=METHOD names its row."""
    initial_sre_mm: tuple[str, ...] = field(default=(), kw_only=True)
    """SRE of the initialisations, mm: 8, or 0-20 (uniform); may be given again."""
    initial: tuple[Literal["masks", "mask-center", "center"], ...] = field(default=(), kw_only=True)
    """An initialisation without a tracker, once for each case: from one structure's centre to the other's (masks), from
    the fixed one's to the middle of the moving image (mask-center), or from middle to middle (center); may be given
    again."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Table to write (.csv); summaries go beside it."""
    split: Literal["train", "val", "test", "all"] = field(default="test", kw_only=True)
    """Cases to use."""
    count: int = field(default=40, kw_only=True)
    """Initialisations for each case and range."""
    initialisation_seed: Annotated[int, Parameter(allow_leading_hyphen=True)] = field(default=0, kw_only=True)
    """Seed of the initialisations."""
    fixed_orientation: str = field(default="header", kw_only=True)
    """Where the voxel axes of all fixed images point: header (as they say), or a code such as LPS."""
    moving_orientation: str = field(default="header", kw_only=True)
    """The same of all moving images, for --initial: header, auto (recognised, each by itself), or a code. With
    --initial-sre-mm the true transforms say it."""
    axes_correction: Literal[0, 90, 180, 270] | None = field(default=None, kw_only=True)
    """Rotation about z from the fixed images' axes to the patient's, degrees, for the errors of the centre; by default
    the networks' orientation correction."""
    figures: bool = field(default=False, kw_only=True)
    """Also draw box plots, failure curves, and the errors of centre and rotation."""
    device: Device = field(default="auto", kw_only=True)
    """Where networks run."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace outputs that exist."""
    run: Run = field(default_factory=Given, kw_only=True)
    mi: MutualInformationOptions = field(default_factory=Given, kw_only=True)
    mind: MindOptions = field(default_factory=Given, kw_only=True)
    surface: SurfaceOptions = field(default_factory=Given, kw_only=True)

    def __post_init__(self) -> None:
        check_bounds(self, {"count": (1, 100_000)})


@dataclass(frozen=True)
class CalibrateRequest:
    """Fit the expected SRE to the true one; with --model and -o keep it in a copy of the model."""

    table: Path
    """Table (.csv) that `crossalign evaluate` wrote."""
    method: str | None = field(default=None, kw_only=True)
    """Method of the table, where it has several."""
    threshold_mm: float | None = field(default=None, kw_only=True)
    """Expected SRE up to which to trust, mm."""
    keep: float = field(default=0.8, kw_only=True)
    """Or: the fraction of these registrations to trust; of those that should be, where the table says which."""
    probability: float = field(default=0.9, kw_only=True)
    """Fraction of the trusted results whose true SRE lies under the bound."""
    judge: Path | None = field(default=None, kw_only=True)
    """Table of other cases to judge the fit by."""
    model: str | None = field(default=None, kw_only=True)
    """Model file to calibrate; or stage files of an earlier version, joined with +."""
    output: Annotated[Path | None, Parameter(alias="-o")] = field(default=None, kw_only=True)
    """Model file to write: the model, calibrated."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace an output that exists."""
    run: Run = field(default_factory=Given, kw_only=True)


@dataclass(frozen=True)
class ModelsRequest:
    """List the methods and the models that come in the package, or print the card of one."""

    name: str | None = None
    """Shipped model whose card is printed."""


@dataclass(frozen=True)
class CombineRequest:
    """Combine models or stage files into one model file."""

    sources: Annotated[tuple[str, ...], Parameter(name="MODELS")]
    """Model files or shipped names, in the order in which they are run."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Model file to write."""
    ensemble: bool = field(default=False, kw_only=True)
    """Average their answers, instead of one correcting the answer of the one before."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace an output that exists."""
    run: Run = field(default_factory=Given, kw_only=True)


evaluate = command(EvaluateRequest)
calibrate = command(CalibrateRequest)
models = command(ModelsRequest)
combine = command(CombineRequest)
