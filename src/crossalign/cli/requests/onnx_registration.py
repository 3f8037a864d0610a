"""What `register-onnx` takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from crossalign.cli.options import command
from crossalign.fields import check_bounds


@dataclass(frozen=True)
class RegisterOnnxRequest:
    """Register by exported networks, without torch. Nothing recognises what the scans show: no result is trusted."""

    fixed: Path
    """Fixed image (the MR): NIfTI, NRRD or MetaImage."""
    moving: Path
    """Moving image (the ultrasound)."""
    network: tuple[Path, ...] = field(kw_only=True)
    """A file that `crossalign export` wrote; given again for each network of the model."""
    initial: str = field(kw_only=True)
    """Initial transform, fixed to moving: a file of ITK, 'header', 'center' (of both images) or 'mask-center'."""
    output_transform: Path = field(kw_only=True)
    """Transform to write (.tfm): fixed points to moving points, LPS mm."""
    fixed_mask: Path | None = field(default=None, kw_only=True)
    """Structure that matters (the prostate), one label on the fixed image's grid."""
    orientation_correction: Literal[0, 90, 180, 270] | None = field(default=None, kw_only=True)
    """Rotation about the z axis that corrects wrong axes in both headers, degrees; left out: the model's."""
    rotation_prior: Literal["transrectal", "none"] = field(default="transrectal", kw_only=True)
    """What is assumed of the rotation between the scans beforehand: transrectal (the probe's usual tilt) or none."""
    moved: Path | None = field(default=None, kw_only=True)
    """Image to write: the moving image on the fixed grid."""
    threads: Annotated[int, Parameter(name="--threads")] = field(default=0, kw_only=True)
    """Threads of onnxruntime; 0: one for each core."""
    strict: bool = field(default=False, kw_only=True)
    """End with status 3 where something speaks against the result."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace outputs that exist."""

    def __post_init__(self) -> None:
        check_bounds(self, {"threads": (0, 1024)})


register_onnx = command(RegisterOnnxRequest)
