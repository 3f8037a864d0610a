"""Training pairs: the correction undoes the initial error, whatever the augmentation; draws are reproducible."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.toys import make_dataset
from torch import Tensor

from crossalign.geometry import Rigid, mean_displacement_mm, sample
from crossalign.models import StageSettings
from crossalign.networks import crop_points
from crossalign.training import NO_AUGMENTATION, Augmentation, PairDataset
from crossalign.training.sampling import (
    Batch,
    draw_batch,
    draw_field_of_view,
    draw_warp,
    validation_batches,
    vary_intensity,
)

DATASET = make_dataset(5)
FINE = StageSettings("attention-reg", (20, 20, 20), 1.8, 3.0)
SHAPES_ONLY = replace(NO_AUGMENTATION, rotation_deg=20.0, scale=0.15, shift_mm=4.0, mirror="x", deformation_mm=1.5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(
    seed: int,
    start_mm: tuple[float, float],
    augmentation: Augmentation = NO_AUGMENTATION,
    dataset: PairDataset = DATASET,
) -> Batch:
    return draw_batch(dataset, torch.arange(len(dataset)), FINE, start_mm, augmentation, generator(seed))


def mapped_through(moving: Tensor, correction: Rigid) -> tuple[Tensor, Tensor]:
    """Read the moving crops, as images of their own, where the correction says; and say where that is inside."""
    lattice = crop_points(FINE.crop_shape, FINE.crop_spacing_mm).float().expand(len(moving), -1, -1, -1, -1)
    points = correction.apply(lattice.flatten(1, 3)).reshape(lattice.shape)
    voxels = points / FINE.crop_spacing_mm + (FINE.crop_shape[0] - 1) / 2
    inside = ((voxels >= 0) & (voxels <= FINE.crop_shape[0] - 1)).all(-1)[:, None]
    return sample(moving, voxels), inside


@pytest.mark.parametrize("augmentation", [NO_AUGMENTATION, SHAPES_ONLY], ids=["plain", "warped"])
@pytest.mark.parametrize("seed", range(4))
def test_correction_aligns(augmentation: Augmentation, seed: int) -> None:
    """At correction(q) the moving crop shows what the fixed crop shows at q; without it, it does not."""
    batch = draw(seed, (8.0, 8.0), augmentation)
    corrected, inside = mapped_through(batch.moving, batch.correction)
    before, after = (batch.moving - batch.fixed).abs()[inside].mean(), (corrected - batch.fixed).abs()[inside].mean()
    assert float(inside.float().mean()) > 0.3
    assert float(after) < 0.012
    assert float(after) < 0.12 * float(before)
    wrong, there = mapped_through(batch.moving, batch.correction.inverse())
    assert float((wrong - batch.fixed).abs()[there].mean()) > 5 * float(after)


def test_correction_applied_to_the_initialisation_is_the_reference() -> None:
    """In the dataset's own space: moving at (initial @ correction) of the crop's points is the fixed crop."""
    batch = draw(3, (10.0, 10.0))
    lattice = crop_points(FINE.crop_shape, FINE.crop_spacing_mm).float().expand(len(DATASET), -1, -1, -1, -1)
    center = DATASET.center_mm
    shift = Rigid(torch.eye(3).expand(len(DATASET), 3, 3), center)
    index = torch.arange(len(DATASET))
    start = DATASET.reference(index) @ shift @ batch.correction.inverse() @ shift.inverse()

    def moving_at(transform: Rigid) -> Tensor:
        points = transform.apply((lattice + center[:, None, None, None]).flatten(1, 3)).reshape(lattice.shape)
        return DATASET.moving_at(index, points)

    torch.testing.assert_close(moving_at(start), batch.moving, atol=2e-3, rtol=0)
    corrected = start @ shift @ batch.correction @ shift.inverse()
    assert float((moving_at(corrected) - batch.fixed).abs().mean()) < 0.006  # each interpolated on its own voxels
    assert float((moving_at(start) - batch.fixed).abs().mean()) > 0.06
    torch.testing.assert_close(corrected.matrix(), DATASET.reference(index).matrix(), atol=1e-3, rtol=1e-4)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), target=st.floats(0, 20), augmented=st.booleans())
def test_initialisations_have_the_requested_sre(seed: int, target: float, augmented: bool) -> None:
    augmentation = SHAPES_ONLY if augmented else NO_AUGMENTATION
    batch = draw(seed, (target, target), augmentation)
    start = batch.correction.inverse()
    got = mean_displacement_mm(start, Rigid.identity(torch.float32), batch.surface_mm)
    assert float((got - target).abs().max()) < 0.02
    also = mean_displacement_mm(batch.correction, Rigid.identity(torch.float32), start.apply(batch.surface_mm))
    torch.testing.assert_close(also, got, atol=1e-3, rtol=0)


def test_initialisations_fill_their_range() -> None:
    dataset = DATASET.take(torch.zeros(400, dtype=torch.int64))
    thin = StageSettings("feature-reg", (4, 4, 4), 5.0, 3.0)
    batch = draw_batch(dataset, torch.arange(400), thin, (2.0, 10.0), NO_AUGMENTATION, generator())
    sre = mean_displacement_mm(batch.correction, Rigid.identity(torch.float32), batch.surface_mm)
    assert 1.9 < float(sre.min()) < 2.3
    assert 9.7 < float(sre.max()) < 10.1
    assert float(sre.mean()) == pytest.approx(6.0, abs=0.4)


def test_same_seed_same_batch() -> None:
    first, again, other = (draw(seed, (0.0, 20.0), Augmentation()) for seed in (7, 7, 8))
    for name in ("fixed", "moving", "surface_mm"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    assert torch.equal(first.correction.matrix(), again.correction.matrix())


def test_global_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    draw(1, (0.0, 20.0), Augmentation())
    assert torch.equal(state, torch.get_rng_state())


def test_case_index_picks_the_case() -> None:
    index = torch.tensor([3, 1])
    batch = draw_batch(DATASET, index, FINE, (0.0, 0.0), NO_AUGMENTATION, generator())
    whole = draw(0, (0.0, 0.0))
    torch.testing.assert_close(batch.fixed, whole.fixed[index])
    torch.testing.assert_close(batch.surface_mm, whole.surface_mm[index])


def test_label_mode_shows_the_mask_untouched() -> None:
    label = replace(FINE, fixed_input="label")
    strong = replace(SHAPES_ONLY, noise=0.3, gamma=0.5, cutout=1.0)
    batch = draw_batch(DATASET, torch.arange(5), label, (0.0, 5.0), strong, generator())
    plain = draw_batch(DATASET, torch.arange(5), label, (0.0, 5.0), NO_AUGMENTATION, generator())
    assert bool((plain.fixed[..., 10, 10, 10] == 1).all())
    assert 0.0 < float(batch.fixed.mean()) < 1.0
    assert float(batch.fixed.max()) <= 1.0 + 1e-6
    assert float((batch.fixed == 1).float().mean()) > 0.05


def test_validation_initialisations_are_fixed_and_differ() -> None:
    first, again = (validation_batches(DATASET, FINE, (0.0, 20.0), 3, seed=5) for _ in range(2))
    assert len(first) == 3
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.moving, b.moving)
    assert not torch.allclose(first[0].correction.matrix(), first[1].correction.matrix())


def test_switched_off_is_the_identity() -> None:
    warp = draw_warp(3, 36.0, NO_AUGMENTATION, generator(), torch.device("cpu"))
    offsets = torch.rand(3, 4, 4, 4, 3, generator=generator(1)) * 60 - 30
    for moving in (False, True):
        assert torch.equal(warp(offsets, moving), offsets)
    points = offsets.flatten(1, 3)
    torch.testing.assert_close(warp.undo_affine(points), points)
    volume = torch.rand(3, 1, 6, 6, 6, generator=generator(2)).clamp(min=1e-3)
    volume[:, :, :2] = 0
    torch.testing.assert_close(vary_intensity(volume, NO_AUGMENTATION, generator()), volume)


def test_switched_off_by_equal_settings_is_the_same() -> None:
    """Settings that were read from a file are equal to NO_AUGMENTATION without being it."""
    batch, other = draw(4, (0.0, 9.0)), draw(4, (0.0, 9.0), replace(NO_AUGMENTATION))
    assert torch.equal(batch.fixed, other.fixed)
    assert torch.equal(batch.moving, other.moving)


def test_warp_undoes_its_affine_part() -> None:
    stiff = replace(SHAPES_ONLY, deformation_mm=0.0)
    warp = draw_warp(4, 36.0, stiff, generator(), torch.device("cpu"))
    points = torch.rand(4, 30, 3, generator=generator(1)) * 40 - 20
    there = warp(points.reshape(4, 30, 1, 1, 3), moving=False).reshape(4, 30, 3)
    torch.testing.assert_close(warp.undo_affine(there), points, atol=1e-4, rtol=0)
    assert len({float(d) > 0 for d in torch.linalg.det(warp.matrix)}) == 2  # some are mirrored


def test_only_the_moving_image_takes_its_own_deformation() -> None:
    parted = replace(NO_AUGMENTATION, moving_deformation_mm=2.0)
    warp = draw_warp(2, 36.0, parted, generator(), torch.device("cpu"))
    offsets = torch.rand(2, 3, 3, 3, 3, generator=generator(1)) * 30 - 15
    assert torch.equal(warp(offsets, moving=False), offsets)
    assert 0.2 < float((warp(offsets, moving=True) - offsets).abs().mean()) < 4


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_intensity_keeps_background_and_range(seed: int) -> None:
    volume = torch.rand(4, 1, 7, 8, 9, generator=generator(seed))
    volume[volume < 0.3] = 0
    before = volume.clone()
    strong = Augmentation(gamma=1.0, bias=0.8, noise=0.5, cutout=0.5)
    varied = vary_intensity(volume, strong, generator(seed))
    assert torch.equal(volume, before)
    assert bool((varied[volume == 0] == 0).all())
    assert bool(varied.isfinite().all())
    assert 0 <= float(varied.min()) <= float(varied.max()) <= 1.5
    assert not torch.allclose(varied, volume)


@pytest.mark.parametrize(("chance", "low", "high"), [(0.0, 0, 0), (1.0, 200, 200), (0.5, 70, 130)])
def test_boxes_are_cut_out_of_a_fraction_of_the_images(chance: float, low: int, high: int) -> None:
    boxes = replace(NO_AUGMENTATION, cutout=chance)
    varied = vary_intensity(torch.ones(200, 1, 12, 12, 12), boxes, generator())
    fraction = (varied == 0).float().flatten(1).mean(1)
    assert low <= int((fraction > 0).sum()) <= high
    assert float(fraction.max()) <= (0.5 + 1 / 12) ** 3


def test_moving_a_dataset_and_taking_of_it() -> None:
    assert torch.equal(DATASET.to("cpu").fixed, DATASET.fixed)
    some = DATASET.take(torch.tensor([4, 0]))
    assert len(some) == 2
    assert torch.equal(some.center_mm, DATASET.center_mm[[4, 0]])
    assert torch.equal(some.spacing_mm, DATASET.spacing_mm)


def boxed_dataset() -> PairDataset:
    """Moving images that show something in a box alone: voxels 3 to 15 along x, 4 to 16 along y, 5 to 17 along z."""
    moving = torch.zeros_like(DATASET.moving)
    moving[:, :, 5:18, 4:17, 3:16] = 0.5
    return replace(DATASET, moving=moving)


def test_the_extent_of_an_image_is_the_box_that_shows_something() -> None:
    dataset = boxed_dataset()
    step, origin = float(dataset.spacing_mm), dataset.moving_origin_mm
    first, last = (torch.tensor(ends) * step for ends in ((2.5, 3.5, 4.5), (15.5, 16.5, 17.5)))
    torch.testing.assert_close(dataset.moving_extent_mm, torch.stack((origin + first, origin + last), 1))
    nothing = replace(dataset, moving=torch.zeros_like(dataset.moving)).moving_extent_mm
    assert bool((nothing[:, 1] <= nothing[:, 0]).all())


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), cut_mm=st.floats(0.5, 30))
def test_a_cut_field_of_view_is_a_box_inside_the_image(seed: int, cut_mm: float) -> None:
    extent = torch.tensor([[[-30.0, -40.0, -50.0], [30.0, 40.0, 50.0]]]).repeat(6, 1, 1)
    axis = torch.linspace(-60, 60, 31)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], -1).expand(6, -1, -1, -1, -1)
    view = draw_field_of_view(extent, points, cut_mm, generator(seed))
    inside = ((points >= extent[0, 0]) & (points <= extent[0, 1])).all(-1)[:, None]
    deep = ((points >= extent[0, 0] + cut_mm) & (points <= extent[0, 1] - cut_mm)).all(-1)[:, None]
    assert set(view.unique().tolist()) <= {0.0, 1.0}
    assert bool((view[~inside] == 0).all())
    assert bool((view[deep] == 1).all())
    along = [view.amax(dim=axes) for axes in ((1, 3, 4), (1, 2, 4), (1, 2, 3))]
    product = along[0][:, None, :, None, None] * along[1][:, None, None, :, None] * along[2][:, None, None, None, :]
    assert torch.equal(view, product)


def test_about_half_of_the_sides_are_cut_and_by_every_amount() -> None:
    extent = torch.tensor([[[-30.0, -30.0, -30.0], [30.0, 30.0, 30.0]]]).repeat(400, 1, 1)
    axis = torch.linspace(-30, 30, 61)
    line = torch.stack((axis, torch.zeros(61), torch.zeros(61)), -1)[None, None, None].expand(400, -1, -1, -1, -1)
    view = draw_field_of_view(extent, line, 20.0, generator(4))[:, 0, 0, 0]
    from_low = view.argmax(1).float()
    uncut = from_low == 0
    assert 0.42 < float(uncut.float().mean()) < 0.6
    assert float(from_low.max()) > 18
    assert float(from_low[~uncut].mean()) == pytest.approx(10, abs=1.5)


def test_cut_images_keep_their_answer_and_their_masks() -> None:
    """Only what is shown changes: the correction, the surface and the masks are those of the whole images."""
    index = torch.arange(len(DATASET))
    plain = draw_batch(DATASET, index, FINE, (6.0, 6.0), NO_AUGMENTATION, generator(2), masks=True)
    cut = draw_batch(DATASET, index, FINE, (6.0, 6.0), replace(NO_AUGMENTATION, cut_mm=20.0), generator(2), masks=True)
    assert torch.equal(plain.correction.matrix(), cut.correction.matrix())
    assert torch.equal(plain.surface_mm, cut.surface_mm)
    assert plain.moving_mask is not None
    assert cut.moving_mask is not None
    assert torch.equal(plain.moving_mask, cut.moving_mask)
    for shown, whole in ((cut.moving, plain.moving), (cut.fixed, plain.fixed)):
        same = (shown - whole).abs() < 2e-4  # but for the rounding of a gamma of 1
        assert int((~same).sum()) > 0
        assert bool((same | (shown == 0)).all())
