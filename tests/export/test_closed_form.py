"""The fit that ONNX can express is the one with a singular value decomposition."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from crossalign.export.closed_form import fit_by_quaternion, rotation_of
from crossalign.geometry.fit import fit_rigid, nearest_rotation


@given(st.integers(0, 10_000), st.sampled_from([1e-3, 1.0, 1e3]))
def test_it_finds_the_nearest_rotation(seed: int, size: float) -> None:
    matrix = size * torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = torch.linalg.svdvals(matrix)
    sign = torch.linalg.det(matrix).sign()
    distinct = (values[:, 1] + sign * values[:, 2]) / values[:, 0] > 1e-3  # otherwise another is as near
    found, expected = rotation_of(matrix), nearest_rotation(matrix)
    assert torch.allclose(found[distinct], expected[distinct], atol=1e-9)


def test_it_is_a_rotation_where_the_nearest_matrix_would_mirror() -> None:
    matrix = torch.diag(torch.tensor([3.0, 2.0, -1.0], dtype=torch.float64))[None]
    found = rotation_of(matrix)[0]
    assert torch.allclose(found, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(rotation_of(matrix), nearest_rotation(matrix))


def test_it_fits_points_as_the_other_does() -> None:
    generator = torch.Generator().manual_seed(0)
    points = 20 * torch.randn(5, 30, 3, generator=generator)
    reached = points @ torch.linalg.qr(torch.randn(5, 3, 3, generator=generator)).Q + 3
    weight = torch.rand(5, 30, generator=generator)
    found, expected = fit_by_quaternion(points, reached, weight), fit_rigid(points, reached, weight)
    assert torch.allclose(found.rotation, expected.rotation, atol=1e-5)
    assert torch.allclose(found.translation_mm, expected.translation_mm, atol=1e-4)
