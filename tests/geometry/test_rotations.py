"""Euler angles: about the static axes x, then y, then z."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from tests.geometry.strategies import numbers, rotations, triples

from crossalign.geometry import euler_to_rotation, rotation_to_euler


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@given(triples(-7, 7))
def test_the_matrix_is_a_proper_rotation(angle_rad: tuple[float, float, float]) -> None:
    rotation = euler_to_rotation(torch.tensor(angle_rad, dtype=torch.float64))
    close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64))
    assert float(torch.linalg.det(rotation)) == pytest.approx(1)


@given(triples(-7, 7))
def test_the_order_is_that_of_scipy(angle_rad: tuple[float, float, float]) -> None:
    ours = euler_to_rotation(torch.tensor(angle_rad, dtype=torch.float64))
    theirs = Rotation.from_euler("xyz", angle_rad).as_matrix()
    close(ours, torch.from_numpy(theirs))


def test_the_order_is_x_then_y_then_z() -> None:
    quarter = math.pi / 2
    rotation = euler_to_rotation(torch.tensor([quarter, quarter, 0.0], dtype=torch.float64))
    along_y = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    # About x first: y -> z; then about the static y: z -> x.
    close(rotation @ along_y, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))


@given(st.tuples(numbers(-3.1, 3.1), numbers(-1.55, 1.55), numbers(-3.1, 3.1)))
def test_angles_come_back(angle_rad: tuple[float, float, float]) -> None:
    angles = torch.tensor(angle_rad, dtype=torch.float64)
    close(rotation_to_euler(euler_to_rotation(angles)), angles, atol=1e-9)


@given(rotations())
def test_rotations_come_back(rotation: torch.Tensor) -> None:
    angles = rotation_to_euler(rotation)
    assert abs(float(angles[1])) <= math.pi / 2
    close(euler_to_rotation(angles), rotation, atol=1e-7)


@given(
    numbers(-3.1, 3.1),
    numbers(-3.1, 3.1),
    st.sampled_from([-1.0, 1.0]),
    st.sampled_from([0.0, 1e-9, 1e-8, 3e-8, 1e-7, 1e-6, 1e-4, 1e-3]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_rotations_come_back_in_and_near_gimbal_lock(
    x: float, z: float, side: float, off_rad: float, dtype: torch.dtype
) -> None:
    rotation = euler_to_rotation(torch.tensor([x, side * (math.pi / 2 - off_rad), z], dtype=torch.float64)).to(dtype)
    close(euler_to_rotation(rotation_to_euler(rotation)), rotation, atol=1e-6 if dtype == torch.float32 else 2e-7)


def test_in_gimbal_lock_x_is_zero() -> None:
    rotation = euler_to_rotation(torch.tensor([0.3, math.pi / 2, 0.5], dtype=torch.float64))
    close(rotation_to_euler(rotation), torch.tensor([0.0, math.pi / 2, 0.2], dtype=torch.float64), atol=1e-9)


@given(st.lists(triples(-1.5, 1.5), min_size=1, max_size=4))
def test_a_batch_equals_its_parts(angle_rad: list[tuple[float, float, float]]) -> None:
    angles = torch.tensor(angle_rad, dtype=torch.float64)
    together = euler_to_rotation(angles)
    close(together, torch.stack([euler_to_rotation(row) for row in angles]))
    close(rotation_to_euler(together), torch.stack([rotation_to_euler(row) for row in together]))


def test_gradients_are_right() -> None:
    angles = torch.tensor([[0.3, -0.4, 1.2], [2.0, 1.1, -0.7]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(euler_to_rotation, (angles,))
    assert torch.autograd.gradcheck(lambda a: rotation_to_euler(euler_to_rotation(a)), (angles,))
