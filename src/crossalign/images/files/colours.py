"""Volumes in colour: NIfTI with the data type RGB24, which 3D Slicer, ITK-SNAP and FSLeyes open."""

import gzip
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from crossalign.errors import OutputError
from crossalign.geometry import Grid
from crossalign.images.files.writing import COMPRESSION, NOTE_LENGTH, RAS_OF_LPS, SCANNER
from crossalign.output import check_output, reason

COLOUR_SUFFIXES = (".nii.gz", ".nii")
RGB24 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def check_colour_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise OutputError where a volume in colour cannot be written; for use before a long computation."""
    path = Path(path)
    if not path.name.endswith(COLOUR_SUFFIXES):
        raise OutputError(f"{path.name}: a volume in colour is written as NIfTI: end the name in .nii.gz or .nii")
    check_output(path, overwrite)


def write_colours(picture: UInt8[Tensor, "z y x 3"], grid: Grid, path: Path, note: str = "") -> None:
    """Write red, green and blue, 0 to 255, on a grid, to a temporary path of `whole_files`; raises OutputError."""
    import nibabel as nib  # a quarter of a second that only writing should cost

    voxels = np.ascontiguousarray(picture.numpy()).view(RGB24)[..., 0].T  # x first, as NIfTI has it
    affine = np.eye(4)
    affine[:3, :3] = RAS_OF_LPS @ np.array(grid.direction) @ np.diag(grid.spacing_mm)
    affine[:3, 3] = RAS_OF_LPS @ np.array(grid.origin_mm)
    nifti = nib.Nifti1Image(voxels, affine)
    for set_form in (nifti.set_qform, nifti.set_sform):
        set_form(nifti.affine, SCANNER)
    nifti.header.set_xyzt_units("mm", "sec")
    nifti.header["descrip"] = note.encode("ascii", "replace")[:NOTE_LENGTH]
    try:
        with path.open("wb") as file:
            if path.name.endswith(".gz"):
                with gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as stream:
                    nifti.to_stream(stream)
            else:
                nifti.to_stream(file)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error
