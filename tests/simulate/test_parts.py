"""Each part of the simulator can be left out and changes what it should alone; fast paths agree with slow ones."""

from dataclasses import FrozenInstanceError, replace
from typing import Any, TypeVar

import pytest
import torch

from crossalign.errors import InputError
from crossalign.simulate import (
    AnatomySettings,
    DeformationSettings,
    MRSettings,
    PoseSettings,
    SimulatedPairs,
    SimulationSettings,
    UltrasoundSettings,
    simulate_pairs,
)
from crossalign.simulate.deformation import Probe, draw_deformation
from crossalign.simulate.lattice import blur_matrices, from_nodes, slice_matrices
from crossalign.simulate.pair import DEFAULTS, _draw, _to_anatomy, lattice_nodes
from crossalign.simulate.sector import Sector

SHAPE, SPACING_MM = (32, 32, 32), 3.0
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
    assert torch.equal(changed.fixed_gland, usual.fixed_gland)
    assert torch.equal(changed.fixed_to_moving.matrix(), usual.fixed_to_moving.matrix())


@pytest.mark.parametrize(
    ("part", "off"),
    [
        ("random_contrast_share", 1.0),
        ("contrast_jitter", NOTHING),
        ("zones", NOTHING),
        ("texture", NOTHING),
        ("bias", NOTHING),
        ("noise", NOTHING),
        ("slice_mm", NOTHING),
        ("blur_mm", NOTHING),
        ("crop", False),
    ],
)
def test_mr_parts_change_the_fixed_scan_alone(part: str, off: object, usual: SimulatedPairs) -> None:
    changed = make(SimulationSettings(mr=with_part(MRSettings(), part, off)))
    assert not torch.equal(changed.fixed, usual.fixed)
    assert torch.equal(changed.moving, usual.moving)
    assert torch.equal(changed.fixed_gland, usual.fixed_gland)


@pytest.mark.parametrize(
    ("part", "off"),
    [
        ("end_fire_share", 0.0),
        ("random_contrast_share", 0.0),
        ("half_angle_deg", (60.0, 60.0)),
        ("speckle", NOTHING),
        ("texture", NOTHING),
        ("reflection", NOTHING),
        ("attenuation_per_mm", NOTHING),
        ("lateral_shading", NOTHING),
        ("blur_mm", NOTHING),
        ("edge_mm", (0.1, 0.1)),
        ("gap_share", 1.0),
        ("gap_mm", (4.0, 4.0)),
        ("focus", NOTHING),
        ("near_fade_mm", NOTHING),
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
    assert torch.equal(changed.moving_gland, usual.moving_gland)


@pytest.mark.parametrize("part", ["wave_mm", "push_mm", "squeeze", "swelling"])
def test_each_deformation_leaves_a_residual_of_its_own(part: str, usual: SimulatedPairs) -> None:
    less = make(SimulationSettings(deformation=with_part(DeformationSettings(), part, NOTHING)))
    assert torch.equal(less.fixed, usual.fixed)
    assert bool((less.residual_mm != usual.residual_mm).all())


def test_moving_is_exactly_zero_outside_the_sector() -> None:
    settings = SimulationSettings(ultrasound=UltrasoundSettings(crop=False))
    pairs = make(settings)
    # Eight pairs are one chunk of this lattice, so that one draw repeats them.
    drawn = _draw(8, torch.tensor(pairs.fixed_grid.extent_mm()) / 2, settings, torch.Generator().manual_seed(7))
    points = pairs.moving_grid.points_mm().float().flatten(0, 2).expand(8, -1, 3)
    inside_mm = drawn.sector.moving_to_beam(points)[1]
    moving = pairs.moving.flatten(1)
    assert bool((moving[inside_mm <= 0] == 0).all())
    assert float((moving[inside_mm > 3] > 0).float().mean()) > 0.9
    assert 0.2 < float((inside_mm <= 0).float().mean()) < 0.97


def test_most_of_the_gland_is_seen(usual: SimulatedPairs) -> None:
    assert float((usual.moving[usual.moving_gland] > 0).float().mean()) > 0.8


def test_quantised_scans_have_at_most_256_levels(usual: SimulatedPairs) -> None:
    levels = usual.moving * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3)


def test_beams_and_points_are_inverse() -> None:
    drawn = _draw(8, torch.tensor([56.0, 56.0, 56.0]), DEFAULTS, torch.Generator().manual_seed(1))
    sector: Sector = drawn.sector
    unit = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    back, inside_mm = sector.moving_to_beam(sector.beam_to_moving(unit))
    assert float((back - unit).abs().max()) < 2e-3
    assert bool((inside_mm > 0).all())


def test_deformation_has_an_inverse_and_does_not_fold() -> None:
    axes = torch.tensor([[26.0, 22.0, 22.0]]).expand(16, 3)
    deformation = draw_deformation(axes, DeformationSettings(probe_share=0.8), torch.Generator().manual_seed(0))
    points = torch.rand(16, 100, 3, generator=torch.Generator().manual_seed(1)) * 80 - 40
    assert float((deformation.apply(deformation.invert(points)) - points).abs().max()) < 1e-2
    steps = torch.eye(3) * 0.1
    columns = [(deformation.apply(points + s) - deformation.apply(points - s)) / 0.2 for s in steps]
    grown = torch.linalg.det(torch.stack(columns, -1))
    assert float(grown[outside_probe(deformation.probe, points)].min()) > 0.1
    assert float(grown.min()) > 0


def test_a_probe_pushes_tissue_aside_and_leaves_what_is_far() -> None:
    probe = Probe(torch.tensor([10.0, 0.0]), torch.tensor([[0.0, 30.0], [0.0, 30.0]]))
    points = torch.tensor([[0.0, 25.0, 3.0], [0.0, -30.0, 0.0]]).expand(2, 2, 3)
    pushed = probe.open(points)
    torch.testing.assert_close(probe.close(pushed), points, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(pushed[1], points[1])
    moved = (pushed - points)[0, :, 1]
    assert -5 < float(moved[0]) < -2  # towards the front, away from the axis
    assert -1 < float(moved[1]) < -0.5
    assert torch.equal(pushed[..., 2], points[..., 2])


def outside_probe(probe: Probe, points_mm: torch.Tensor) -> torch.Tensor:
    return (points_mm[..., :2] - probe.axis_mm[:, None]).norm(dim=-1) > probe.radius_mm[:, None]


def test_node_interpolation_agrees_with_the_map_itself() -> None:
    generator = torch.Generator().manual_seed(3)
    grid = simulate_pairs(1, generator, shape=(32, 32, 32), spacing_mm=3.5).moving_grid
    probing = replace(DEFAULTS, deformation=DeformationSettings(probe_share=0.8))
    drawn = _draw(4, torch.tensor(grid.extent_mm()) / 2, probing, generator)
    nodes = _to_anatomy(lattice_nodes(grid, drawn.surface_mm), drawn)
    fast = from_nodes(nodes.mT, grid.shape)
    slow = _to_anatomy(grid.points_mm().float().flatten(0, 2).expand(4, -1, 3), drawn).mT.view_as(fast)
    error = (fast - slow).norm(dim=1).flatten(1)
    patient = drawn.poses.patient_to_moving.inverse().apply(grid.points_mm().float().flatten(0, 2).expand(4, -1, 3))
    seen = error[outside_probe(drawn.deformation.probe, patient)]
    assert float(seen.square().mean().sqrt()) < 0.08
    assert float(seen.max()) < 1.0


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
        (PoseSettings, {"turned_share": 1.5}),
        (PoseSettings, {"rotation_deg": (0.0, float("nan"))}),
        (DeformationSettings, {"wavelength_mm": (10.0, 20.0)}),
        (DeformationSettings, {"push_mm": (0.0, 40.0)}),
        (MRSettings, {"noise": (0.2, 0.1)}),
        (UltrasoundSettings, {"half_angle_deg": (5.0, 100.0)}),
        (UltrasoundSettings, {"edge_mm": (0.0, 1.0)}),
        (UltrasoundSettings, {"gap_share": -0.1}),
    ],
)
def test_wrong_settings_are_refused(kind: type, wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{kind.__name__}"):
        kind(**wrong)


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        DEFAULTS.mr = MRSettings()  # type: ignore[misc]
