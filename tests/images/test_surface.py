"""Surface points on shapes whose surface is known."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.geometry.strategies import numbers, rotations

from crossalign.errors import ImageError, InputError
from crossalign.geometry import Grid, Rigid, mean_displacement_mm
from crossalign.images import SURFACE_POINTS, LabelMap, surface_points

CENTER_MM = torch.tensor([12.0, -30.0, 45.0], dtype=torch.float64)
EVERY = 10**7


def sphere(radius_mm: float, grid: Grid, center_mm: torch.Tensor = CENTER_MM) -> LabelMap:
    inside = (grid.points_mm() - center_mm).norm(dim=-1) < radius_mm
    return LabelMap(inside.long() * 3, grid)


def around(spacing_mm: tuple[float, float, float], reach_mm: float = 26.0) -> Grid:
    x, y, z = (2 * math.ceil(reach_mm / s) + 1 for s in spacing_mm)
    return Grid.centered(tuple(CENTER_MM.tolist()), (z, y, x), spacing_mm)


@given(radius_mm=st.floats(6, 24), spacing=st.tuples(*[st.floats(0.8, 3.0)] * 3), count=st.integers(1, 3000))
def test_sphere(radius_mm: float, spacing: tuple[float, float, float], count: int) -> None:
    points = surface_points(sphere(radius_mm, around(spacing)), count)
    assert 1 <= len(points) <= count
    assert points.dtype == torch.float64
    distance = (points - CENTER_MM).norm(dim=-1)
    assert float((distance - radius_mm).abs().max()) <= max(spacing)
    if count >= 500:
        assert float((points.mean(0) - CENTER_MM).abs().max()) < 0.05 * radius_mm
        assert abs(float(distance.mean()) - radius_mm) < max(spacing) / 2


def test_sphere_is_covered_evenly() -> None:
    points = surface_points(sphere(20.0, around((1.0, 1.0, 1.0))))
    assert len(points) == SURFACE_POINTS
    offsets = (points - CENTER_MM) / 20.0
    octants = ((offsets > 0).long() * torch.tensor([1, 2, 4])).sum(-1).bincount(minlength=8)
    assert int(octants.min()) > 0.75 * SURFACE_POINTS / 8
    for axis in range(3):  # on a sphere a coordinate is spread evenly over [-1, 1] (Archimedes)
        bands = torch.histc(offsets[:, axis], bins=5, min=-1, max=1)
        assert float(bands.min()) > 0.7 * SURFACE_POINTS / 5
        assert float(bands.max()) < 1.4 * SURFACE_POINTS / 5
    nearest = torch.cdist(points, points).fill_diagonal_(math.inf).amin(1)
    assert float(nearest.max()) < 5  # 20 mm radius, 1024 points: 2.2 mm apart where they lie evenly
    assert len(points.unique(dim=0)) == len(points)


@given(
    radius_mm=st.floats(12, 24),
    spacing=st.tuples(*[st.floats(0.8, 2.0)] * 3),
    parameters=st.tuples(*[st.floats(-8, 8)] * 6),
)
def test_sre_over_few_points_is_that_over_all(
    radius_mm: float, spacing: tuple[float, float, float], parameters: tuple[float, ...]
) -> None:
    mask = sphere(radius_mm, around(spacing))
    motion = Rigid.from_parameters(torch.tensor(parameters, dtype=torch.float64), CENTER_MM + 3)
    few, every = (float(mean_displacement_mm(motion, Rigid.identity(), surface_points(mask, n))) for n in (1024, EVERY))
    assert few == pytest.approx(every, abs=0.1, rel=0.02)


def test_deterministic() -> None:
    mask = sphere(15.0, around((1.0, 1.5, 2.0)))
    state = torch.get_rng_state()
    assert torch.equal(surface_points(mask), surface_points(mask))
    assert torch.equal(state, torch.get_rng_state())


AXES = [(order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((0, 1), repeat=3)]


def stored_otherwise(mask: LabelMap, order: tuple[int, ...], flips: tuple[int, ...]) -> LabelMap:
    """Store the same mask with its voxel axes (z, y, x) in another order, some of them backwards."""
    flipped = [axis for axis in range(3) if flips[axis]]
    labels = mask.labels.permute(order).flip(flipped)
    matrix = mask.grid.voxel_to_physical()
    columns = [matrix[:3, 2 - order[axis]] * (-1 if flips[axis] else 1) for axis in (2, 1, 0)]
    first = torch.tensor([float(mask.labels.shape[order[axis]] - 1) if flips[axis] else 0.0 for axis in range(3)])
    index = torch.zeros(3, dtype=torch.float64)
    for axis in range(3):
        index[2 - order[axis]] = first[axis]
    spacing = tuple(float(column.norm()) for column in columns)
    rows = torch.stack([c / c.norm() for c in columns], dim=1).tolist()
    origin = tuple(mask.grid.to_physical(index[None])[0].tolist())
    direction = (tuple(rows[0]), tuple(rows[1]), tuple(rows[2]))
    return LabelMap(labels.contiguous(), Grid(tuple(labels.shape), spacing, origin, direction))  # type: ignore[arg-type]


def in_order(points: torch.Tensor) -> torch.Tensor:
    return torch.tensor(sorted([round(v, 6) for v in row] for row in points.tolist()), dtype=torch.float64)


@pytest.mark.parametrize(("order", "flips"), AXES)
def test_same_points_however_the_mask_is_stored(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    grid = Grid((9, 10, 11), (1.0, 1.5, 2.0), (3.0, 4.0, 5.0))
    mask = sphere(5.0, grid, torch.tensor([11.0, 10.0, 9.0], dtype=torch.float64))
    mask.labels[2, 3, 4] = 1  # and something lopsided
    other = stored_otherwise(mask, order, flips)
    torch.testing.assert_close(other.centroid_mm(), mask.centroid_mm())
    torch.testing.assert_close(in_order(surface_points(other, EVERY)), in_order(surface_points(mask, EVERY)))


@pytest.mark.parametrize(("order", "flips"), AXES[::7])
def test_sre_hardly_depends_on_how_the_mask_is_stored(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    """Rounding may put two neighbours in another order, which may keep the one in place of the other: no more."""
    mask = sphere(20.0, around((1.0, 1.0, 1.0)))
    motion = Rigid.from_parameters(torch.tensor([2.0, -4, 5, 10, -8, 6], dtype=torch.float64), CENTER_MM + 5)
    mine, other = (
        float(mean_displacement_mm(motion, Rigid.identity(), surface_points(m)))
        for m in (mask, stored_otherwise(mask, order, flips))
    )
    assert mine == pytest.approx(other, abs=1e-3)


@given(turn=rotations(), x=numbers(-100, 100))
def test_points_turn_with_the_grid(turn: torch.Tensor, x: float) -> None:
    plain = around((1.5, 2.0, 2.5), 12.0)
    mask = sphere(9.0, plain)
    rows = turn.tolist()
    direction = (tuple(rows[0]), tuple(rows[1]), tuple(rows[2]))
    motion = Rigid(turn, torch.tensor([x, 5.0, -7.0], dtype=torch.float64))
    origin = tuple(motion.apply(torch.tensor([plain.origin_mm], dtype=torch.float64))[0].tolist())
    turned = LabelMap(mask.labels, Grid(plain.shape, plain.spacing_mm, origin, direction))
    expected, got = motion.apply(surface_points(mask, EVERY)), surface_points(turned, EVERY)
    assert got.shape == expected.shape
    assert float(torch.cdist(got, expected).amin(1).max()) < 1e-3  # cdist's own rounding is about 1e-5


def test_a_box_has_its_six_faces() -> None:
    grid = Grid((6, 7, 8), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0))
    labels = torch.zeros(grid.shape, dtype=torch.int64)
    labels[1:3, 2:5, 3:7] = 1  # 2 x 3 x 4 voxels
    points = surface_points(LabelMap(labels, grid), EVERY)
    assert len(points) == 2 * (2 * 3 + 2 * 4 + 3 * 4)
    assert points.amin(0).tolist() == [2.5, 3.0, 1.5]  # x, y, z of the first faces: (2.5 x 1, 1.5 x 2, 0.5 x 3) mm
    assert points.amax(0).tolist() == [6.5, 9.0, 7.5]


def test_a_mask_that_fills_the_image_still_has_points() -> None:
    grid = Grid((3, 4, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    points = surface_points(LabelMap(torch.ones(grid.shape, dtype=torch.int64), grid))
    assert len(points) == 60


def test_refusals() -> None:
    grid = Grid((3, 4, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    with pytest.raises(ImageError, match="mask is empty"):
        surface_points(LabelMap(torch.zeros(grid.shape, dtype=torch.int64), grid))
    with pytest.raises(InputError, match="1 surface point or more"):
        surface_points(LabelMap(torch.ones(grid.shape, dtype=torch.int64), grid), 0)
