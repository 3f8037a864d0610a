"""What `fuse`, `evaluate-fusion`, `prepare-fusion` and `train-fusion` take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter

from crossalign.cli.options import Given, command
from crossalign.cli.requests.registration import Device, Identity
from crossalign.errors import SettingError
from crossalign.fields import check_bounds
from crossalign.fusion.overlay_settings import OverlaySettings
from crossalign.fusion.simulation.settings import HeadSettings
from crossalign.fusion.training.settings import FusionTrainingSettings
from crossalign.fusion.window_settings import WindowSettings

First: TypeAlias = Annotated[Path, Parameter(name="MRI|MANIFEST")]
Windows: TypeAlias = Annotated[Given[WindowSettings], Parameter(name="*", group="Windows (a: the MRI, b: the PET)")]


@dataclass(frozen=True)
class FuseRequest:
    """Fuse an MRI and a PET into one volume on the MRI's grid, in [0, 1]."""

    mri: Path
    """Structural image: NIfTI, NRRD, MetaImage, or a DICOM folder or file."""
    pet: Path
    """Functional image, registered to the MRI."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Volume to write; a .json goes beside it."""
    method: str | None = field(default=None, kw_only=True)
    """Name of a fusion method, or a model file."""
    emphasis: str | None = field(default=None, kw_only=True)
    """For networks: auto (default: chosen by what is retained of both scans), balanced or detail."""
    register: bool = field(default=False, kw_only=True)
    """Align the PET to the MRI rigidly first."""
    output_transform: Path | None = field(default=None, kw_only=True)
    """Transform to write (.tfm): MRI points to PET points (with --register)."""
    report: Path | None = field(default=None, kw_only=True)
    """HTML report to write."""
    title: str = field(default="", kw_only=True)
    """Heading of the report and of the overlay's page, as it stands: without it they name no file and no patient."""
    colour: Path | None = field(default=None, kw_only=True)
    """Picture of the planes to write (.png)."""
    overlay: Path | None = field(default=None, kw_only=True)
    """Volume in colour to write (.nii.gz, .nii): the PET over the MRI; a .png of planes, a .json and a
    page (.html) go beside it."""
    overlay_point: tuple[float, float, float] | None = field(default=None, kw_only=True)
    """X,Y,Z of the point that the planes pass through, LPS mm; by default where the uptake is highest."""
    dicom_out: Path | None = field(default=None, kw_only=True)
    """Folder to make: the fused volume and the overlay as DICOM series, filed under the MRI's patient and study."""
    dicom_identity: Identity = field(default="keep", kw_only=True)
    """Patient, study and frame of reference of the DICOM series: keep the MRI's, or remove (placeholders)."""
    unit: str = field(default="", kw_only=True)
    """Unit of the PET's values, such as SUV: kept in the results. PET from DICOM is in SUV where its header allows."""
    mri_series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of MRI, where it holds several: number, UID, or part of its description;
    SERIES:VOLUME of a series of several volumes."""
    pet_series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of PET."""
    device: Device = field(default="auto", kw_only=True)
    """Where networks run."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace outputs that exist."""
    windows: Windows = field(default_factory=Given, kw_only=True)
    colours: Annotated[Given[OverlaySettings], Parameter(name="--uptake", group="Colours of the overlay")] = field(
        default_factory=Given, kw_only=True
    )

    def __post_init__(self) -> None:
        if self.title and self.report is None and self.overlay is None:
            raise SettingError("title", "is the heading of pages: it needs --report or --overlay")


@dataclass(frozen=True)
class EvaluateFusionRequest:
    """Fuse registered pairs with several methods and score the results."""

    first: First
    """An MRI, or a CSV of case, mri, pet, and mask for lesions."""
    pet: Path | None = None
    """The PET of an MRI."""
    method: tuple[str, ...] = field(kw_only=True)
    """A method, a network's emphasis after a colon; may be given again."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Table to write (.csv); a .md goes beside it."""
    split: Literal["train", "val", "test", "all"] = field(default="all", kw_only=True)
    """Pairs of the manifest to use."""
    mri_series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of each MRI, where it holds several: number, UID, or part of its description;
    SERIES:VOLUME of a series of several volumes."""
    pet_series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of each PET."""
    limit: bool = field(default=False, kw_only=True)
    """Also optimise the voxels themselves for SSIM."""
    mask: Path | None = field(default=None, kw_only=True)
    """Lesion of a single pair, a label map; of a CSV, the column mask."""
    protocol: Literal["both", "whole-volume"] = field(default="both", kw_only=True)
    """Score the published slice beside the whole volume, or the whole volume alone."""
    unit: str = field(default="", kw_only=True)
    """Unit of the PETs' values, such as SUV, where their files do not say it."""
    device: Device = field(default="auto", kw_only=True)
    """Where networks run."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace outputs that exist."""
    windows: Windows = field(default_factory=Given, kw_only=True)


@dataclass(frozen=True)
class PrepareFusionRequest:
    """Register PET to MRI and MRI to the MNI152 template, crop to the head, and scale: the paper's preparation."""

    first: First
    """An MRI, or a CSV of case, mri, pet."""
    pet: Path | None = None
    """The PET of an MRI."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Folder to make, with a manifest of the results."""
    size: int = field(default=128, kw_only=True)
    """Voxels on each side of the cube."""
    mri_series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of each MRI, where it holds several: number, UID, or part of its description;
    SERIES:VOLUME of a series of several volumes."""
    pet_series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of each PET."""
    affine: bool = field(default=False, kw_only=True)
    """Align the MRI to the template affinely: its size becomes the template's."""

    def __post_init__(self) -> None:
        check_bounds(self, {"size": (16, 1024)})


@dataclass(frozen=True)
class TrainFusionRequest:
    """Train a network that fuses MRI and PET, from a MANIFEST or from simulated heads."""

    manifest: Path | None = None
    """CSV file of the pairs: case, mri, pet, split (train and val)."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Folder of the run; a run in it goes on."""
    simulate: int = field(default=0, kw_only=True)
    """Train on this many simulated heads instead."""
    augmentation_preset: Literal["none", "usual"] = field(default="usual", kw_only=True)
    """How far patches are varied where --augmentation.* does not say."""
    minutes: float = field(default=0.0, kw_only=True)
    """Stop this call after so long; 0 is never."""
    device: Device = field(default="auto", kw_only=True)
    """Where to train."""
    settings: Annotated[Given[FusionTrainingSettings], Parameter(name="*", group="Settings")] = field(
        default_factory=Given, kw_only=True
    )
    heads: Annotated[Given[HeadSettings], Parameter(name="--heads", group="Simulated heads (--simulate)")] = field(
        default_factory=Given, kw_only=True
    )

    def __post_init__(self) -> None:
        check_bounds(self, {"simulate": (0, 100_000), "minutes": (0, float("inf"))})


fuse = command(FuseRequest)
evaluate_fusion = command(EvaluateFusionRequest)
prepare_fusion = command(PrepareFusionRequest)
train_fusion = command(TrainFusionRequest)
