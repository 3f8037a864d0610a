"""What `transform convert`, `transform invert` and `transform compose` take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter

from crossalign.cli.options import command

Direction: TypeAlias = Literal["fixed-to-moving", "moving-to-fixed"]
Matrix: TypeAlias = Literal["matrix-lps", "matrix-ras"]
Read: TypeAlias = Annotated[
    Literal["itk", "minc", "lta", "fsl", "matrix-lps", "matrix-ras"] | None, Parameter(name="--from")
]
Written: TypeAlias = Annotated[Literal["itk", "lta", "fsl", "matrix-lps", "matrix-ras"] | None, Parameter(name="--to")]
WrittenOrDicom: TypeAlias = Annotated[
    Literal["itk", "lta", "fsl", "matrix-lps", "matrix-ras", "dicom"] | None, Parameter(name="--to")
]
Source: TypeAlias = Annotated[Path, Parameter(name="INPUT")]
Output: TypeAlias = Annotated[Path, Parameter(name="OUTPUT")]


@dataclass(frozen=True)
class ConvertRequest:
    """Write a linear transform in another format: of ITK, FreeSurfer, FSL or DICOM, or a 4 x 4 matrix."""

    source: Source
    """Transform file: of ITK, MINC or FreeSurfer, a 4 x 4 matrix, or FSL's."""
    output: Output
    """File to write: .tfm, .txt, .h5 (ITK), .lta (FreeSurfer), .dcm (DICOM), .mat (see --to)."""
    source_format: Read = field(default=None, kw_only=True)
    """What a bare matrix is: matrix-lps or matrix-ras (points), or fsl (flirt's). Other files say it themselves."""
    output_format: WrittenOrDicom = field(default=None, kw_only=True)
    """Format to write, where the ending of OUTPUT does not say: itk or fsl for .mat, matrix-lps or matrix-ras."""
    direction: Direction | None = field(default=None, kw_only=True)
    """Which points INPUT maps to which. Left out: as the format's programs do, which is moving-to-fixed for fsl and
    lta, fixed-to-moving for itk and minc; needed for a matrix."""
    output_direction: Direction | None = field(default=None, kw_only=True)
    """Which points OUTPUT maps to which. Left out: as the format's programs do; fixed-to-moving for a matrix."""
    fixed: Path | None = field(default=None, kw_only=True)
    """Fixed image, whose grid fsl and lta refer to."""
    moving: Path | None = field(default=None, kw_only=True)
    """Moving image, the same."""
    fixed_series: Path | None = field(default=None, kw_only=True)
    """For dicom: folder of the fixed image's DICOM series, under whose patient the object is filed."""
    moving_series: Path | None = field(default=None, kw_only=True)
    """For dicom: folder of the moving image's DICOM series."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace an output that exists."""


@dataclass(frozen=True)
class InvertRequest:
    """Write the inverse of a linear transform: what INPUT maps to a point, OUTPUT maps back."""

    source: Source
    """Transform file: of ITK, MINC or FreeSurfer, a 4 x 4 matrix, or FSL's."""
    output: Output
    """File to write: .tfm, .txt, .h5 (ITK), .lta (FreeSurfer), .mat (see --to)."""
    source_format: Read = field(default=None, kw_only=True)
    """What a bare matrix is: matrix-lps or matrix-ras (points), or fsl (flirt's). Other files say it themselves."""
    output_format: Written = field(default=None, kw_only=True)
    """Format to write, where the ending of OUTPUT does not say: itk or fsl for .mat, matrix-lps or matrix-ras."""
    direction: Direction | None = field(default=None, kw_only=True)
    """Which points INPUT maps to which; OUTPUT does the other way. Left out: as the format's programs do."""
    fixed: Path | None = field(default=None, kw_only=True)
    """Fixed image, whose grid fsl and lta refer to."""
    moving: Path | None = field(default=None, kw_only=True)
    """Moving image, the same."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace an output that exists."""


@dataclass(frozen=True)
class ComposeRequest:
    """Write one transform that does what several do, one after another: the first one named maps points first."""

    transforms: Annotated[tuple[Path, ...], Parameter(name="TRANSFORMS")]
    """Transform files in the order in which points go through them: A_TO_B.tfm B_TO_C.tfm gives A to C."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """File to write: .tfm, .txt, .h5, .mat (ITK), or a matrix (see --to)."""
    source_format: Annotated[Matrix | None, Parameter(name="--from")] = field(default=None, kw_only=True)
    """What bare matrices among them are."""
    output_format: Annotated[Literal["itk", "matrix-lps", "matrix-ras"], Parameter(name="--to")] = field(
        default="itk", kw_only=True
    )
    """Format to write."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace an output that exists."""


convert = command(ConvertRequest)
invert = command(InvertRequest)
compose = command(ComposeRequest)
