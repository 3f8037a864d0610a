"""Images of other libraries: each gives the same voxels in the same place, and what is no image is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from monai.data.meta_tensor import MetaTensor
from tests.geometry.strategies import grids

from crossalign.errors import ImageError
from crossalign.geometry import Grid
from crossalign.images import (
    Image,
    LabelMap,
    Voxels,
    affine_ras,
    as_image,
    as_mask,
    to_metatensor,
    to_nibabel,
    to_simpleitk,
    write_image,
)

OBLIQUE = Grid((5, 6, 7), (0.75, 1.25, 3.0), (12.0, -34.0, 56.0), ((0.8, -0.6, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, -1.0)))
SCAN = Image(torch.randn(OBLIQUE.shape, generator=torch.Generator().manual_seed(0)), OBLIQUE)
MASK = LabelMap((SCAN.voxels > 0.5).long(), OBLIQUE)


def torchio_like(image: Image) -> Any:
    """What a ScalarImage of TorchIO offers: data (channel, x, y, z) and an affine to RAS."""
    return SimpleNamespace(data=image.voxels.permute(2, 1, 0)[None], affine=affine_ras(image.grid))


def metatensor_in_lps(image: Image) -> MetaTensor:
    affine = torch.from_numpy(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_ras(image.grid))
    return MetaTensor(image.voxels.permute(2, 1, 0)[None], affine=affine, meta={"space": "LPS"})


def voxels(image: Image) -> Voxels:
    grid = image.grid
    return Voxels(image.voxels.numpy(), grid.spacing_mm, grid.origin_mm, grid.direction)


HELD = {
    "SimpleITK": to_simpleitk,
    "nibabel": to_nibabel,
    "nibabel, 4-D of one": lambda image: nib.Nifti1Image(to_nibabel(image).get_fdata()[..., None], affine_ras(OBLIQUE)),
    "MONAI": to_metatensor,
    "MONAI in LPS": metatensor_in_lps,
    "TorchIO": torchio_like,
    "an array": voxels,
    "a tensor": lambda image: Voxels(image.voxels, OBLIQUE.spacing_mm, OBLIQUE.origin_mm, OBLIQUE.direction),
    "itself": lambda image: image,
}


@pytest.mark.parametrize("make", HELD.values(), ids=HELD.keys())
def test_every_library_gives_the_same_image(make) -> None:
    found = as_image(make(SCAN))
    assert torch.equal(found.voxels, SCAN.voxels)
    assert found.grid.agrees_with(OBLIQUE, 1e-4)


@pytest.mark.parametrize("make", [to_simpleitk, to_nibabel, to_metatensor])
def test_masks_keep_their_labels(make) -> None:
    found = as_mask(make(MASK))
    assert torch.equal(found.labels, MASK.labels)
    assert found.grid.agrees_with(OBLIQUE, 1e-4)


def test_a_path_is_read(tmp_path: Path) -> None:
    write_image(SCAN, tmp_path / "a.nii.gz")
    assert torch.equal(as_image(tmp_path / "a.nii.gz").voxels, SCAN.voxels)
    assert as_image(str(tmp_path / "a.nii.gz")).grid.agrees_with(OBLIQUE)


@given(grid=grids(4))
def test_libraries_put_voxels_where_the_grid_does(grid: Grid) -> None:
    """SimpleITK's and nibabel's own arithmetic, on oblique, left-handed and anisotropic grids."""
    image = Image(torch.zeros(grid.shape), grid)
    last = tuple(n - 1 for n in grid.shape[::-1])
    corner = grid.to_physical(torch.tensor([last], dtype=torch.float64))[0].numpy()
    assert np.allclose(to_simpleitk(image).TransformIndexToPhysicalPoint(last), corner, atol=1e-6)
    ras = nib.affines.apply_affine(to_nibabel(image).affine, last)
    assert np.allclose(ras * (-1, -1, 1), corner, atol=1e-6)
    assert np.allclose((to_metatensor(image).affine.numpy() @ (*last, 1))[:3] * (-1, -1, 1), corner, atol=1e-6)


def test_a_torchio_image_is_taken(tmp_path: Path) -> None:
    import torchio

    image = torchio.ScalarImage(tensor=SCAN.voxels.permute(2, 1, 0)[None], affine=affine_ras(OBLIQUE))
    found = as_image(image)
    assert torch.equal(found.voxels, SCAN.voxels)
    assert found.grid.agrees_with(OBLIQUE, 1e-4)


NO_IMAGE = {
    "a bare array": (SCAN.voxels.numpy(), "Voxels"),
    "a bare tensor": (SCAN.voxels, "Voxels"),
    "a list": ([1, 2], "got list"),
    "None": (None, "got NoneType"),
    "an affine alone": (SimpleNamespace(affine=np.eye(4)), "no voxels"),
    "a path in bytes": (b"mr.nii.gz", "got bytes"),
    "a label map": (MASK, "expected a path"),
}


@pytest.mark.parametrize(("source", "message"), NO_IMAGE.values(), ids=NO_IMAGE.keys())
def test_what_is_no_image_is_a_type_error(source: Any, message: str, shape_checks_off: None) -> None:
    with pytest.raises(TypeError, match=message):
        as_image(source)


SHEARED = np.eye(4) + np.diag([0.3, 0, 0], 1)
UNUSABLE = {
    "2-D": (Voxels(np.zeros((4, 4)), (1.0, 1.0, 1.0)), "expected 3-D"),
    "in colour": (MetaTensor(torch.rand(3, 4, 4, 4)), "expected 3-D"),
    "a colour of SimpleITK": (sitk.Image([4, 4, 4], sitk.sitkVectorUInt8), "values in a"),
    "2-D of SimpleITK": (sitk.Image([4, 4], sitk.sitkUInt8), "2-D"),
    "constant": (Voxels(np.zeros((4, 4, 4)), (1.0, 1.0, 1.0)), "constant"),
    "NaN": (Voxels(np.full((4, 4, 4), np.nan), (1.0, 1.0, 1.0)), "NaN or infinite"),
    "one slice": (Voxels(np.random.default_rng(0).random((1, 4, 4)), (1.0, 1.0, 1.0)), "expected 2 or more"),
    "sheared": (nib.Nifti1Image(np.random.default_rng(0).random((4, 4, 4)), SHEARED), "not perpendicular"),
    "no spacing": (Voxels(np.random.default_rng(0).random((4, 4, 4)), (0.0, 1.0, 1.0)), "spacing"),
    "text": (Voxels(np.full((4, 4, 4), "a"), (1.0, 1.0, 1.0)), "expected numbers"),
    "of an unknown space": (MetaTensor(torch.rand(1, 4, 4, 4), meta={"space": "screen"}), "space 'screen'"),
}


@pytest.mark.parametrize(("source", "message"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_images_that_cannot_be_used_say_why(source: Any, message: str, shape_checks_off: None) -> None:
    with np.errstate(all="ignore"), pytest.raises(ImageError, match=message):
        as_image(source)


def test_a_scan_is_no_mask() -> None:
    with pytest.raises(ImageError, match="is this a scan"):
        as_mask(voxels(SCAN))
