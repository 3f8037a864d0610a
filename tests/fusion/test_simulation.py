"""Simulated heads: the same from one seed, lesions where their masks are, everything within the settings."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from crossalign.errors import InputError
from crossalign.fusion.simulation.anatomy import HeadTemplate, TissueMaps, _distance_mm, _sharpened
from crossalign.fusion.simulation.pairs import HeadPair, simulate_head
from crossalign.fusion.simulation.settings import HeadSettings

SHAPE = (28, 30, 26)
PLAIN = HeadSettings(
    spacing_mm=(4.0, 4.0),
    skull_fraction=1.0,
    mri_stripped_fraction=0.0,
    pet_stripped_fraction=0.0,
    inverted_fraction=0.0,
    smooth_fraction=0.0,
    mri_noise=(0.0, 0.0),
    pet_noise=(0.0, 0.0),
    mri_lesions=0,
    hot_lesions=0,
    cold_lesions=0,
    hypometabolic_regions=0,
)


def maps() -> TissueMaps:
    """Make an egg: white inside grey inside a little CSF, at 4 mm."""
    axes = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in (40, 48, 40)), indexing="ij")
    squares = [(axis * 4 / half) ** 2 for axis, half in zip(axes, (60.0, 75.0, 60.0), strict=True)]
    radius = torch.stack(squares).sum(0).sqrt()
    white = (radius < 0.7).float()
    grey = (radius < 0.95).float() - white
    csf = (radius < 1.0).float() - white - grey
    return TissueMaps(0.8 * white + 0.5 * grey + 0.2 * csf, grey, white, 4.0)


TEMPLATE = HeadTemplate(maps())


def simulate(seed: int = 0, **changes: Any) -> HeadPair:
    return simulate_head(TEMPLATE, SHAPE, torch.Generator().manual_seed(seed), replace(PLAIN, **changes))


def test_one_seed_gives_one_pair() -> None:
    settings = HeadSettings(spacing_mm=(4.0, 5.0))
    pairs = [simulate_head(TEMPLATE, SHAPE, torch.Generator().manual_seed(s), settings) for s in (3, 3, 4)]
    for name in ("mri", "pet", "brain", "hot", "cold", "hypometabolic", "mri_lesion"):
        assert torch.equal(getattr(pairs[0], name), getattr(pairs[1], name))
    assert not torch.equal(pairs[0].mri, pairs[2].mri)


@pytest.mark.parametrize("seed", range(6))
def test_volumes_are_finite_and_not_negative(seed: int) -> None:
    pair = simulate_head(TEMPLATE, SHAPE, torch.Generator().manual_seed(seed), HeadSettings(spacing_mm=(3.0, 6.0)))
    for volume in (pair.mri, pair.pet):
        assert volume.shape == (1, 1, *SHAPE)
        assert bool(volume.isfinite().all())
        assert float(volume.min()) >= 0
    assert 3.0 <= pair.spacing_mm <= 6.0


def test_each_modality_shows_its_tissues() -> None:
    """White matter is the brightest tissue of the brain in T1, grey matter in PET; bone is dark in both."""
    head = TEMPLATE.draw(SHAPE, PLAIN, torch.Generator().manual_seed(1))
    pair = simulate(1)
    grey, white, _, bone, _scalp, _ = ((head.tissues[:, k] > 0.9) for k in range(6))
    inner = torch.nn.functional.avg_pool3d((head.tissues[:, :1] > 0.9).float(), 3, 1, 1) > 0.6
    assert pair.mri[0][white].mean() > pair.mri[0][grey].mean()
    assert pair.pet[0][inner[0]].mean() > pair.pet[0][white].mean()
    if bool(bone.any()):
        assert pair.mri[0][bone].mean() < pair.mri[0][grey].mean()


def test_fractions_of_tissue_sum_to_one_at_most() -> None:
    head = TEMPLATE.draw(SHAPE, PLAIN, torch.Generator().manual_seed(2))
    assert float(head.tissues.min()) >= -1e-6
    assert float(head.brain.max()) <= 1 + 1e-5


def test_without_skull_nothing_lies_outside_the_brain() -> None:
    head = TEMPLATE.draw(SHAPE, replace(PLAIN, skull_fraction=0.0), torch.Generator().manual_seed(2))
    assert float(head.tissues[:, 3:].max()) == 0


def first_with(mask: str, **changes: object) -> HeadPair:
    """Find a pair that has a lesion of this kind."""
    pairs = (simulate(seed, **changes) for seed in range(20))
    return next(pair for pair in pairs if float(getattr(pair, mask).max()) > 0.99)


@pytest.mark.parametrize(
    ("mask", "setting", "volume", "sign"),
    [
        ("hot", "hot_lesions", "pet", 1),
        ("cold", "cold_lesions", "pet", -1),
        ("hypometabolic", "hypometabolic_regions", "pet", -1),
    ],
)
def test_a_lesion_lies_where_its_mask_is(mask: str, setting: str, volume: str, sign: int) -> None:
    pair = first_with(mask, **{setting: 3}, pet_blur_mm=(4.0, 4.0))
    lesion = getattr(pair, mask)
    image = getattr(pair, volume)
    inside = lesion > 0.9
    near = (torch.nn.functional.max_pool3d(lesion, 5, 1, 2) > 0) & (lesion == 0) & (pair.brain > 0.5)
    assert (image[inside].mean() - image[near].mean()) * sign > 0


def test_an_mri_lesion_is_in_the_mri_alone() -> None:
    pair = first_with("mri_lesion", mri_lesions=4)
    assert float(pair.mri_lesion.max()) > 0.99
    assert float(pair.hot.max() + pair.cold.max() + pair.hypometabolic.max()) == 0


def test_a_wider_blur_is_smoother() -> None:
    sharp, smooth = simulate(5, pet_blur_mm=(4.0, 4.0)).pet, simulate(5, pet_blur_mm=(16.0, 16.0)).pet
    assert smooth.diff(dim=-1).abs().mean() < sharp.diff(dim=-1).abs().mean()


def test_distance_is_that_to_the_nearest_voxel_inside() -> None:
    inside = torch.zeros(9, 10, 11, dtype=torch.bool)
    inside[4, 5, 6] = True
    distance = _distance_mm(inside, 3.0)
    assert float(distance[4, 5, 6]) == 0
    assert float(distance[4, 5, 9]) == pytest.approx(9.0)
    assert float(distance[4, 1, 3]) == pytest.approx(15.0)


def test_sharpened_fractions_preserve_their_order_and_sum() -> None:
    fractions = torch.tensor([0.6, 0.3, 0.1]).reshape(1, 3, 1, 1, 1)
    sharp = _sharpened(fractions, 3.0)
    assert float(sharp.sum()) == pytest.approx(1)
    assert float(sharp[0, 0]) > 0.8
    assert float(_sharpened(torch.zeros_like(fractions), 2.0).sum()) == 0


def test_invalid_settings_and_maps_are_an_error() -> None:
    with pytest.raises(InputError, match="range"):
        HeadSettings(pet_blur_mm=(8.0, 4.0))
    with pytest.raises(InputError, match=r"0\.\.1"):
        HeadSettings(skull_fraction=1.5)
    with pytest.raises(InputError, match="or more"):
        HeadSettings(hot_lesions=-1)
    with pytest.raises(InputError, match="over 0"):
        HeadSettings(spacing_mm=(0.0, 1.0))
    valid = maps()
    with pytest.raises(InputError, match="one shape"):
        TissueMaps(valid.t1, valid.grey[1:], valid.white, 1.0)
    with pytest.raises(InputError, match="over 0 mm"):
        TissueMaps(valid.t1, valid.grey, valid.white, 0.0)
