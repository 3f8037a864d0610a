"""What is odd about a pair is a warning, what does not fit into memory an error."""

import pytest
import torch
from tests.fusion.phantom import SHAPE, pair

from crossalign.errors import ImageError
from crossalign.fusion import fuse, named_fusion_method
from crossalign.fusion.classical import Average
from crossalign.fusion.result import needed_bytes
from crossalign.geometry import Grid
from crossalign.images import Image, memory


def _warnings(mri: Image, pet: Image) -> str:
    return " | ".join(fuse(mri, pet, Average()).warnings)


def test_a_segmentation_is_a_warning() -> None:
    mri, pet = pair()
    labels = (mri.voxels / 250).round()
    assert "seg.nii: holds whole numbers in plateaus" in _warnings(mri, Image(labels, mri.grid, "seg.nii"))
    assert _warnings(Image(mri.voxels.round(), mri.grid), pet) == ""


def test_one_image_given_twice_is_a_warning() -> None:
    _, pet = pair()
    again = Image(pet.voxels.clone(), pet.grid, "again.nii")
    assert "again.nii shows the same as pet.nii.gz" in _warnings(pet, again)


def test_an_image_of_one_value_where_both_lie_is_a_warning() -> None:
    mri, _ = pair()
    block = torch.full((12, 20, 30), 5.0)
    block[:, :, 14:] = 10 * torch.rand(12, 20, 16, generator=torch.Generator().manual_seed(0))
    half = mri.voxels[:, :, :23].contiguous()
    cut = Image(half, Grid((SHAPE[0], SHAPE[1], 23), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0)), "cut.nii")
    flat = Image(block, Grid((12, 20, 30), (2.0, 2.0, 2.0), (20.0, 28.0, 32.0)), "flat.nii")
    assert "flat.nii: has one value where both images lie" in _warnings(cut, flat)


def test_a_signed_map_loses_its_negative_part_and_says_so() -> None:
    mri, pet = pair()
    waves = torch.sin(torch.arange(SHAPE[1]) / 4)[:, None] * pet.voxels
    assert "were clipped, most of them below 0" in _warnings(mri, Image(waves.contiguous(), pet.grid, "t-map.nii"))


def test_a_fusion_that_does_not_fit_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    mri, pet = pair()
    monkeypatch.setattr(memory, "memory_limit", lambda: 1_000_000)
    with pytest.raises(ImageError, match=r"fusing 46 x 48 x 44 voxels by 'average' takes 0.0 GiB .* crop or resample"):
        fuse(mri, pet, Average())
    monkeypatch.setattr(memory, "memory_limit", lambda: 4_000_000)
    assert fuse(mri, pet, Average()).method == "average"


def test_needed_memory_of_each_method() -> None:
    shape = (160, 192, 160)
    big = Grid(shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    voxels = 160 * 192 * 160
    for name in ("average", "maximum", "laplacian", "wavelet", "laplacian-2d", "wavelet-2d"):
        method_bytes = named_fusion_method(name).needed_bytes(shape)
        assert 8 * voxels < needed_bytes(big, big, method_bytes) <= 36 * voxels
    network = named_fusion_method("dcfb-compact")
    assert network.needed_bytes(shape) > 200 * voxels
    assert network.needed_bytes((640, 640, 640)) < 100 * 640**3  # by tiles
