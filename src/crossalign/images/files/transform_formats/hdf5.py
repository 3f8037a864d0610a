"""ITK's HDF5 transform files (`.h5`), read by SimpleITK in a process of its own, which may die of a damaged file."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from crossalign.errors import TransformError
from crossalign.images.files.transform_formats.itk import Linear, Matrix
from crossalign.input import excerpt

SIGNATURE = b"\x89HDF\r\n\x1a\n"
CHILD = Path(__file__).with_name("hdf5_child.py")
SECONDS = 60.0
PROBES = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (137.0, -251.0, 89.0))
BEND_MM = 1e-3  # how far the last probe may be from where the first four say
SEVERAL = "more than one transform"  # SimpleITK warns of it, and drops all but the first


def parse_hdf5_transform(content: bytes, name: str) -> Linear:
    """Read the one linear 3-D transform that a file holds; raises TransformError, whatever the file does to ITK."""
    try:
        with tempfile.TemporaryDirectory(prefix="crossalign-") as folder:
            copy = Path(folder) / "transform.h5"  # ITK goes by the ending, and cannot open a name that is not UTF-8
            copy.write_bytes(content)
            found = _read_apart(copy, name)
    except OSError as error:
        raise TransformError(f"{name}: HDF5 is read from a temporary copy, which failed: {error.strerror}") from error
    if found["dimension"] != 3:
        raise TransformError(f"{name}: a {found['dimension']}-D transform, expected 3-D")
    if not found["linear"]:
        raise TransformError(
            f"{name}: holds a deformation ({excerpt(found['type'])}), expected a rigid transform: save its rigid part"
        )
    return _linear(np.array(found["points"], dtype=np.float64), name)


def _read_apart(path: Path, name: str) -> dict[str, Any]:
    command = [sys.executable, "-P", str(CHILD), str(path), json.dumps(PROBES)]
    environment = {**os.environ, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=SECONDS, check=False
        )
        found = json.loads(ended.stdout) if ended.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise TransformError(f"{name}: {_damaged()}") from error
    if not isinstance(found, dict):
        raise TransformError(f"{name}: {_damaged()}")
    if SEVERAL.encode() in ended.stderr:
        raise TransformError(
            f"{name}: holds several transforms, and not in which order they apply, expected one: write them as one "
            "CompositeTransform, in which the last is applied first"
        )
    return found


def _damaged() -> str:
    return "HDF5, but not a transform that ITK can read: is the file damaged? Save the transform again, as .tfm or .h5"


def _linear(mapped: Matrix, name: str) -> Linear:
    origin, *ends, far = mapped
    matrix = np.stack([end - origin for end in ends], axis=1)
    if not np.isfinite(mapped).all():
        raise TransformError(f"{name}: holds a number that is not finite: save the transform again")
    if float(np.abs(matrix @ np.array(PROBES[-1]) + origin - far).max()) > BEND_MM:
        raise TransformError(f"{name}: is not linear, expected a rigid transform")
    return Linear(matrix, origin, np.zeros(3))
