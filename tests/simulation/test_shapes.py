"""Any two modalities: reproducible pairs with the least-squares answer, unrelated contrasts, all orientations."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.simulation.laws import check_that_global_random_state_is_left_alone, check_that_the_seed_decides

from crossalign.errors import InputError
from crossalign.geometry import Rigid, axis_orientations, resample
from crossalign.geometry.fit import fit_rigid
from crossalign.simulation import (
    DeformationSettings,
    PoseSettings,
    ShapeSettings,
    SimulatedPairs,
    SimulationSettings,
    simulate_pairs,
    simulate_shapes,
)
from crossalign.simulation.shapes.modality import apply_curves, draw_curves
from crossalign.simulation.shapes.pairs import DEFAULTS, _draw
from crossalign.simulation.shapes.scene import draw_orientations

SHAPE, SPACING_MM = (32, 32, 32), 3.0
HALF_MM = torch.tensor([48.0, 48.0, 48.0])
NOTHING = (0.0, 0.0)
STIFF = DeformationSettings(enabled=False)
STILL = PoseSettings(rotation_deg=NOTHING, translation_mm=NOTHING, rotated_fraction=0.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(seed: int = 0, count: int = 4, **changes: Any) -> SimulatedPairs:
    return simulate_shapes(count, seeded(seed), replace(DEFAULTS, **changes), SHAPE, SPACING_MM)


def overlap(pairs: SimulatedPairs, b: int) -> float:
    grids = pairs.moving_grid, pairs.fixed_grid
    brought = resample(pairs.moving_mask[b : b + 1].float(), *grids, pairs.fixed_to_moving[b])[0] > 0.5
    return 2 * float((brought & pairs.fixed_mask[b]).sum()) / float(brought.sum() + pairs.fixed_mask[b].sum())


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1])


@pytest.fixture(scope="module")
def pairs() -> SimulatedPairs:
    return make(count=24)


@pytest.fixture(scope="module")
def aligned() -> SimulatedPairs:
    """Both images of one grid, whole: what is at a voxel of one is at that voxel of the other."""
    settings = replace(DEFAULTS, pose=STILL, deformation=STIFF, partial_fraction=0.0)
    return simulate_shapes(64, seeded(9), settings, (20, 20, 20), 4.0)


def test_same_seed_same_pairs() -> None:
    check_that_the_seed_decides(make)


def test_global_random_state_is_neither_read_nor_changed() -> None:
    check_that_global_random_state_is_left_alone(make)


def test_the_result_is_as_that_of_the_pelvis(pairs: SimulatedPairs) -> None:
    pelvis = simulate_pairs(1, seeded(0), SimulationSettings(), SHAPE, SPACING_MM)
    for name in ("fixed", "moving", "fixed_mask", "moving_mask", "surface_mm", "residual_mm"):
        mine, theirs = getattr(pairs, name), getattr(pelvis, name)
        assert (mine.shape[1:], mine.dtype) == (theirs.shape[1:], theirs.dtype)
    assert pairs.fixed_grid.shape == pelvis.fixed_grid.shape
    assert pairs.fixed_to_moving.rotation.dtype == pelvis.fixed_to_moving.rotation.dtype


def test_ranges(pairs: SimulatedPairs) -> None:
    for image in (pairs.fixed, pairs.moving):
        assert bool(((image >= 0) & (image <= 1)).all())
        assert bool((image.flatten(1).std(1) > 0.01).all())
    assert 0.3 < float(pairs.residual_mm.min()) < float(pairs.residual_mm.max()) < 7
    center = pairs.surface_mm.mean(1)
    assert float((pairs.fixed_to_moving.apply(center[:, None])[:, 0] - center).abs().max()) < 20
    determinant = torch.linalg.det(pairs.fixed_to_moving.rotation)
    assert torch.allclose(determinant, torch.ones(24), atol=1e-4)


def test_main_shapes_lie_inside_both_volumes_under_their_surface_points(pairs: SimulatedPairs) -> None:
    for body in (pairs.fixed_mask, pairs.moving_mask):
        assert body[..., 1:-1, 1:-1, 1:-1].sum() == body.sum()
        assert bool((body.flatten(1).sum(1) * SPACING_MM**3 > 5000).all())
    center = pairs.surface_mm.mean(1, keepdim=True)
    for scale, expected in ((0.75, 1.0), (1.35, 0.0)):
        index = pairs.fixed_grid.to_voxel(center + (pairs.surface_mm - center) * scale).round().long().clamp(0, 31)
        for b in range(24):
            found = pairs.fixed_mask[b, 0, index[b, :, 2], index[b, :, 1], index[b, :, 0]].float().mean()
            assert abs(float(found) - expected) < 0.08


def test_reference_is_the_least_squares_optimum() -> None:
    drawn = _draw(4, HALF_MM, seeded(0), DEFAULTS)
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


def test_without_deformation_the_rigid_answer_is_exact_mirrored_or_not() -> None:
    drawn = _draw(8, HALF_MM, seeded(2), replace(DEFAULTS, deformation=STIFF))
    assert set(torch.linalg.det(drawn.orientation).round().tolist()) == {-1.0, 1.0}
    rigid = make(2, 8, deformation=STIFF)
    assert float(rigid.residual_mm.max()) < 1e-3
    assert min(overlap(rigid, b) for b in range(8)) > 0.9


def test_with_deformation_the_main_shapes_still_overlap(pairs: SimulatedPairs) -> None:
    assert min(overlap(pairs, b) for b in range(24)) > 0.72


def test_the_two_contrasts_are_unrelated(aligned: SimulatedPairs) -> None:
    found = [correlation(aligned.fixed[b], aligned.moving[b]) for b in range(64)]
    assert abs(sum(found) / 64) < 0.15  # sd of the mean: about 0.05
    assert sum(r > 0.15 for r in found) > 12
    assert sum(r < -0.15 for r in found) > 12


def test_the_two_images_show_edges_at_the_same_places(aligned: SimulatedPairs) -> None:
    def edges(image: torch.Tensor) -> torch.Tensor:
        slopes = torch.stack(torch.gradient(image[:, 0], dim=(1, 2, 3)))
        return slopes.square().sum(0).sqrt()

    fixed, moving = edges(aligned.fixed), edges(aligned.moving)
    here = [correlation(fixed[b], moving[b]) for b in range(64)]
    elsewhere = [correlation(fixed[b], moving[b - 1]) for b in range(64)]
    assert sum(here) / 64 > 0.1 + sum(elsewhere) / 64


@pytest.fixture(scope="module")
def usual() -> SimulatedPairs:
    return make(6, 2)


@pytest.mark.parametrize("part", ["texture", "grain", "speckle", "noise", "bias", "slice_mm", "blur_mm"])
def test_each_part_changes_the_images_and_not_the_answer(part: str, usual: SimulatedPairs) -> None:
    less = make(6, 2, **{part: (9.0, 9.0) if part == "slice_mm" else NOTHING})
    assert not torch.equal(usual.fixed, less.fixed)
    assert not torch.equal(usual.moving, less.moving)
    assert torch.equal(usual.fixed_mask, less.fixed_mask)
    assert torch.equal(usual.fixed_to_moving.matrix(), less.fixed_to_moving.matrix())


def test_maps_are_monotone_or_not_as_asked() -> None:
    def monotone(fraction: float) -> torch.Tensor:
        steps = draw_curves(200, fraction, seeded(0)).diff(dim=-1)
        return (steps >= 0).all(-1) | (steps <= 0).all(-1)

    assert bool(monotone(1.0).all())
    assert float(monotone(0.0).float().mean()) < 0.05
    assert 0.3 < float(monotone(0.5).float().mean()) < 0.7
    curves = draw_curves(3, 0.5, seeded(1))
    values = torch.rand(3, 50, generator=seeded(2)) * 1.4 - 0.2
    for b in range(3):
        expected = np.interp(values[b], np.linspace(0, 1, curves.shape[1]), curves[b])
        assert np.allclose(apply_curves(values, curves)[b], expected, atol=1e-5)


def test_all_axis_orientations_occur() -> None:
    every = axis_orientations()
    assert len(every.flatten(1).unique(dim=0)) == 48
    assert torch.allclose(every @ every.mT, torch.eye(3).expand(48, 3, 3))
    drawn = draw_orientations(800, NOTHING, seeded(0))
    assert len(drawn.flatten(1).unique(dim=0)) == 48
    rotated = draw_orientations(800, (0, 25), seeded(0))
    assert torch.allclose(rotated @ rotated.mT, torch.eye(3).expand(800, 3, 3), atol=1e-5)
    assert len(rotated.flatten(1).unique(dim=0)) == 800


def test_fields_of_view_are_exactly_empty_outside_and_show_the_main_shape() -> None:
    drawn = _draw(8, HALF_MM, seeded(7), replace(DEFAULTS, partial_fraction=1.0))
    partial = make(7, 8, partial_fraction=1.0)  # eight pairs are one chunk of this grid, so that one draw repeats them
    points = partial.fixed_grid.points_mm().float().flatten(0, 2)
    for image, body, view in (
        (partial.fixed, partial.fixed_mask, drawn.fixed),
        (partial.moving, partial.moving_mask, drawn.moving),
    ):
        inside_mm = view.field.inside_mm(points)
        imaged = image.flatten(1)
        assert bool((imaged[inside_mm <= 0] == 0).all())
        assert float((imaged[inside_mm > 1] > 0).float().mean()) > 0.95
        assert float((inside_mm <= 0).float().mean()) > 0.1
        assert float((inside_mm > 0)[body.flatten(1)].float().mean()) > 0.85


def test_whole_images_have_no_empty_part() -> None:
    whole = make(7, 4, partial_fraction=0.0)
    assert float((whole.fixed > 0).float().mean()) > 0.98
    assert float((whole.moving > 0).float().mean()) > 0.98


def test_grids_may_have_three_sizes() -> None:
    pair = simulate_shapes(1, seeded(0), shape=(30, 34, 38), spacing_mm=2.5)
    assert pair.fixed.shape == pair.moving.shape == (1, 1, 30, 34, 38)


@pytest.mark.parametrize(("count", "shape"), [(0, (32, 32, 32)), (1, (20, 32, 32))])
def test_bad_requests_are_refused(count: int, shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="simulate_shapes needs"):
        simulate_shapes(count, torch.Generator(), shape=shape, spacing_mm=3.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"radius_mm": (1.0, 20.0)},
        {"radius_mm": (30.0, 20.0)},
        {"noise": (-0.1, 0.1)},
        {"bias": (0.0, float("nan"))},
        {"edge_mm": (0.0, 1.0)},
        {"density": (0.5, 1.5)},
        {"related_fraction": 1.5},
        {"pose": PoseSettings(rotated_fraction=0.5)},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ShapeSettings(**wrong)
