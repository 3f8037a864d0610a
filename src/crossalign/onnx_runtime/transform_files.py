"""Transform files of ITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from crossalign.errors import OutputError, TransformError
from crossalign.images.files.writing import native_path, quiet_native
from crossalign.input import check_regular_file
from crossalign.onnx_runtime.motions import Motion
from crossalign.output import check_output

RIGID = 1e-4  # by which R R^T may differ from the identity


def read_motion(path: Path) -> Motion:
    """Read a rigid transform of ITK (.tfm, .txt, .h5, .mat), fixed to moving points. Raises TransformError."""
    check_regular_file(path, TransformError)
    try:
        with quiet_native(), native_path(path) as name:
            transform = sitk.ReadTransform(name)
    except RuntimeError as error:
        raise TransformError(f"{path.name}: ITK cannot read this transform") from error
    if transform.GetDimension() != 3 or not transform.IsLinear():
        raise TransformError(f"{path.name}: expected a rigid transform in 3-D")
    shift = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    axes = [np.array(transform.TransformPoint(point)) - shift for point in np.eye(3).tolist()]
    rotation = np.stack(axes, axis=1)
    odd = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if not np.isfinite(odd) or odd > RIGID or np.linalg.det(rotation) <= 0:
        raise TransformError(f"{path.name}: the transform is not rigid: it scales, shears or mirrors")
    return Motion(rotation, shift)


def check_transform_output(path: Path, overwrite: bool) -> None:
    """Raise OutputError where no transform can be written."""
    if path.suffix not in (".tfm", ".txt"):
        raise OutputError(f"{path.name}: a transform is written as text: end the name in .tfm or .txt")
    check_output(path, overwrite)


def motion_text(fixed_to_moving: Motion) -> str:
    """Return a transform as the text of ITK's file, every digit kept."""
    numbers = [*fixed_to_moving.rotation.flatten().tolist(), *fixed_to_moving.translation_mm.tolist()]
    lines = ("#Insight Transform File V1.0", "#Transform 0", "Transform: AffineTransform_double_3_3")
    return "\n".join([*lines, f"Parameters: {' '.join(map(repr, numbers))}", "FixedParameters: 0 0 0", ""])
