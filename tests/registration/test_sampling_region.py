"""Which voxels lie near a structure, against the distance map of the whole grid."""

import numpy as np
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.geometry.strategies import grids

from crossalign.geometry import Grid
from crossalign.images import LabelMap
from crossalign.images.files.images import to_sitk
from crossalign.registration.iterative.sampling_region import near_structure


@given(grids(most=12), st.integers(0, 99), st.floats(0, 30), st.floats(0.01, 0.4))
def test_near_voxels_are_those_of_the_whole_distance_map(
    grid: Grid, seed: int, margin_mm: float, fraction: float
) -> None:
    draws = torch.rand(grid.shape, generator=torch.Generator().manual_seed(seed))
    draws[0, 0, 0] = 0
    labels = (draws < fraction).long()
    inside = to_sitk(labels.numpy().astype(np.uint8), grid)
    distance = sitk.SignedMaurerDistanceMap(inside, squaredDistance=False, useImageSpacing=True)
    expected = torch.from_numpy(sitk.GetArrayFromImage(distance) <= margin_mm)
    near = near_structure(LabelMap(labels, grid), margin_mm)
    edge = torch.from_numpy(np.abs(sitk.GetArrayFromImage(distance) - margin_mm) < 1e-4)  # rounding decides these
    assert torch.equal(near | edge, expected | edge)
    assert bool(near[labels != 0].all())
