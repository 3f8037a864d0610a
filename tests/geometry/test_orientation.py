"""Orientation codes: they agree with nibabel's, and their rotations are those between the axes that they name."""

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossalign.errors import InputError
from crossalign.geometry import (
    Grid,
    codes_like,
    euler_to_rotation,
    orientation_code,
    orientation_rotations,
    quarter_turn,
    rotation_of_code,
)
from crossalign.geometry.orientation import code_directions, orientation_codes

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def grid_of(code: str, tilt: torch.Tensor | None = None) -> Grid:
    axes = code_directions(code) if tilt is None else tilt @ code_directions(code)
    a, b, c = (tuple(row) for row in axes.tolist())
    return Grid((4, 5, 6), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), (a, b, c))


@pytest.mark.parametrize("code", orientation_codes())
def test_codes_are_those_of_nibabel(code: str) -> None:
    grid = grid_of(code)
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ np.array(grid.direction)
    assert "".join(nibabel.aff2axcodes(affine)) == code
    assert orientation_code(grid) == code


@given(st.sampled_from(orientation_codes()), st.lists(st.floats(-0.25, 0.25), min_size=3, max_size=3))
def test_an_oblique_grid_has_the_code_of_the_nearest_axes(code: str, angles: list[float]) -> None:
    tilt = euler_to_rotation(torch.tensor(angles, dtype=torch.float64))
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ np.array(grid_of(code, tilt).direction)
    assert orientation_code(grid_of(code, tilt)) == "".join(nibabel.aff2axcodes(affine))


@given(st.sampled_from(orientation_codes()), st.integers(0, 23))
def test_the_rotation_brings_the_headers_axes_where_the_code_says(header: str, number: int) -> None:
    grid = grid_of(header)
    code = codes_like(grid)[number]
    rotation = rotation_of_code(code, grid)
    assert torch.equal(rotation @ code_directions(header), code_directions(code))
    assert torch.equal(rotation, orientation_rotations()[number])


@given(st.sampled_from(orientation_codes()))
def test_the_headers_own_code_is_believed(code: str) -> None:
    assert torch.equal(rotation_of_code(code, grid_of(code)), torch.eye(3, dtype=torch.float64))


@given(st.sampled_from(orientation_codes()))
def test_the_other_24_codes_would_mirror_the_patient(header: str) -> None:
    grid = grid_of(header)
    others = set(orientation_codes()) - set(codes_like(grid))
    assert len(others) == len(codes_like(grid)) == 24
    for code in others:
        with pytest.raises(InputError, match="would mirror the patient"):
            rotation_of_code(code, grid)


@pytest.mark.parametrize("code", ["", "LP", "LPSR", "LLS", "LRS", "lps", "XYZ", "L,P"])
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(InputError, match="is no orientation: write where the voxel axes"):
        rotation_of_code(code, grid_of("LPS"))


def test_a_quarter_turn_of_an_ras_header_is_prs() -> None:
    assert torch.equal(rotation_of_code("PRS", grid_of("RAS")), quarter_turn(3))


def test_there_are_24_rotations_the_identity_and_the_half_turns_first() -> None:
    rotations = orientation_rotations()
    assert torch.equal(rotations[0], torch.eye(3, dtype=torch.float64))
    for axis in range(3):
        half = -torch.eye(3, dtype=torch.float64)
        half[axis, axis] = 1.0
        assert torch.equal(rotations[axis + 1], half)
    assert len({tuple(one.flatten().tolist()) for one in rotations}) == 24
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(24, dtype=torch.float64))
