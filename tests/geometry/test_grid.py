"""Grid: one lattice, any orientation; voxel and physical frames are each other's inverse."""

import dataclasses

import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.geometry.strategies import grids, numbers, triples

from crossalign.errors import InputError
from crossalign.geometry import Grid


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-8) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@given(grids(), st.lists(triples(-20, 20), min_size=1, max_size=5))
def test_voxel_to_physical_and_back_is_the_identity(grid: Grid, points: list[tuple[float, float, float]]) -> None:
    points_voxel = torch.tensor(points, dtype=torch.float64)
    close(grid.to_voxel(grid.to_physical(points_voxel)), points_voxel)
    close(grid.physical_to_voxel() @ grid.voxel_to_physical(), torch.eye(4, dtype=torch.float64))


@given(grids())
def test_the_origin_is_voxel_zero_and_a_step_is_one_spacing(grid: Grid) -> None:
    zero_and_units = torch.cat((torch.zeros(1, 3), torch.eye(3))).double()
    points_mm = grid.to_physical(zero_and_units)
    close(points_mm[0], torch.tensor(grid.origin_mm, dtype=torch.float64))
    steps_mm = points_mm[1:] - points_mm[0]
    close(steps_mm.norm(dim=-1), torch.tensor(grid.spacing_mm, dtype=torch.float64))
    close(steps_mm.T / steps_mm.norm(dim=-1), torch.tensor(grid.direction, dtype=torch.float64))


@given(grids())
def test_the_lattice_agrees_with_simpleitk(grid: Grid) -> None:
    image = sitk.Image([*grid.shape[::-1]], sitk.sitkUInt8)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    image.SetDirection([value for row in grid.direction for value in row])
    z, y, x = (size - 1 for size in grid.shape)
    theirs = torch.tensor(image.TransformIndexToPhysicalPoint((x, y, z)), dtype=torch.float64)
    close(grid.points_mm()[z, y, x], theirs)
    middle = image.TransformContinuousIndexToPhysicalPoint((x / 2, y / 2, z / 2))
    close(grid.center_mm(), torch.tensor(middle, dtype=torch.float64))


@given(grids(most=6))
def test_points_corners_and_center_agree(grid: Grid) -> None:
    points_mm = grid.points_mm()
    assert points_mm.shape == (*grid.shape, 3)
    close(points_mm, grid.to_physical(grid.points_voxel()))
    corners = points_mm[[0, -1]][:, [0, -1]][:, :, [0, -1]].reshape(8, 3)
    assert torch.cdist(corners, grid.corners_mm()).amin(1).max() < 1e-5
    close(points_mm.reshape(-1, 3).mean(0), grid.center_mm())


@given(grids(), triples(0.3, 6.0), numbers(0, 10))
def test_covering_really_covers(grid: Grid, spacing_mm: tuple[float, float, float], margin_mm: float) -> None:
    cover = grid.covering(spacing_mm, margin_mm)
    assert cover.spacing_mm == spacing_mm
    assert cover.direction == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    low, high = cover.corners_mm().amin(0), cover.corners_mm().amax(0)
    points_mm = grid.points_mm().reshape(-1, 3)
    slack_mm = 1e-5 * max(spacing_mm)
    assert (points_mm.amin(0) - margin_mm - low).min() >= -slack_mm
    assert (high - points_mm.amax(0) - margin_mm).min() >= -slack_mm
    spare_mm = (high - low) - (points_mm.amax(0) - points_mm.amin(0)) - 2 * margin_mm
    assert (spare_mm <= torch.tensor(spacing_mm, dtype=torch.float64) + 1e-6).all(), "no more than one voxel to spare"


@given(triples(-100, 100), st.tuples(*[st.integers(1, 9)] * 3), triples(0.3, 4))
def test_a_centered_grid_has_its_middle_there(
    center_mm: tuple[float, float, float], shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    grid = Grid.centered(center_mm, shape, spacing_mm)
    close(grid.center_mm(), torch.tensor(center_mm, dtype=torch.float64))
    assert grid.extent_mm() == tuple(n * s for n, s in zip(shape[::-1], spacing_mm, strict=True))


@given(grids(), numbers(0.0, 0.05))
def test_grids_agree_within_the_tolerance_only(grid: Grid, shift_mm: float) -> None:
    x, y, z = grid.origin_mm
    moved = dataclasses.replace(grid, origin_mm=(x + shift_mm, y, z))
    assert grid.agrees_with(grid)
    if abs(shift_mm - 0.01) > 1e-6:
        assert grid.agrees_with(moved) == moved.agrees_with(grid) == (shift_mm < 0.01)
    longer = dataclasses.replace(grid, shape=(grid.shape[0] + 1, *grid.shape[1:]))
    assert not grid.agrees_with(longer)


def test_coordinates_stay_in_double_precision() -> None:
    grid = Grid((2, 2, 1001), (0.7, 0.7, 0.7), (0.0, 0.0, 0.0))
    close(grid.points_mm()[0, 0, 1000], torch.tensor([700.0, 0.0, 0.0], dtype=torch.float64), atol=1e-10)


def test_points_keep_their_precision() -> None:
    grid = Grid((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    assert grid.to_physical(torch.zeros(1, 3)).dtype == torch.float32
    assert grid.to_voxel(torch.zeros(1, 3, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"shape": (0, 2, 2)}, "1 or more"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "positive spacing"),
        ({"spacing_mm": (1.0, float("nan"), 1.0)}, "positive spacing"),
        ({"origin_mm": (float("inf"), 0.0, 0.0)}, "finite origin"),
        ({"direction": ((1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 1.0))}, "orthonormal"),
        ({"direction": ((1.0, 0.0, 0.0), (0.1, 1.0, 0.0), (0.0, 0.0, 1.0))}, "orthonormal"),
        ({"direction": ((float("nan"), 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))}, "orthonormal"),
    ],
)
def test_impossible_grids_are_refused(fault: dict[str, object], message: str) -> None:
    sound: dict[str, object] = {"shape": (2, 2, 2), "spacing_mm": (1.0, 1.0, 1.0), "origin_mm": (0.0, 0.0, 0.0)}
    with pytest.raises(InputError, match=message):
        Grid(**(sound | fault))  # type: ignore[arg-type]
