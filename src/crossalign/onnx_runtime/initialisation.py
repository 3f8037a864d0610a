"""The transform that a registration begins with: from a file, the headers, or centres. See `registration`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossalign.errors import InputError
from crossalign.onnx_runtime.motions import Array, Motion
from crossalign.onnx_runtime.scans import Scan, foreground
from crossalign.onnx_runtime.structure import centroid_mm
from crossalign.onnx_runtime.transform_files import read_motion

WORDS = ("header", "center", "mask-center")


def read_initial(initial: str, fixed: Scan, moving: Scan, fixed_mask: Scan | None) -> Motion:
    """Make the initial transform, fixed to moving, of a word or a file. Raises InputError and TransformError."""
    if initial == "header":
        return Motion.identity()
    if initial == "center":
        return Motion(np.eye(3), shown_center_mm(moving) - shown_center_mm(fixed))
    if initial == "mask-center":
        if fixed_mask is None:
            raise InputError("--initial mask-center needs --fixed-mask: name the mask, or begin at 'center'")
        return Motion(np.eye(3), shown_center_mm(moving) - centroid_mm(fixed_mask))
    path = Path(initial)
    if not path.exists():
        raise InputError(f"{initial}: no such transform file; the words are {', '.join(WORDS)}")
    return read_motion(path)


def shown_center_mm(scan: Scan) -> Array:
    """Return the middle (3,), mm, of the box that a scan shows something in."""
    index = np.argwhere(foreground(scan.voxels))[:, ::-1]
    return scan.lattice.to_physical((index.min(0) + index.max(0)) / 2)
