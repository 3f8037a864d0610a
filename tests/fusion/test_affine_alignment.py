"""AffineTransform refinement: it finds a known stretch, agrees with rigid resampling, and reports a failure."""

import math

import pytest
import SimpleITK as sitk
import torch
from tests.fusion.phantom import pair

from crossalign.errors import TransformError
from crossalign.fusion import alignment
from crossalign.fusion.alignment import AffineTransform, refine_affine, resampled_affine, write_affine
from crossalign.geometry import Grid, Rigid, euler_to_rotation
from crossalign.images import Image

MOTION = Rigid(
    euler_to_rotation(torch.tensor([0.05, -0.1, 0.2], dtype=torch.float64)), torch.tensor([3.0, -2.0, 5.0]).double()
)
STRETCH = AffineTransform(
    torch.diag(torch.tensor([1.15, 0.88, 1.1]).double()), torch.tensor([-5.0, 5.0, -3.0]).double()
)


def test_a_rigid_transform_resamples_as_image_resampled_does() -> None:
    mri, _ = pair()
    grid = Grid((20, 24, 18), (3.0, 2.5, 4.0), (10.0, 8.0, 4.0))
    ours, other = resampled_affine(mri, grid, AffineTransform.of(MOTION)), mri.resampled(grid, MOTION)
    assert torch.allclose(ours.voxels, other.voxels, atol=0.05)  # of 1000
    assert ours.grid == grid


def test_composition_maps_points_one_after_the_other() -> None:
    points = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 50
    both = STRETCH.after(AffineTransform.of(MOTION))
    assert torch.allclose(both.apply(points), STRETCH.apply(MOTION.apply(points)))
    assert both.stretches() == pytest.approx((1.15, 1.1, 0.88))


def test_a_known_stretch_is_found() -> None:
    """The moving image shows at STRETCH(p) what the fixed one shows at p; the initial transform is the identity."""
    fixed, _ = pair()
    inverse = torch.linalg.inv(STRETCH.matrix)
    moving = resampled_affine(fixed, fixed.grid, AffineTransform(inverse, -inverse @ STRETCH.shift_mm))
    points = fixed.grid.points_mm().reshape(-1, 3)[::501].double()
    inside = points[(points - fixed.grid.center_mm()).norm(dim=-1) < 30]
    before = (STRETCH.apply(inside) - inside).norm(dim=-1).mean()
    found = refine_affine(fixed, moving, Rigid.identity())
    after = (STRETCH.apply(inside) - found.apply(inside)).norm(dim=-1).mean()
    assert float(before) > 3
    assert float(after) < 0.15 * float(before)  # under a quarter of a voxel
    stretches = torch.tensor(found.stretches())
    assert torch.allclose(stretches, torch.tensor([1.15, 1.1, 0.88]), atol=0.01)
    again = refine_affine(fixed, moving, Rigid.identity())
    assert torch.equal(found.matrix, again.matrix)


def test_an_answer_that_stretches_too_far_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mri, pet = pair()
    monkeypatch.setattr(alignment, "LARGEST_STRETCH", 1.0)
    with pytest.raises(TransformError, match=r"pet\.nii\.gz: the affine transform .* leave --affine out"):
        refine_affine(mri, pet, Rigid.identity())


def test_images_that_do_not_overlap_are_an_error() -> None:
    mri, pet = pair()
    far = Image(pet.voxels, Grid(pet.grid.shape, pet.grid.spacing_mm, (900.0, 0.0, 0.0)), "far.nii.gz")
    with pytest.raises(TransformError, match=r"far\.nii\.gz: no affine transform to mri"):
        refine_affine(mri, far, Rigid.identity())


def test_its_file_is_read_by_itk(tmp_path) -> None:
    write_affine(STRETCH, tmp_path / "a.tfm")
    back = sitk.ReadTransform(str(tmp_path / "a.tfm"))
    point = (10.0, -20.0, 30.0)
    expected = STRETCH.apply(torch.tensor([point], dtype=torch.float64))[0]
    assert all(math.isclose(x, y) for x, y in zip(back.TransformPoint(point), expected.tolist(), strict=True))
