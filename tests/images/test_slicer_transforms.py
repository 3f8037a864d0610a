"""Which node goes under a transform in 3D Slicer: Slicer's arithmetic, with VTK where it is installed.

3D Slicer turns an ITK transform, which maps points of the parent (the world) to points of the node, LPS, into a matrix
that maps the node's points to the parent's, RAS: flip on both sides, then invert. After the C++ example of the section
"Convert between ITK and Slicer linear transforms" of its script repository (slicer.readthedocs.io); the Python example
beside it gives the translation of the inverse with the opposite sign.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from crossalign.geometry import Rigid
from crossalign.images import read_linear, read_transform, write_transform

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
FIXED_TO_MOVING = Rigid.from_parameters(
    torch.tensor([12.5, -7.25, 30.0, 15.0, -40.0, 100.0], dtype=torch.float64), torch.ones(3, dtype=torch.float64)
)


def transform_to_parent(itk: np.ndarray) -> np.ndarray:
    """The matrix in Slicer's Transforms module after an ITK file is loaded: node to parent, RAS."""
    return np.linalg.inv(FLIP @ itk @ FLIP)


def test_the_moving_image_goes_under_the_transform(tmp_path: Path) -> None:
    """A moving point then lies where the fixed point of the same anatomy does; a fixed one would be moved away."""
    write_transform(FIXED_TO_MOVING, tmp_path / "t.tfm")
    to_parent = transform_to_parent(read_linear(tmp_path / "t.tfm", "itk").numpy())
    fixed = torch.tensor([[10.0, -20.0, 30.0]], dtype=torch.float64)
    moving = FIXED_TO_MOVING.apply(fixed)
    fixed_ras, moving_ras = (FLIP @ np.append(point[0].numpy(), 1.0) for point in (fixed, moving))
    assert np.allclose(to_parent @ moving_ras, fixed_ras, atol=1e-9)
    assert not np.allclose(to_parent @ fixed_ras, moving_ras, atol=10.0)
    assert np.allclose(np.linalg.inv(to_parent) @ fixed_ras, moving_ras, atol=1e-9)  # Slicer's "Invert"


def test_what_slicer_saves_of_a_moved_node_begins_a_registration(tmp_path: Path) -> None:
    """Slicer writes the transform from the parent, LPS: fixed points to moving points, as crossalign reads it."""
    to_parent = transform_to_parent(FIXED_TO_MOVING.matrix().numpy())  # the moving image dragged onto the fixed one
    saved = FLIP @ np.linalg.inv(to_parent) @ FLIP
    rigid = Rigid(torch.from_numpy(saved[:3, :3].copy()), torch.from_numpy(saved[:3, 3].copy()))
    write_transform(rigid, tmp_path / "dragged.tfm")
    assert torch.allclose(read_transform(tmp_path / "dragged.tfm").matrix(), FIXED_TO_MOVING.matrix(), atol=1e-9)


def test_vtk_moves_the_node_as_slicer_does(tmp_path: Path) -> None:
    """vtkMatrix4x4 and vtkTransform, in the steps of Slicer's C++ example; the node's chain is one transform."""
    vtk = pytest.importorskip("vtk", reason="VTK is not installed: pip install vtk")
    write_transform(FIXED_TO_MOVING, tmp_path / "t.tfm")
    matrix, flip = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    matrix.DeepCopy(read_linear(tmp_path / "t.tfm", "itk").flatten().tolist())
    flip.SetElement(0, 0, -1)
    flip.SetElement(1, 1, -1)
    vtk.vtkMatrix4x4.Multiply4x4(flip, matrix, matrix)
    vtk.vtkMatrix4x4.Multiply4x4(matrix, flip, matrix)
    matrix.Invert()
    to_world = vtk.vtkTransform()
    to_world.Concatenate(matrix)
    fixed = torch.tensor([[10.0, -20.0, 30.0]], dtype=torch.float64)
    moving = FIXED_TO_MOVING.apply(fixed)[0].tolist()
    x, y, z = to_world.TransformPoint(-moving[0], -moving[1], moving[2])
    assert np.allclose([-x, -y, z], fixed[0], atol=1e-9)
