"""Intensity preparation, as laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossalign.geometry import Grid
from crossalign.images import Image, scale_intensity, to_working_spacing


def scan(seed: int = 0, background: bool = False) -> Image:
    voxels = torch.rand(12, 12, 12, generator=torch.Generator().manual_seed(seed)) * 200 + 10
    if background:
        voxels[:, :4] = 0
    return Image(voxels, Grid((12, 12, 12), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))


@given(st.integers(0, 99), st.booleans(), st.floats(0.01, 100), st.floats(-1000, 1000))
def test_a_change_of_gain_and_offset_changes_nothing(seed: int, background: bool, gain: float, offset: float) -> None:
    image = scan(seed, background)
    changed = Image(image.voxels * gain + offset, image.grid)
    assert torch.allclose(scale_intensity(image).voxels, scale_intensity(changed).voxels, atol=2e-3)


@given(st.integers(0, 99), st.booleans())
def test_order_is_kept_and_the_range_is_0_to_1(seed: int, background: bool) -> None:
    image = scan(seed, background)
    scaled = scale_intensity(image).voxels.flatten()[image.voxels.flatten().argsort()]
    assert bool((scaled.diff() >= 0).all())
    assert float(scaled[0]) == 0
    assert float(scaled[-1]) == 1


def test_the_empty_background_is_0_and_does_not_set_the_percentiles() -> None:
    scaled = scale_intensity(scan(background=True)).voxels
    assert bool((scaled[:, :4] == 0).all())
    assert 0.4 < float(scaled[:, 4:].mean()) < 0.6  # uniform values: with the background as the low end it is 0.55


def test_two_values_are_told_apart() -> None:
    voxels = torch.zeros(8, 8, 8)
    voxels[4:] = 5
    image = Image(voxels, Grid((8, 8, 8), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    scaled = scale_intensity(image).voxels
    assert float(scaled[0, 0, 0]) == 0
    assert bool(scaled.isfinite().all())


@pytest.mark.parametrize("spacing_mm", [0.7, 1.0, 2.0])
def test_working_spacing_keeps_a_ramp_in_its_place(spacing_mm: float) -> None:
    grid = Grid((14, 12, 10), (1.0, 1.5, 0.8), (3.0, -4.0, 5.0), ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)))
    ramp = (grid.points_mm() @ torch.tensor([1.0, 2.0, 3.0]).double()).float()
    working = to_working_spacing(Image(ramp, grid), spacing_mm)
    assert working.grid.spacing_mm == (spacing_mm,) * 3
    expected = (working.grid.points_mm() @ torch.tensor([1.0, 2.0, 3.0]).double()).float()
    inner = (slice(4, -4), slice(4, -4), slice(3, -3)) if spacing_mm < 2 else (slice(2, -2),) * 2 + (slice(1, -1),)
    assert torch.allclose(working.voxels[inner], expected[inner], atol=0.05)
