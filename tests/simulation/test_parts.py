"""Each part of the simulator can be left out and changes what it should alone; fast paths agree with slow ones."""

from dataclasses import FrozenInstanceError, replace
from typing import Any, TypeVar

import pytest
import torch

from crossalign.errors import InputError
from crossalign.simulation import (
    AnatomySettings,
    DeformationSettings,
    MRSettings,
    PoseSettings,
    SimulatedPairs,
    SimulationSettings,
    UltrasoundSettings,
    simulate_pairs,
)
from crossalign.simulation.deformation import draw_deformation
from crossalign.simulation.ellipsoids import EllipsoidSampler, memberships
from crossalign.simulation.pairs import control_points
from crossalign.simulation.pelvis.anatomy import draw_anatomy, draw_gland_shape, gland_membership
from crossalign.simulation.pelvis.pairs import DEFAULTS, _draw, _to_fixed_patient
from crossalign.simulation.pelvis.probe import Sector
from crossalign.simulation.pelvis.surroundings import pelvic_wall
from crossalign.simulation.random_fields import blur_matrices, from_control_points, slice_matrices

SHAPE, SPACING_MM = (32, 32, 32), 4.0
NOTHING = (0.0, 0.0)
S = TypeVar("S", AnatomySettings, DeformationSettings, MRSettings, UltrasoundSettings)


def with_part(settings: S, part: str, value: object) -> S:
    changed: dict[str, Any] = {part: value}
    return replace(settings, **changed)


def make(settings: SimulationSettings) -> SimulatedPairs:
    return simulate_pairs(8, torch.Generator().manual_seed(7), settings, SHAPE, SPACING_MM)


@pytest.fixture(scope="module")
def usual() -> SimulatedPairs:
    return make(DEFAULTS)


@pytest.mark.parametrize("part", ["nodules", "lesions", "cysts", "calcifications", "surroundings"])
def test_anatomy_parts_change_both_scans_and_not_the_answer(part: str, usual: SimulatedPairs) -> None:
    changed = make(SimulationSettings(anatomy=with_part(AnatomySettings(), part, False)))
    assert not torch.equal(changed.fixed, usual.fixed)
    assert not torch.equal(changed.moving, usual.moving)
    assert torch.equal(changed.fixed_mask, usual.fixed_mask)
    assert torch.equal(changed.fixed_to_moving.matrix(), usual.fixed_to_moving.matrix())


@pytest.mark.parametrize(
    ("part", "off"),
    [
        ("random_contrast_fraction", 1.0),
        ("contrast_jitter", NOTHING),
        ("zones", NOTHING),
        ("texture", NOTHING),
        ("bias", NOTHING),
        ("noise", NOTHING),
        ("slice_mm", (9.0, 9.0)),
        ("blur_mm", NOTHING),
        ("crop", False),
    ],
)
def test_mr_parts_change_the_fixed_scan_alone(part: str, off: object, usual: SimulatedPairs) -> None:
    changed = make(SimulationSettings(mr=with_part(MRSettings(), part, off)))
    assert not torch.equal(changed.fixed, usual.fixed)
    assert torch.equal(changed.moving, usual.moving)
    assert torch.equal(changed.fixed_mask, usual.fixed_mask)


@pytest.mark.parametrize(
    ("part", "off"),
    [
        ("end_fire_fraction", 1.0),
        ("random_contrast_fraction", 0.0),
        ("half_angle_deg", (60.0, 60.0)),
        ("speckle", NOTHING),
        ("texture", NOTHING),
        ("reflection", NOTHING),
        ("attenuation_per_mm", NOTHING),
        ("lateral_shading", NOTHING),
        ("blur_mm", NOTHING),
        ("edge_mm", (0.1, 0.1)),
        ("gap_fraction", 1.0),
        ("gap_mm", (4.0, 4.0)),
        ("side_mm", NOTHING),
        ("along_mm", NOTHING),
        ("box_width_mm", (70.0, 70.0)),
        ("box_depth_mm", (50.0, 50.0)),
        ("box_length_mm", (50.0, 50.0)),
        ("sweep", NOTHING),
        ("focus", NOTHING),
        ("near_fade", NOTHING),
        ("brighter_near", (0.9, 0.9)),
        ("darker_far", (0.9, 0.9)),
        ("zones", NOTHING),
        ("shadows", False),
        ("sector", False),
        ("crop", False),
        ("quantised", False),
    ],
)
def test_ultrasound_parts_change_the_moving_scan_alone(part: str, off: object, usual: SimulatedPairs) -> None:
    changed = make(SimulationSettings(ultrasound=with_part(UltrasoundSettings(), part, off)))
    assert not torch.equal(changed.moving, usual.moving)
    assert torch.equal(changed.fixed, usual.fixed)
    assert torch.equal(changed.moving_mask, usual.moving_mask)


@pytest.mark.parametrize("part", ["wave_mm", "push_mm", "stretch_x", "stretch_y", "stretch_z", "wrap_mm"])
def test_each_deformation_leaves_a_residual_of_its_own(part: str, usual: SimulatedPairs) -> None:
    less = make(SimulationSettings(deformation=with_part(DeformationSettings(), part, NOTHING)))
    assert torch.equal(less.fixed, usual.fixed)
    assert bool((less.residual_mm != usual.residual_mm).all())


def test_moving_is_exactly_zero_outside_the_sector() -> None:
    settings = SimulationSettings(ultrasound=UltrasoundSettings(crop=False))
    pairs = make(settings)
    # Eight pairs are one chunk of this grid, so that one draw repeats them.
    drawn = _draw(8, torch.tensor(pairs.fixed_grid.extent_mm()) / 2, torch.Generator().manual_seed(7), settings)
    points = pairs.moving_grid.points_mm().float().flatten(0, 2).expand(8, -1, 3)
    inside_mm = drawn.sector.moving_to_beam(points)[1]
    moving = pairs.moving.flatten(1)
    assert bool((moving[inside_mm <= 0] == 0).all())
    assert float((moving[inside_mm > 3] > 0).float().mean()) > 0.9
    assert 0.2 < float((inside_mm <= 0).float().mean()) < 0.97


def test_it_is_brighter_above_and_below_the_back_of_the_gland_and_the_same_at_its_height() -> None:
    plain = UltrasoundSettings(
        end_fire_fraction=0.0, brighter_near=NOTHING, darker_far=NOTHING, quantised=False, blur_mm=NOTHING, crop=False
    )
    without = make(SimulationSettings(ultrasound=plain))
    changed = make(SimulationSettings(ultrasound=replace(plain, brighter_near=(0.8, 0.8))))
    points = without.moving_grid.points_mm().float()
    for k in range(len(without.moving)):
        gland = points[without.moving_mask[k, 0]]
        low, high, back = gland[:, 2].amin(), gland[:, 2].amax(), gland[:, 1].amax()
        height = (points[..., 2] - (low + high) / 2) / ((high - low) / 2)
        imaged = (without.moving[k, 0] > 0.05) & (changed.moving[k, 0] < 0.98) & ((points[..., 1] - back).abs() < 5)
        times = changed.moving[k, 0] / without.moving[k, 0]
        assert 0.99 < float(times[imaged & (height.abs() < 0.3)].mean()) < 1.1
        for beyond in (height, -height):
            part = imaged & (beyond > 1.1) & (beyond < 1.6)
            if int(part.sum()) > 30:
                assert float(times[part].mean()) > 1.12


def test_most_of_the_gland_is_seen(usual: SimulatedPairs) -> None:
    assert float((usual.moving[usual.moving_mask] > 0).float().mean()) > 0.8


def test_quantised_scans_have_at_most_256_levels(usual: SimulatedPairs) -> None:
    levels = usual.moving * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3)


def test_beams_and_points_are_inverse() -> None:
    drawn = _draw(8, torch.tensor([56.0, 56.0, 56.0]), torch.Generator().manual_seed(1), DEFAULTS)
    sector: Sector = drawn.sector
    unit = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    back, inside_mm = sector.moving_to_beam(sector.beam_to_moving(unit))
    assert float((back - unit).abs().max()) < 2e-3
    assert bool((inside_mm > 0).all())


def test_deformation_has_an_inverse_and_does_not_fold() -> None:
    axes = torch.tensor([[26.0, 22.0, 22.0]]).expand(16, 3)
    deformation = draw_deformation(axes, DeformationSettings(), torch.Generator().manual_seed(0))
    points = torch.rand(16, 100, 3, generator=torch.Generator().manual_seed(1)) * 80 - 40
    assert float((deformation.apply(deformation.invert(points)) - points).abs().max()) < 1e-2
    steps = torch.eye(3) * 0.1
    columns = [(deformation.apply(points + s) - deformation.apply(points - s)) / 0.2 for s in steps]
    grown = torch.linalg.det(torch.stack(columns, -1))
    assert float(grown.min()) > 0.1


def test_a_wrapped_gland_has_a_hollow_back_and_horns() -> None:
    settings = DeformationSettings(
        wave_mm=NOTHING,
        push_mm=NOTHING,
        stretch_x=NOTHING,
        stretch_y=NOTHING,
        stretch_z=NOTHING,
        wrap_mm=(10.0, 10.0),
    )
    deformation = draw_deformation(torch.tensor([[26.0, 22.0, 22.0]]), settings, torch.Generator().manual_seed(0))
    back = torch.tensor([[[0.0, 22.0, 0.0], [24.0, 20.0, 0.0], [0.0, -40.0, 0.0]]])
    moved = (deformation.invert(back) - back)[0]
    assert -3.1 < float(moved[0, 1]) < -2.5  # the middle of the back towards the front
    assert 1.5 < float(moved[1, 1]) < 5.0  # its sides towards the probe
    assert float(moved[2].norm()) < 0.3  # far in front nothing moves
    assert torch.equal(moved[:, [0, 2]], torch.zeros(3, 2))


def test_glands_narrow_to_the_apex_and_have_a_hollow_back() -> None:
    axes = torch.tensor([[26.0, 22.0, 24.0]])
    settings = AnatomySettings(
        asymmetry_mm=NOTHING, taper_x=(0.3, 0.3), taper_y=(0.2, 0.2), barrel=(0.5, 0.5), hollow=(0.4, 0.4), lean=NOTHING
    )
    shape = draw_gland_shape(axes, settings, torch.Generator().manual_seed(0))

    def half_width(height_mm: float) -> float:
        across = torch.linspace(0, 40, 401)
        line = torch.stack((across, torch.zeros(401), torch.full((401,), height_mm)))[None]
        return float(across[(shape.radius(shape.apply(line.mT).mT) < 1)[0]].max())

    assert half_width(12.0) > half_width(-12.0) > half_width(-20.0) > 0
    back = torch.tensor([[[0.0, 20.0, 0.0], [16.0, 16.0, 0.0], [0.0, -21.0, 0.0]]])
    plain = (back / axes).square().sum(-1)
    hollowed_radius = shape.radius(shape.apply(back).mT)
    assert bool((plain < 1).all())
    assert float(hollowed_radius[0, 0]) > 1 > float(hollowed_radius[0, 1])
    assert float(hollowed_radius[0, 2]) < 1
    level = gland_membership(shape, back.mT)
    assert torch.equal(level > 0.5, hollowed_radius < 1)


def test_the_surface_lies_where_the_gland_ends() -> None:
    anatomy = draw_anatomy(6, 40.0, AnatomySettings(), torch.Generator().manual_seed(4))
    surface = anatomy.surface_mm()
    radius = anatomy.shape.radius(anatomy.shape.apply(surface).mT)
    assert float((radius - 1).abs().max()) < 1e-3


def test_the_pelvic_wall_is_a_funnel_that_opens_upwards() -> None:
    axes = torch.tensor([[26.0, 22.0, 24.0]]).expand(8, 3)
    rows = pelvic_wall(EllipsoidSampler(axes, torch.Generator().manual_seed(0)))
    across = torch.linspace(0, 80, 161)

    def inner_width(height_mm: float) -> torch.Tensor:
        line = torch.stack((across, torch.zeros(161), torch.full((161,), height_mm))).expand(8, 3, 161)
        return (memberships(rows, line)[:, 0] < 0.5).sum(-1) * 0.5

    low, middle, high = inner_width(-15.0), inner_width(0.0), inner_width(20.0)
    assert bool(((low < middle) & (middle < high)).all())
    assert 20 < float(middle.min()) < float(middle.max()) < 36


def test_interpolation_between_control_points_agrees_with_the_map_itself() -> None:
    generator = torch.Generator().manual_seed(3)
    grid = simulate_pairs(1, generator, shape=(32, 32, 32), spacing_mm=3.5).moving_grid
    drawn = _draw(4, torch.tensor(grid.extent_mm()) / 2, generator, DEFAULTS)
    shape = drawn.anatomy.shape
    few = shape.apply(_to_fixed_patient(control_points(grid, drawn.surface_mm), drawn))
    every = shape.apply(_to_fixed_patient(grid.points_mm().float().flatten(0, 2).expand(4, -1, 3), drawn))
    fast = from_control_points(few.mT, grid.shape)
    slow = every.mT.view_as(fast)
    error = (fast - slow).norm(dim=1).flatten(1)
    assert float(error.square().mean().sqrt()) < 0.08
    assert float(error.max()) < 1.0


def test_blur_and_slices_keep_a_constant() -> None:
    one = torch.ones(2, 40, 1)
    assert torch.allclose(blur_matrices(40, torch.tensor([0.0, 3.0])) @ one, one, atol=1e-5)
    assert torch.allclose(slice_matrices(40, torch.tensor([1.0, 3.7]), torch.tensor([0.0, 0.9])) @ one, one, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (AnatomySettings, {"volume_ml": (50.0, 20.0)}),
        (AnatomySettings, {"volume_ml": (1.0, 20.0)}),
        (AnatomySettings, {"asymmetry_mm": (-1.0, 2.0)}),
        (AnatomySettings, {"barrel": (0.5, 0.4)}),
        (PoseSettings, {"rotated_fraction": 1.5}),
        (PoseSettings, {"rotation_deg": (0.0, float("nan"))}),
        (DeformationSettings, {"wavelength_mm": (10.0, 20.0)}),
        (DeformationSettings, {"push_mm": (0.0, 40.0)}),
        (MRSettings, {"noise": (0.2, 0.1)}),
        (UltrasoundSettings, {"half_angle_deg": (5.0, 100.0)}),
        (UltrasoundSettings, {"edge_mm": (0.0, 1.0)}),
        (UltrasoundSettings, {"gap_fraction": -0.1}),
    ],
)
def test_wrong_settings_are_refused(kind: type, wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        kind(**wrong)


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        DEFAULTS.mr = MRSettings()  # type: ignore[misc]
