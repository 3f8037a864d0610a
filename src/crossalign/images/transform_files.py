"""Transform files: ITK's, read and written through SimpleITK; fixed points to moving points, LPS, mm."""

import os
from pathlib import Path

import SimpleITK as sitk
import torch

from crossalign.errors import InputError, OutputError, TransformError
from crossalign.geometry import Rigid
from crossalign.images.native import quiet_native
from crossalign.output import check_output, whole_file

PROBES = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
FAR = (137.0, -251.0, 89.0)
WRITTEN_SUFFIXES = (".tfm", ".txt")
TEXT_LIMIT_BYTES = 1 << 20


def read_transform(path: str | os.PathLike[str]) -> Rigid:
    """Read any ITK transform file that holds a rigid transform (affine, Euler, versor, composite), float64.

    Raises TransformError where the file is not one, or scales, shears, mirrors or bends.
    """
    path = Path(path)
    _check_file(path)
    try:
        with quiet_native():
            transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise TransformError(f"{path.name}: not a readable ITK transform file (.tfm, .txt, .mat, .h5)") from error
    if transform.GetDimension() != 3:
        raise TransformError(f"{path.name}: a {transform.GetDimension()}-D transform, expected 3-D")
    if not transform.IsLinear():
        raise TransformError(f"{path.name}: holds a deformation ({transform.GetName()}), expected a rigid transform")
    return _linear_to_rigid(transform, path.name)


def _check_file(path: Path) -> None:
    try:
        if not path.is_file():
            raise TransformError(f"{path}: no such file")
        with path.open("rb") as file:
            lines = file.read(TEXT_LIMIT_BYTES).splitlines()
    except OSError as error:
        raise TransformError(f"{path}: cannot be read: {error.strerror}") from error
    kinds = [line for line in lines if line.startswith(b"Transform:")]
    if len(kinds) > 1 and b"Composite" not in kinds[0]:  # SimpleITK would read the first and drop the others
        raise TransformError(f"{path.name}: holds {len(kinds)} transforms, expected one: compose them first")


def _linear_to_rigid(transform: sitk.Transform, name: str) -> Rigid:
    origin, *ends = (torch.tensor(transform.TransformPoint(p), dtype=torch.float64) for p in PROBES)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.stack([end - origin for end in ends], dim=1)
    matrix[:3, 3] = origin
    try:
        rigid = Rigid.from_matrix(matrix)
    except InputError as error:
        raise TransformError(f"{name}: {error}") from error
    far = torch.tensor(FAR, dtype=torch.float64)
    expected = torch.tensor(transform.TransformPoint(FAR), dtype=torch.float64)
    if not torch.allclose(matrix[:3, :3] @ far + origin, expected, atol=1e-3):
        raise TransformError(f"{name}: is not linear, expected a rigid transform")
    return rigid


def write_transform(fixed_to_moving: Rigid, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write one transform as an ITK `AffineTransform` text file (.tfm or .txt). Raises OutputError, TransformError."""
    path = Path(path)
    _check_name(path)
    matrix = fixed_to_moving.matrix()
    if matrix.shape != (4, 4) or not bool(matrix.isfinite().all()):
        raise TransformError(f"{path.name}: expected one finite transform, got {matrix.tolist()}")
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(fixed_to_moving.rotation.double().flatten().tolist())
    affine.SetTranslation(fixed_to_moving.translation_mm.double().tolist())
    with whole_file(path, overwrite) as partial:
        sitk.WriteTransform(affine, str(partial))


def check_transform_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise OutputError where no transform can be written to `path`; for use before a long computation."""
    _check_name(Path(path))
    check_output(path, overwrite)


def _check_name(path: Path) -> None:
    if path.suffix not in WRITTEN_SUFFIXES:
        raise OutputError(f"{path.name}: a transform is written as text: end the name in .tfm or .txt")
