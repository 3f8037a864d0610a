import pytest
import torch
from hypothesis import given
from tests.geometry.strategies import grids, rigids

from crossalign.geometry import Grid, Rigid, grid_overlap, inside_fraction

CUBE = Grid.centered((0.0, 0.0, 0.0), (20, 20, 20), (2.0, 2.0, 2.0))


def shifted(x: float) -> Rigid:
    return Rigid.from_translation(torch.tensor([x, 0.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize(("x", "fraction"), [(0.0, 1.0), (10.0, 0.75), (20.0, 0.5), (39.9, 0.0), (100.0, 0.0)])
def test_a_shifted_cube_overlaps_by_what_is_left(x: float, fraction: float) -> None:
    assert grid_overlap(CUBE, CUBE, shifted(x)) == pytest.approx(fraction, abs=0.05)


def test_a_slab_inside_is_all_overlap_from_either_side() -> None:
    slab = Grid.centered((0.0, 0.0, 8.0), (3, 12, 12), (2.0, 2.0, 2.0))
    assert grid_overlap(CUBE, slab) == 1.0
    assert grid_overlap(slab, CUBE) == 1.0


@given(grids(), grids(), rigids())
def test_the_order_of_the_two_does_not_matter(a: Grid, b: Grid, a_to_b: Rigid) -> None:
    fraction = grid_overlap(a, b, a_to_b)
    assert 0 <= fraction <= 1
    assert grid_overlap(b, a, a_to_b.inverse()) == pytest.approx(
        fraction, abs=0.01
    )  # points on a face may go either way


@given(grids())
def test_voxels_reach_to_their_faces(grid: Grid) -> None:
    assert inside_fraction(grid.corners_mm(), grid) == 1.0
    assert grid_overlap(grid, grid) == 1.0
