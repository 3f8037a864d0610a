"""Scalings: padding shows nothing, no uptake is 0, lesions are not clipped, and units change nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fusion.phantom import SHAPE, frame, pair, with_frame

from crossalign.fusion import WindowSettings, find_scaling, fuse, named_fusion_method
from crossalign.fusion.classical import Average
from crossalign.fusion.scaling import Scaling, padding_mask
from crossalign.geometry import Grid
from crossalign.images import Image

PADDING = [255.0, -1024.0, -3024.0, 65535.0, 0.0]


def _part(image: Image, z: slice, y: slice, x: slice) -> Image:
    voxels = image.voxels[z, y, x].contiguous()
    first = torch.tensor([[float(axis.start or 0) for axis in (x, y, z)]], dtype=torch.float64)
    left, back, low = image.grid.to_physical(first)[0].tolist()
    shape = (voxels.shape[0], voxels.shape[1], voxels.shape[2])
    return Image(voxels, Grid(shape, image.grid.spacing_mm, (left, back, low), image.grid.direction), image.name)


@pytest.mark.parametrize("which", ["mri", "pet", "both"])
@pytest.mark.parametrize("value", PADDING)
def test_padding_of_any_value_shows_nothing_and_scales_nothing(value: float, which: str) -> None:
    mri, pet = pair()
    whole = fuse(mri, pet, Average())
    framed = fuse(
        with_frame(mri, value) if which != "pet" else mri, with_frame(pet, value) if which != "mri" else pet, Average()
    )
    edge = frame()
    for image, of_whole, is_framed in (
        (framed.a, whole.a, which != "pet"),
        (framed.b, whole.b, which != "mri"),
    ):
        assert torch.allclose(image.voxels[~edge], of_whole.voxels[~edge], atol=0.01)
        if is_framed:
            assert float(image.voxels[edge].abs().max()) == 0
    assert framed.warnings == whole.warnings == ()


def test_the_padding_of_a_z_scored_image_is_not_its_mean() -> None:
    mri, pet = pair()
    skull = mri.voxels > 250
    values = mri.voxels[skull]
    scored = torch.where(skull, (mri.voxels - values.mean()) / values.std(), torch.tensor(0.0))
    result = fuse(Image(scored, mri.grid, "z"), pet, Average())
    assert result.a_scaling.padding == 0
    assert result.a_scaling.low < -1
    assert float(result.a.voxels[~skull].max()) == 0
    assert float(result.a.voxels[skull].quantile(0.5)) > 0.2
    uptake = pet.voxels > 0.5
    values = pet.voxels[uptake]
    scored = torch.where(uptake, (pet.voxels - values.mean()) / values.std(), torch.tensor(0.0))
    result = fuse(mri, Image(scored, pet.grid, "z"), Average())
    assert float(result.b.voxels[~uptake].max()) == 0
    assert float(result.b.voxels[uptake].quantile(0.5)) > 0.1
    assert any("is taken for no uptake" in note for note in result.notes)


def test_a_saturated_value_inside_is_no_padding() -> None:
    mri, _ = pair()
    bright = mri.voxels.clamp(max=255)
    bright[20:23, 20:23, 20:23] = 255
    framed = with_frame(Image(bright, mri.grid), 255.0)
    empty = padding_mask(framed.voxels, 255.0)
    assert torch.equal(empty | frame(), empty)
    assert not bool(empty[20:23, 20:23, 20:23].any())
    assert float(find_scaling(framed, "mr").apply(framed.voxels)[21, 21, 21]) == 1


@pytest.mark.parametrize("name", ["average", "laplacian", "wavelet", "laplacian-2d"])
def test_no_uptake_is_0_in_the_field_of_view_and_beyond(name: str) -> None:
    """The fused volume is the same whether the field of view ends where the uptake does, or beyond."""
    mri, pet = pair()
    empty = pet.voxels.clone()
    empty[:16] = 0  # no uptake in these slices
    method = named_fusion_method(name)
    part = _part(Image(empty, pet.grid), slice(12, SHAPE[0]), slice(0, None), slice(0, None))
    window = WindowSettings(window_b=(0.0, 7.0))
    whole, short = (fuse(mri, image, method, windows=window) for image in (Image(empty, pet.grid), part))
    assert torch.allclose(whole.fused.voxels, short.fused.voxels, atol=2e-5)
    assert float(short.b.voxels[:16].max()) == 0


@pytest.mark.parametrize("added", [0.0, -0.1])
def test_negative_noise_does_not_raise_voxels_without_uptake(added: float) -> None:
    mri, pet = pair()
    noise = 0.2 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) + added
    noisy = Image(pet.voxels + noise, pet.grid, "pet.nii.gz")
    scaling = find_scaling(noisy, "pet")
    assert scaling.low == 0
    result = fuse(mri, noisy, Average())
    assert result.warnings == ()
    assert float(result.b.voxels[noisy.voxels <= 0].max()) == 0


def test_only_a_clear_offset_is_subtracted_from_a_pet() -> None:
    _, pet = pair()
    assert find_scaling(Image(pet.voxels + 500, pet.grid), "pet").low == pytest.approx(500)
    inner = _part(pet, slice(16, 28), slice(16, 32), slice(16, 30))  # no voxel of it is without uptake
    assert float(inner.voxels.min()) > 0
    assert find_scaling(inner, "pet").low == 0


@settings(max_examples=20)
@given(
    gain=st.sampled_from([1e-30, 1e-3, 0.37, 1.0, 41.0, 1e30]),
    offset=st.sampled_from([0.0, -0.4, 2.5, 30.0]),
    scale=st.sampled_from([1e-30, 0.02, 1.0, 7.0, 1e30]),
)
def test_units_of_either_image_change_nothing(gain: float, offset: float, scale: float) -> None:
    mri, pet = pair()
    expected = fuse(mri, pet, Average(), b_unit="Bq/ml").fused.voxels
    other = Image((mri.voxels / 1000 + offset) * gain, mri.grid)
    found = fuse(other, Image(pet.voxels * scale, pet.grid), Average(), b_unit="Bq/ml").fused.voxels
    assert torch.allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("kind", ["int16", "offset"])
def test_full_range_integers_and_large_offsets_change_nothing(kind: str) -> None:
    mri, pet = pair()
    expected = fuse(mri, pet, Average()).fused.voxels
    unit = (mri.voxels - mri.voxels.min()) / (mri.voxels.max() - mri.voxels.min())
    other = (unit * 65535).round() - 32768 if kind == "int16" else 1e7 + (unit * 4000).round()
    assert torch.allclose(fuse(Image(other, mri.grid), pet, Average()).fused.voxels, expected, atol=1e-3)


def test_a_small_pet_and_a_slab_of_mri_are_no_fault() -> None:
    mri, pet = pair()
    block = _part(pet, slice(18, 26), slice(18, 30), slice(16, 30))
    result = fuse(mri, block, Average())
    assert result.warnings == ()
    assert any("pet.nii.gz covers 1.1% of the grid" in note for note in result.notes)
    thin = fuse(mri, _part(pet, slice(20, 24), slice(0, None), slice(0, None)), Average())
    assert thin.warnings == ()
    slab = fuse(_part(mri, slice(18, 28), slice(0, None), slice(0, None)), pet, Average())
    assert slab.warnings == ()
    assert not any("covers" in note for note in slab.notes)


def test_scaling_maps_its_window_to_0_and_1():
    assert Scaling(1.0, 3.0).apply(torch.tensor([[[0.0, 2.0, 9.0]]])).flatten().tolist() == [0.0, 0.5, 1.0]
