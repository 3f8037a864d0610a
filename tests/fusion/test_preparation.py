"""The published input: a cube about the head, and a pair in MNI space."""

import math

import pytest
import torch
from tests.fusion.phantom import SHAPE, brainweb, grid, head, pair, with_frame

from crossalign.errors import OutputError
from crossalign.fusion.preparation import (
    cube_grid,
    foreground_box_mm,
    mni152_template,
    prepare_pair,
    resampled_to_cube,
    write_prepared_pair,
)
from crossalign.geometry import Grid
from crossalign.images import Image, read_image, read_transform


def test_the_cube_is_the_papers_about_the_head():
    mri, pet = pair()
    low, high = foreground_box_mm(mri)
    cube = cube_grid(mri)
    assert cube.shape == (128, 128, 128)
    assert cube.extent_mm() == pytest.approx((224.0,) * 3)
    assert cube.center_mm() == pytest.approx(((low + high) / 2).numpy())
    assert (high - low).tolist() == pytest.approx([76, 82, 70], abs=5)
    small_mri, small_pet = resampled_to_cube(mri, pet, 32)
    assert small_mri.grid == small_pet.grid
    assert small_mri.voxels.shape == (32, 32, 32)


def test_a_larger_object_gets_a_cube_as_long_as_itself():
    mri, _ = pair()
    large = Image(mri.voxels, grid(spacing=(8.0, 8.0, 8.0)))
    low, high = foreground_box_mm(large)
    assert cube_grid(large, 32).extent_mm() == pytest.approx((float((high - low).max()),) * 3)


def test_a_mouse_gets_a_cube_a_quarter_longer_than_itself():
    mri, pet = head()
    small = Grid(SHAPE, (0.25,) * 3, (0.0, 0.0, 0.0))
    cube, _ = resampled_to_cube(Image(mri, small), Image(pet, small), 32)
    assert 10 < max(cube.grid.extent_mm()) < 16
    assert math.isclose(max(resampled_to_cube(*pair(), 32)[0].grid.extent_mm()), 224.0)


def test_noise_in_the_air_does_not_move_the_cube():
    mri, _ = pair()
    noisy, center = mri.voxels.clone(), cube_grid(mri).center_mm()
    noisy[0, 0, 0] = noisy[-1, -1, -1] = 900
    assert cube_grid(Image(noisy, grid())).center_mm() == pytest.approx(center.numpy(), abs=1)


def test_padding_is_not_mixed_into_the_cube():
    mri, pet = pair()
    expected = resampled_to_cube(mri, pet, 32)
    framed = resampled_to_cube(with_frame(mri, 65535.0, 2), with_frame(pet, -1024.0, 2), 32)
    for found, other in zip(framed, expected, strict=True):
        assert float(found.voxels.max()) == pytest.approx(float(other.voxels.max()), rel=0.05)
        assert float(found.voxels.min()) == pytest.approx(float(other.voxels.min()), abs=1)


@pytest.fixture(scope="module")
def prepared(shared_data):
    return prepare_pair(*brainweb(shared_data), voxels=48)


def test_a_real_pair_is_prepared_on_one_cube(prepared):
    assert prepared.mri.voxels.shape == (48, 48, 48)
    assert prepared.mri.grid == prepared.pet.grid
    assert prepared.mri.grid.direction == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    assert 0 <= float(prepared.pet.voxels.min()) < float(prepared.pet.voxels.max()) == 1
    assert prepared.mri_to_pet.shift_mm() < 2.0  # the two are aligned by construction


def test_a_prepared_pair_lies_in_mni_space(prepared):
    template, mask = mni152_template()
    resampled, inside = prepared.mri.resampled(template.grid).voxels, mask.labels > 0
    assert float(resampled[inside].mean()) > 1.5 * float(resampled[~inside].mean())
    assert float(torch.corrcoef(torch.stack((resampled[inside], template.voxels[inside])))[0, 1]) > 0.5


def test_a_prepared_pair_is_written_as_a_folder(prepared, tmp_path):
    write_prepared_pair(prepared, tmp_path / "case")
    assert torch.equal(read_image(tmp_path / "case" / "mri.nii.gz").voxels, prepared.mri.voxels)
    back = read_transform(tmp_path / "case" / "mri_to_pet.tfm")
    assert torch.allclose(back.matrix(), prepared.mri_to_pet.fixed_to_moving.matrix())
    with pytest.raises(OutputError, match="cannot be made"):
        write_prepared_pair(prepared, tmp_path / "case")


def test_the_template_lies_where_its_header_says():
    from nilearn.datasets import load_mni152_template

    template, mask = mni152_template()
    source = load_mni152_template(resolution=2)
    index = (30, 70, 50)  # x, y, z of nibabel
    x, y, z, _ = source.affine @ (*index, 1)
    point = template.grid.to_physical(torch.tensor([index], dtype=torch.float64))[0]
    assert point.tolist() == pytest.approx([-x, -y, z])
    assert float(template.voxels[index[::-1]]) == pytest.approx(float(source.get_fdata()[index]), abs=1e-6)
    assert mask.grid == template.grid
