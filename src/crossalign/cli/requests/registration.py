"""What `register`, `explain`, `apply` and `demo` take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter

from crossalign.cli.options import Given, command
from crossalign.errors import SettingError
from crossalign.fields import check_bounds
from crossalign.models.run_settings import RunSettings
from crossalign.registration.iterative.method_settings import (
    MindSettings,
    MutualInformationSettings,
    SurfaceSettings,
)

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Recognition: TypeAlias = Literal["auto", "on", "off"]
Identity: TypeAlias = Literal["keep", "remove"]
ReportDetail: TypeAlias = Literal["full", "reduced"]
RotationPriorName: TypeAlias = Literal["transrectal", "none"]
Run: TypeAlias = Annotated[
    Given[RunSettings],
    Parameter(name="*", group="How networks are run (left out: as the model says)", show_default=False),
]
MutualInformationOptions: TypeAlias = Annotated[
    Given[MutualInformationSettings],
    Parameter(name="--mi", group="Mutual information (--method mi or mi-best)", show_default=False),
]
MindOptions: TypeAlias = Annotated[
    Given[MindSettings], Parameter(name="--mind", group="MIND (--method mind or mind-best)", show_default=False)
]
SurfaceOptions: TypeAlias = Annotated[
    Given[SurfaceSettings], Parameter(name="--surface", group="Surfaces (--method surface)", show_default=False)
]


@dataclass(frozen=True)
class CaseOptions:
    """How a pair is registered, apart from its files: what `register` and `batch` share."""

    initial: str | None = field(default=None, kw_only=True)
    """Initialisation, fixed to moving: a transform file, 'header' (both headers are believed), 'center' (of both
    grids), 'mask-center', 'masks' (from one structure's centre to the other's) or 'landmarks'. Left out: landmarks
    where their files are given, header where the scans overlap by it, otherwise centres."""
    mask_label: str | None = field(default=None, kw_only=True)
    """The label of the fixed mask that marks it, where it holds several: a number, or a name (DICOM, .seg.nrrd)."""
    moving_mask_label: str | None = field(default=None, kw_only=True)
    """The label of the moving mask that marks it, where it holds several: a number, or a name (DICOM, .seg.nrrd)."""
    fixed_orientation: str = field(default="header", kw_only=True)
    """Where the fixed image's voxel axes point: header (as it says), auto (recognised), or a code such as LPS."""
    moving_orientation: str | None = field(default=None, kw_only=True)
    """The same of the moving image, where no transform file says how it lies. By default auto with the prostate's
    methods that come in the package, header with others and with --initial header."""
    recognition: Recognition = field(default="auto", kw_only=True)
    """Whether a network checks that the scans are MR and transrectal ultrasound of a prostate, upright: auto does with
    the prostate's methods that come in the package."""
    rotation_prior: RotationPriorName = field(default="transrectal", kw_only=True)
    """What is assumed of the rotation between the scans beforehand: transrectal (the probe's usual tilt) or none."""
    method: str | None = field(default=None, kw_only=True)
    """A name that `crossalign models` lists, or model files joined with +. Left out: surface where both masks are
    given, otherwise the default network."""
    fixed_series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of FIXED, where it holds several: number, UID, or part of its description;
    SERIES:VOLUME of a series of several volumes."""
    moving_series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of MOVING."""
    device: Device = field(default="auto", kw_only=True)
    """Where networks run."""
    run: Run = field(default_factory=Given, kw_only=True)
    mi: MutualInformationOptions = field(default_factory=Given, kw_only=True)
    mind: MindOptions = field(default_factory=Given, kw_only=True)
    surface: SurfaceOptions = field(default_factory=Given, kw_only=True)


@dataclass(frozen=True)
class RegisterRequest(CaseOptions):
    """Find where the points of the FIXED image lie in the MOVING image."""

    fixed: Path
    """Fixed image (the MR): NIfTI, NRRD, MetaImage, or a DICOM folder or file."""
    moving: Path
    """Moving image (the ultrasound)."""
    output_transform: Path = field(kw_only=True)
    """Transform to write (.tfm): fixed points to moving points, LPS mm."""
    fixed_landmarks: Path | None = field(default=None, kw_only=True)
    """Landmarks in the fixed image, for --initial landmarks: CSV (name, x, y, z, weight) or Slicer's points."""
    moving_landmarks: Path | None = field(default=None, kw_only=True)
    """The corresponding landmarks in the moving image, of the same names, or as many in the same order."""
    fixed_mask: Path | None = field(default=None, kw_only=True)
    """Structure that matters (the prostate), in the fixed image's space."""
    moving_mask: Path | None = field(default=None, kw_only=True)
    """The same structure in the moving image: method surface fits both, and the report draws its outline."""
    moved: Path | None = field(default=None, kw_only=True)
    """Image to write: the moving image on the fixed grid."""
    dicom_out: Path | None = field(default=None, kw_only=True)
    """Folder to make: the same image as a DICOM series, filed under the fixed image's patient and study."""
    dicom_identity: Identity = field(default="keep", kw_only=True)
    """Patient, study and frame of reference of the DICOM series: keep the fixed image's, or remove (placeholders)."""
    report: Path | None = field(default=None, kw_only=True)
    """HTML report to write."""
    report_detail: ReportDetail = field(default="full", kw_only=True)
    """Images of the report: full, or reduced (cropped to the structure, at most 600 000 voxels, 256 levels)."""
    title: str = field(default="", kw_only=True)
    """Heading of the report, as it stands: the page names no file and no patient unless the title does."""
    record: Path | None = field(default=None, kw_only=True)
    """JSON file to write: the result, and whether to trust it."""
    reference: Path | None = field(default=None, kw_only=True)
    """True transform: prints the SRE, and the errors of centre and rotation, before and after (needs --fixed-mask)."""
    strict: bool = field(default=False, kw_only=True)
    """End with status 3 where the result is not to be trusted."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace outputs that exist."""

    def __post_init__(self) -> None:
        if self.title and self.report is None:
            raise SettingError("title", "is the report's heading: it needs --report")


@dataclass(frozen=True)
class ExplainRequest:
    """Show what a registration network attended to: attention, points, and what each parameter rests on."""

    fixed: Path
    """Fixed image (the MR): NIfTI, NRRD, MetaImage, or a DICOM folder or file."""
    moving: Path
    """Moving image (the ultrasound)."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Folder for the maps, tables and report."""
    initial: str | None = field(default=None, kw_only=True)
    """Initialisation, fixed to moving: a transform file, 'header', 'center' (of both grids), 'mask-center' or 'masks';
    chosen by the headers where it is left out."""
    fixed_orientation: str = field(default="header", kw_only=True)
    """Where the fixed image's voxel axes point: header (as it says), auto (recognised), or a code such as LPS."""
    moving_orientation: str | None = field(default=None, kw_only=True)
    """The same of the moving image, where no transform file says how it lies. By default auto with the prostate's
    methods that come in the package, header with others and with --initial header."""
    recognition: Recognition = field(default="auto", kw_only=True)
    """Whether a network checks that the scans are MR and transrectal ultrasound of a prostate, upright: auto does with
    the prostate's methods that come in the package."""
    rotation_prior: RotationPriorName = field(default="transrectal", kw_only=True)
    """What is assumed of the rotation between the scans beforehand: transrectal (the probe's usual tilt) or none."""
    method: str | None = field(default=None, kw_only=True)
    """Shipped model by name, or model files joined with +."""
    fixed_mask: Path | None = field(default=None, kw_only=True)
    """Structure that matters (the prostate), in the fixed image's space."""
    mask_label: str | None = field(default=None, kw_only=True)
    """The label of the fixed mask that marks it, where it holds several: a number, or a name (DICOM, .seg.nrrd)."""
    moving_mask: Path | None = field(default=None, kw_only=True)
    """The same structure in the moving image, for --initial masks; the networks are not given it."""
    moving_mask_label: str | None = field(default=None, kw_only=True)
    """The label of --moving-mask that marks it, where it holds several."""
    point: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)] = field(default=(), kw_only=True)
    """X,Y,Z of a point of the fixed image, LPS mm; may be given again."""
    point_name: tuple[str, ...] = field(default=(), kw_only=True)
    """Name of a point in the landmark file; may be given again."""
    landmarks: Path | None = field(default=None, kw_only=True)
    """CSV with a name and x, y, z in the fixed image, LPS mm."""
    fixed_series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of FIXED, where it holds several: number, UID, or part of its description;
    SERIES:VOLUME of a series of several volumes."""
    moving_series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of MOVING."""
    steps: int = field(default=32, kw_only=True)
    """Steps of the integrated gradients."""
    figure: bool = field(default=False, kw_only=True)
    """Also draw the last stage's planes (.png)."""
    device: Device = field(default="auto", kw_only=True)
    """Where networks run."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace outputs that exist."""
    run: Run = field(default_factory=Given, kw_only=True)

    def __post_init__(self) -> None:
        check_bounds(self, {"steps": (1, 100_000)})


@dataclass(frozen=True)
class ApplyRequest:
    """Resample an image onto the other image's grid, or map points (CSV with columns x, y, z in LPS mm, and name)."""

    transform: str
    """Transform file, fixed points to moving points; or 'identity': none, headers alone."""
    source: Annotated[Path, Parameter(name="INPUT")]
    """Image or label map, or points (.csv, Slicer's)."""
    output: Annotated[Path | None, Parameter(alias="-o")] = field(default=None, kw_only=True)
    """File to write."""
    dicom_out: Path | None = field(default=None, kw_only=True)
    """Folder to make: the image as a DICOM series, filed under the reference's patient and study."""
    dicom_identity: Identity = field(default="keep", kw_only=True)
    """Patient, study and frame of reference of the DICOM series: keep the reference's, or remove (placeholders)."""
    reference: Path | None = field(default=None, kw_only=True)
    """Image whose grid the output gets: the fixed one; see --direction. For images."""
    series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of INPUT, where it holds several: number, UID, or part of its description;
    SERIES:VOLUME of a series of several volumes."""
    reference_series: str | None = field(default=None, kw_only=True)
    """Which DICOM series of --reference."""
    label: bool = field(default=False, kw_only=True)
    """INPUT is a label map: take the nearest voxel."""
    direction: Literal["fixed-to-moving", "moving-to-fixed"] | None = field(default=None, kw_only=True)
    """fixed-to-moving: INPUT is of the fixed image, the output of the moving one (default for points); moving-to-fixed:
    the other way round (default for images)."""
    fill: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = field(default=None, kw_only=True)
    """Value outside the image, or nan; by default what it means by nothing (padding, air, 0)."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace an output that exists."""


@dataclass(frozen=True)
class DemoRequest:
    """Simulate an MR-ultrasound pair, register it, and write the pair, the result and a report."""

    output: Annotated[Path, Parameter(alias="-o")] = field(default=Path("crossalign-demo"), kw_only=True)
    """Folder to make; numbered where it exists."""
    device: Device = field(default="auto", kw_only=True)
    """Where networks run."""


register = command(RegisterRequest)
explain = command(ExplainRequest)
apply = command(ApplyRequest)
demo = command(DemoRequest)
