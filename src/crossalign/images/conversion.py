"""Images from what other libraries hold, and back: arrays, SimpleITK, nibabel, MONAI and TorchIO.

None of these libraries is imported before an object of it is met: what an object offers says what it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from crossalign.arguments import checked
from crossalign.errors import ImageError
from crossalign.geometry import Grid
from crossalign.geometry.grid import LPS_AXES, Direction
from crossalign.images.files.formats.header import Header
from crossalign.images.files.formats.placement import placed
from crossalign.images.image import Image, LabelMap
from crossalign.images.intensity import check_scan
from crossalign.types import Triple

RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LARGEST_LABEL = 2**53
WANTED = (
    "a path, crossalign.Image, SimpleITK.Image, a nibabel image, a MONAI MetaTensor, a TorchIO image, or an array with "
    "its geometry: crossalign.Voxels(array, spacing_mm=(x, y, z))"
)


@dataclass(frozen=True, eq=False)
class Voxels:
    """An array of voxels (z, y, x), of numpy or torch, and where they lie: a scan, or the labels of a mask.

    Spacing and origin are (x, y, z), mm, LPS; column j of `direction` is the unit vector along voxel axis j. The order
    is that of `SimpleITK.GetArrayFromImage`; nibabel's arrays are (x, y, z): transpose them.
    """

    array: NDArray[Any] | torch.Tensor
    spacing_mm: Triple
    origin_mm: Triple = (0.0, 0.0, 0.0)
    direction: Direction = LPS_AXES


@runtime_checkable
class WithAffine(Protocol):
    """An image of nibabel, MONAI or TorchIO: `affine` (4, 4) maps voxel indices to RAS mm (MONAI says where not)."""

    @property
    def affine(self) -> Any:
        """Matrix from voxels to space."""
        ...


@runtime_checkable
class SimpleItkImage(Protocol):
    """An image of SimpleITK, by what it offers."""

    def GetSpacing(self) -> tuple[float, ...]: ...  # noqa: D102, N802 - SimpleITK's names
    def GetOrigin(self) -> tuple[float, ...]: ...  # noqa: D102, N802
    def GetDirection(self) -> tuple[float, ...]: ...  # noqa: D102, N802


ImageLike: TypeAlias = Image | Voxels | str | os.PathLike[str] | WithAffine | SimpleItkImage
MaskLike: TypeAlias = LabelMap | Voxels | str | os.PathLike[str] | WithAffine | SimpleItkImage
_Stored = tuple[NDArray[Any], NDArray[np.float64]]  # voxels (z, y, x); matrix (4, 4) from indices (x, y, z) to LPS mm


@checked("name")
def as_image(source: ImageLike, name: str = "image") -> Image:
    """Return a scan as crossalign has it; `name` says it in messages where it is not a file.

    Raises TypeError for what is no image, ImageError for one that cannot be used: not 3-D and scalar, of one slice,
    constant, not finite, or with axes that are not perpendicular.
    """
    if isinstance(source, Image):
        return source
    if isinstance(source, (str, os.PathLike)):
        from crossalign.images.files.images import read_image  # of a reader of images, which not all have

        return read_image(source)
    values, grid = _on_grid(source, name)
    voxels = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    image = Image(voxels, grid, name)
    check_scan(image)
    return image


@checked("name")
def as_mask(source: MaskLike, name: str = "mask") -> LabelMap:
    """Return a mask as crossalign has it. Raises TypeError and ImageError, also where its values are not integers."""
    if isinstance(source, LabelMap):
        return source
    if isinstance(source, (str, os.PathLike)):
        from crossalign.images.masks import read_mask

        return read_mask(source)
    values, grid = _on_grid(source, name)
    if not (np.isfinite(values).all() and (values == np.rint(values)).all() and np.abs(values).max() < LARGEST_LABEL):
        raise ImageError(f"{name}: a mask must hold whole numbers (0 is background), got fractions: is this a scan?")
    return LabelMap(torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)), grid, name)


@checked("image")
def to_simpleitk(image: Image | LabelMap) -> Any:
    """Return a scan or a label map as SimpleITK.Image."""
    from crossalign.images.files.images import to_sitk

    return to_sitk(_values(image), image.grid)


@checked("image")
def to_nibabel(image: Image | LabelMap) -> Any:
    """Return a scan or a label map as nibabel.Nifti1Image: voxels (x, y, z), affine to RAS mm."""
    import nibabel as nib

    values = _values(image).T
    kind = np.int32 if values.dtype == np.int64 else values.dtype
    return nib.Nifti1Image(values.astype(kind), affine_ras(image.grid))


@checked("image")
def to_metatensor(image: Image | LabelMap) -> Any:
    """Return a scan or a label map as MONAI's MetaTensor: (channel 1, x, y, z), affine to RAS mm.

    TorchIO takes it as `ScalarImage(tensor=tensor.as_tensor(), affine=tensor.affine)`.
    """
    from monai.data.meta_tensor import MetaTensor

    values = torch.from_numpy(np.ascontiguousarray(_values(image).T))[None]
    return MetaTensor(values, affine=torch.from_numpy(affine_ras(image.grid)))


def affine_ras(grid: Grid) -> NDArray[np.float64]:
    """Return the matrix (4, 4) from voxel indices (x, y, z) to RAS mm, as nibabel, MONAI and TorchIO have it."""
    matrix: NDArray[np.float64] = RAS_OF_LPS @ grid.voxel_to_physical().numpy()
    return matrix


def _values(image: Image | LabelMap) -> NDArray[Any]:
    tensor = image.voxels if isinstance(image, Image) else image.labels
    return tensor.detach().cpu().numpy()


def _on_grid(source: object, name: str) -> tuple[NDArray[Any], Grid]:
    values, affine = _stored(source, name)
    if values.ndim != 3:
        raise ImageError(f"{name}: got voxels of the shape {values.shape}, expected 3-D and one value in a voxel")
    if values.dtype.kind not in "biuf":
        raise ImageError(f"{name}: got voxels of the type {values.dtype}, expected numbers")
    size = (values.shape[2], values.shape[1], values.shape[0])
    placement = placed(Header(name, size, np.dtype(np.float32), affine, ()))
    if placement.grid_to_stored is not None:
        raise ImageError(f"{name}: its voxels' axes are not perpendicular: resample it first, or give its file")
    return values, placement.grid


def _stored(source: object, name: str) -> _Stored:
    if isinstance(source, Voxels):
        values = source.array.detach().cpu().numpy() if isinstance(source.array, torch.Tensor) else source.array
        return np.asarray(values), _affine(source.spacing_mm, source.origin_mm, source.direction)
    if isinstance(source, SimpleItkImage):
        return _of_simpleitk(source, name)
    if isinstance(source, WithAffine):
        values = _array_of(source)
        return values, _lps_affine(source)
    if isinstance(source, (np.ndarray, torch.Tensor)):
        raise TypeError(
            f"{name}: got a bare {type(source).__name__}, which does not say where its voxels lie: give "
            "crossalign.Voxels(array, spacing_mm=(x, y, z)), the array ordered (z, y, x)"
        )
    raise TypeError(f"{name}: got {_kind(source)}, expected {WANTED}")


def _of_simpleitk(image: SimpleItkImage, name: str) -> _Stored:
    import SimpleITK as sitk

    if not isinstance(image, sitk.Image):
        raise TypeError(f"{name}: got {_kind(image)}, expected {WANTED}")
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ImageError(
            f"{name}: got a {image.GetDimension()}-D image of {image.GetNumberOfComponentsPerPixel()} values in a "
            "voxel, expected 3-D and one"
        )
    rows = np.array(image.GetDirection()).reshape(3, 3)
    return sitk.GetArrayFromImage(image), _affine(image.GetSpacing(), image.GetOrigin(), rows)


def _array_of(source: Any) -> NDArray[Any]:
    """Return voxels (z, y, x) of what has an affine: a tensor, or what holds one (`data`) or an array (`dataobj`)."""
    held = source if isinstance(source, torch.Tensor) else getattr(source, "dataobj", None)
    if held is None:
        held = getattr(source, "data", None)
    if isinstance(held, torch.Tensor):
        values = held.detach().cpu().as_subclass(torch.Tensor).numpy()  # of MetaTensor
        values = values[0] if values.ndim == 4 and values.shape[0] == 1 else values
    elif held is None or isinstance(held, memoryview):
        raise TypeError(f"got {_kind(source)}, which has an affine but no voxels, expected {WANTED}")
    else:
        values = np.asanyarray(held)
        values = values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values
    return values.T


def _lps_affine(source: Any) -> NDArray[np.float64]:
    held = source.affine
    affine = np.asarray(held.detach().cpu() if isinstance(held, torch.Tensor) else held, np.float64)
    if affine.shape != (4, 4):
        raise ImageError(f"got an affine of the shape {affine.shape}, expected (4, 4)")
    meta = getattr(source, "meta", None)
    space = str(meta.get("space", "RAS")) if isinstance(meta, Mapping) else "RAS"  # MONAI says it
    if not space.endswith(("RAS", "LPS")):
        raise ImageError(f"got an image whose affine is of the space '{space}', expected RAS or LPS")
    lps: NDArray[np.float64] = affine if space.endswith("LPS") else RAS_OF_LPS @ affine
    return lps


def _affine(spacing: Any, origin: Any, direction: Any) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(direction, np.float64) * np.asarray(spacing, np.float64)
    matrix[:3, 3] = origin
    return matrix


def _kind(source: object) -> str:
    kind = type(source)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
