"""Simulated pairs: reproducible, inside their volumes, with the rigid answer that least squares would give."""

import pytest
import torch
from tests.simulation.laws import check_that_global_random_state_is_left_alone, check_that_the_seed_decides

from crossalign.errors import InputError
from crossalign.geometry import Rigid, resample
from crossalign.geometry.fit import fit_rigid
from crossalign.simulation import (
    DeformationSettings,
    PoseSettings,
    SimulatedPairs,
    SimulationSettings,
    UltrasoundSettings,
    simulate_pairs,
)
from crossalign.simulation.pelvis.pairs import DEFAULTS, _draw

SHAPE, SPACING_MM = (32, 32, 32), 3.0
HALF_MM = torch.tensor([48.0, 48.0, 48.0])


def make(seed: int = 0, count: int = 4, settings: SimulationSettings | None = None) -> SimulatedPairs:
    generator = torch.Generator().manual_seed(seed)
    return simulate_pairs(count, generator, settings or SimulationSettings(), SHAPE, SPACING_MM)


@pytest.fixture(scope="module")
def pairs() -> SimulatedPairs:
    return make(count=24)


def test_same_seed_same_pairs() -> None:
    check_that_the_seed_decides(make)


def test_global_random_state_is_neither_read_nor_changed() -> None:
    check_that_global_random_state_is_left_alone(make)


def test_shapes_ranges_and_types(pairs: SimulatedPairs) -> None:
    for image in (pairs.fixed, pairs.moving):
        assert image.shape == (24, 1, *SHAPE)
        assert image.dtype == torch.float32
        assert bool(((image >= 0) & (image <= 1)).all())
        assert bool((image.flatten(1).std(1) > 0.01).all())
    assert pairs.fixed_mask.dtype == pairs.moving_mask.dtype == torch.bool
    assert pairs.fixed_mask.shape == pairs.moving_mask.shape == (24, 1, *SHAPE)
    assert pairs.surface_mm.shape == (24, 256, 3)
    assert pairs.fixed_grid.shape == SHAPE
    assert pairs.fixed_grid.spacing_mm == (SPACING_MM,) * 3


def test_grids_may_have_three_sizes() -> None:
    pair = simulate_pairs(1, torch.Generator().manual_seed(0), shape=(30, 34, 38), spacing_mm=2.5)
    assert pair.fixed.shape == pair.moving.shape == (1, 1, 30, 34, 38)


def test_glands_lie_inside_both_volumes(pairs: SimulatedPairs) -> None:
    for gland in (pairs.fixed_mask, pairs.moving_mask):
        inner = gland[..., 1:-1, 1:-1, 1:-1].sum()
        assert float(inner) > 0.999 * float(gland.sum())  # the probe may push the largest to the edge
    volume_ml = pairs.fixed_mask.flatten(1).sum(1) * SPACING_MM**3 / 1000
    assert float(volume_ml.min()) > 10
    assert float(volume_ml.max()) < 180
    assert float(volume_ml.max()) > 2 * float(volume_ml.min())


def test_surface_points_lie_on_the_gland(pairs: SimulatedPairs) -> None:
    center = pairs.surface_mm.mean(1, keepdim=True)
    for scale, expected in ((0.8, 1.0), (1.25, 0.0)):
        points = center + (pairs.surface_mm - center) * scale
        index = pairs.fixed_grid.to_voxel(points).round().long().clamp(0, SHAPE[0] - 1)
        for b in range(24):
            found = pairs.fixed_mask[b, 0, index[b, :, 2], index[b, :, 1], index[b, :, 0]].float().mean()
            assert abs(float(found) - expected) < 0.05


def test_motion_is_moderate_and_the_residual_lifelike(pairs: SimulatedPairs) -> None:
    center = pairs.surface_mm.mean(1)
    shift = (pairs.fixed_to_moving.apply(center[:, None])[:, 0] - center).abs()
    assert float(shift.max()) < 20
    assert 3 < float(pairs.fixed_to_moving.angle_deg().mean()) < 25
    assert 2.5 < float(pairs.residual_mm.mean()) < 5.0
    assert float(pairs.residual_mm.max()) < 7


def test_without_deformation_the_rigid_answer_is_exact() -> None:
    pairs = make(2, 6, SimulationSettings(deformation=DeformationSettings(enabled=False)))
    assert float(pairs.residual_mm.max()) < 1e-3
    for b in range(6):
        brought = resample(
            pairs.moving_mask[b : b + 1].float(), pairs.moving_grid, pairs.fixed_grid, pairs.fixed_to_moving[b]
        )
        a, f = brought[0] > 0.5, pairs.fixed_mask[b]
        assert 2 * float((a & f).sum()) / float(a.sum() + f.sum()) > 0.9


def test_with_deformation_the_glands_still_overlap(pairs: SimulatedPairs) -> None:
    for b in range(6):
        brought = resample(
            pairs.moving_mask[b : b + 1].float(), pairs.moving_grid, pairs.fixed_grid, pairs.fixed_to_moving[b]
        )
        a, f = brought[0] > 0.5, pairs.fixed_mask[b]
        assert 2 * float((a & f).sum()) / float(a.sum() + f.sum()) > 0.72


def test_still_patients_have_the_identity_as_answer() -> None:
    still = PoseSettings(rotation_deg=(0, 0), translation_mm=(0, 0))
    pairs = make(1, 2, SimulationSettings(pose=still, deformation=DeformationSettings(enabled=False)))
    assert float((pairs.fixed_to_moving.apply(pairs.surface_mm) - pairs.surface_mm).norm(dim=-1).max()) < 1e-3


@pytest.mark.parametrize(("fraction", "behind"), [(0.0, True), (1.0, False)])
def test_wrong_headers_rotate_patient_and_probe(fraction: float, behind: bool) -> None:
    settings = SimulationSettings(
        pose=PoseSettings(rotated_fraction=fraction), ultrasound=UltrasoundSettings(end_fire_fraction=0.0)
    )
    drawn = _draw(32, HALF_MM, torch.Generator().manual_seed(0), settings)
    from_gland = drawn.sector.probe_to_moving.translation_mm - drawn.moving_surface_mm.mean(1)
    is_behind = from_gland[:, 1] > 15
    assert bool((is_behind == behind).all())


def test_reference_is_the_least_squares_optimum() -> None:
    drawn = _draw(4, HALF_MM, torch.Generator().manual_seed(0), DEFAULTS)
    fitted = fit_rigid(drawn.surface_mm, drawn.moving_surface_mm, prior_mm2=0.0)
    assert torch.allclose(fitted.matrix(), make(0, 4).fixed_to_moving.matrix(), atol=1e-4)
    best = (fitted.apply(drawn.surface_mm) - drawn.moving_surface_mm).square().sum((1, 2))
    center = drawn.surface_mm.mean(1)
    for k in range(6):
        for size in (-0.5, 0.5):
            step = torch.zeros(4, 6)
            step[:, k] = size
            moved = fitted @ Rigid.from_parameters(step, center)
            assert bool(((moved.apply(drawn.surface_mm) - drawn.moving_surface_mm).square().sum((1, 2)) > best).all())


@pytest.mark.parametrize(
    ("count", "shape", "spacing_mm"), [(0, (32, 32, 32), 3.0), (1, (20, 32, 32), 3.0), (1, (32, 32, 32), 1.0)]
)
def test_grids_too_small_for_a_gland_are_refused(count: int, shape: tuple[int, int, int], spacing_mm: float) -> None:
    with pytest.raises(InputError, match="simulate_pairs needs"):
        simulate_pairs(count, torch.Generator(), shape=shape, spacing_mm=spacing_mm)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_the_field_of_view_lies_about_the_gland_whichever_way_the_headers_rotate(fraction: float) -> None:
    settings = SimulationSettings(
        pose=PoseSettings(rotated_fraction=fraction),
        ultrasound=UltrasoundSettings(end_fire_fraction=0.0, attenuation_per_mm=(0, 0)),
    )
    pairs = simulate_pairs(12, torch.Generator().manual_seed(3), settings, SHAPE, 4.0)
    imaged = ((pairs.moving > 0) & pairs.moving_mask).flatten(1).sum(1) / pairs.moving_mask.flatten(1).sum(1)
    assert float(imaged.mean()) > 0.85
