"""From two images to a result: grids, transforms, and errors."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from tests.fusion.phantom import SHAPE, grid, pair

from crossalign.errors import ImageError
from crossalign.fusion import FusionMethod, fuse
from crossalign.fusion.classical import Average, LaplacianPyramid, Maximum
from crossalign.fusion.methods import named_fusion_method
from crossalign.geometry import Grid, Rigid, euler_to_rotation
from crossalign.images import Image

COS, SIN = math.cos(0.4), math.sin(0.4)
OBLIQUE = ((COS, -SIN, 0.0), (SIN, COS, 0.0), (0.0, 0.0, 1.0))


def test_the_result_lies_on_the_mris_grid_and_records_its_settings():
    mri, pet = pair()
    result = fuse(mri, pet, LaplacianPyramid(), b_unit="SUV")
    assert result.fused.grid == mri.grid
    assert result.fused.voxels.dtype == torch.float32
    assert result.method == "laplacian"
    assert result.settings["levels"] == "3"
    assert result.b_scaling.unit == "SUV"
    assert result.warnings == ()


@dataclass(frozen=True)
class Chooses(FusionMethod):
    """A method that chooses a share of the first input by the pair."""

    share: float = math.nan
    name = "chooses"

    def for_pair(self, a, b):
        return replace(self, share=round(float(a.mean() / (a.mean() + b.mean())), 2))

    def notes(self):
        return (f"a share of {self.share} was chosen",)

    def fuse(self, a, b):
        return self.share * a + (1 - self.share) * b


def test_what_a_method_chose_for_a_pair_stands_in_the_result():
    result = fuse(*pair(), Chooses())
    a, b = result.a.voxels, result.b.voxels
    chosen = Chooses().for_pair(a, b)
    assert 0 < chosen.share < 1
    assert result.settings == {"share": str(chosen.share)}
    assert result.notes[-1] == f"a share of {chosen.share} was chosen"
    assert torch.equal(result.fused.voxels, chosen.fuse(a, b))
    assert result.to_dict()["settings"] == result.settings


def test_the_default_network_records_the_detail_that_it_chose():
    result = fuse(*pair(), named_fusion_method("dcfb-compact"))
    assert result.method == "dcfb-compact"
    assert result.settings["emphasis"] == "auto"
    assert -0.3 <= float(result.settings["detail"]) <= 0.5
    assert {"ssim_gain_estimated", "qabf_gain_estimated"} <= set(result.settings)
    balanced = fuse(*pair(), named_fusion_method("dcfb-compact", "balanced"))
    assert (balanced.method, balanced.settings["detail"]) == ("dcfb-compact-balanced", "0")


def test_scalings_restore_each_inputs_own_values():
    mri, pet = pair()
    result = fuse(mri, pet, Average())
    within = pet.voxels.clamp(result.b_scaling.low, result.b_scaling.high)
    assert torch.allclose(result.b_scaling.invert(result.b.voxels), within, atol=1e-3)
    clipped = mri.voxels.clamp(result.a_scaling.low, result.a_scaling.high)
    assert torch.allclose(result.a_scaling.invert(result.a.voxels), clipped, atol=1e-3)


@pytest.mark.parametrize(
    "target",
    [
        Grid((30, 40, 60), (1.2, 2.1, 3.1), (5.0, 4.0, 3.0)),
        Grid((44, 60, 60), (2.0, 2.0, 2.0), (10.0, -30.0, 0.0), OBLIQUE),
    ],
    ids=["anisotropic", "oblique"],
)
def test_a_pet_on_another_grid_is_resampled_to_the_mris(target):
    mri, pet = pair()
    elsewhere = pet.resampled(target)
    result = fuse(mri, elsewhere, Average())
    direct = fuse(mri, pet, Average())
    inside = elsewhere.grid.to_voxel(mri.grid.points_mm().reshape(-1, 3))
    margin = torch.tensor(target.shape[::-1]) - 2
    covered = ((inside >= 1) & (inside <= margin)).all(-1).reshape(SHAPE)
    difference = (result.b_scaling.invert(result.b.voxels) - direct.b_scaling.invert(direct.b.voxels))[covered]
    assert float(covered.float().mean()) > 0.4
    assert float(difference.abs().mean()) < 0.25  # of 12: two trilinear interpolations of a noisy volume


def test_an_oblique_mris_grid_is_that_of_the_result():
    mri, pet = pair()
    oblique = Grid(SHAPE, (2.0, 2.0, 2.0), (20.0, -15.0, 0.0), OBLIQUE)
    result = fuse(mri.resampled(oblique), pet, Maximum())
    assert result.fused.grid == oblique


def test_a_transform_moves_the_pet():
    mri, pet = pair()
    motion = Rigid(
        euler_to_rotation(torch.tensor([0.0, 0.0, 0.1], dtype=torch.float64)), torch.tensor([6.0, -4.0, 2.0]).double()
    )
    moved_grid = Grid(SHAPE, (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    moved = pet.resampled(moved_grid, motion.inverse(), fill=0.0)  # content of p lies at motion(p)
    back = fuse(mri, moved, Average(), a_to_b=motion)
    apart = fuse(mri, moved, Average())
    truth = fuse(mri, pet, Average())
    error = (back.b.voxels - truth.b.voxels).abs().mean()
    assert float(error) < 0.5 * float((apart.b.voxels - truth.b.voxels).abs().mean())


def test_grids_that_do_not_overlap_are_an_error():
    mri, pet = pair()
    far = Image(pet.voxels, grid(origin=(500.0, 0.0, 0.0)), "pet.nii.gz")
    with pytest.raises(ImageError, match=r"pet.nii.gz does not lie where mri.nii.gz does .* --register"):
        fuse(mri, far, Average())


def test_heads_that_do_not_overlap_are_an_error_and_a_small_overlap_a_warning():
    mri, pet = pair()
    shifted = Image(mri.voxels.roll(16, 2).clone(), mri.grid, "mri.nii.gz")
    result = fuse(shifted, pet, Average())
    assert any("are the two registered?" in text for text in result.warnings)
    corner = torch.zeros(SHAPE)
    corner[:6, :6, :6] = torch.rand(6, 6, 6, generator=torch.Generator().manual_seed(0)) + 0.5
    with pytest.raises(ImageError, match="register them first"):
        fuse(mri, Image(corner, pet.grid, "pet.nii.gz"), Average())


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda v: v.index_fill(0, torch.tensor([3]), math.nan), "NaN or infinite"),
        (lambda v: torch.full_like(v, 7.0), "every voxel is the same"),
    ],
    ids=["nan", "constant"],
)
def test_unusable_voxels_are_an_error(which, spoil, words):
    images = list(pair())
    images[which] = Image(spoil(images[which].voxels), images[which].grid, "this.nii.gz")
    with pytest.raises(ImageError, match=rf"this.nii.gz: .*{words}"):
        fuse(images[0], images[1], Average())


def test_an_image_of_one_bright_voxel_is_an_error():
    mri, pet = pair()
    lone = torch.zeros(SHAPE)
    lone[5, 5, 5] = 1
    with pytest.raises(ImageError):
        fuse(mri, Image(lone, pet.grid, "pet.nii.gz"), Average())


def test_a_few_slices_are_an_error():
    mri, pet = pair()
    thin = Grid((4, *SHAPE[1:]), (2.0, 2.0, 2.0), (0.0, 0.0, 40.0))
    with pytest.raises(ImageError, match="8 or more on each axis"):
        fuse(mri.resampled(thin), pet, Average())


class _Broken(FusionMethod):
    name = "broken"

    def settings(self):
        return {}

    def fuse(self, a, b):
        return a / 0 + b


def test_a_method_that_returns_nan_is_an_error():
    with pytest.raises(ImageError, match="'broken' made NaN"):
        fuse(*pair(), _Broken())
