import base64
import gzip

import pytest
import torch
from tests.report import pair

from crossalign.geometry import Grid
from crossalign.images import Image, LabelMap
from crossalign.report.viewer import (
    LARGEST_VOXELS,
    contrast_window,
    display_grid,
    grey_bytes,
    grey_levels,
    mask_bytes,
    packed,
)


def test_the_grid_is_isotropic_along_the_patient_and_holds_the_structure() -> None:
    points = pair.gland().points_mm()
    grid = display_grid(pair.grid(), pair.grid(), points)
    assert len(set(grid.spacing_mm)) == 1
    assert grid.direction == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    index = grid.to_voxel(points)
    assert bool((index > 0).all())
    assert bool((index < torch.tensor(grid.shape[::-1]) - 1).all())
    assert int(mask_bytes(pair.gland(), grid).max()) == 255


@pytest.mark.parametrize("spacing", [(0.2, 0.2, 0.2), (0.3, 0.3, 3.0), (4.0, 4.0, 4.0)])
def test_the_grid_stays_small(spacing) -> None:
    large = Grid((200, 300, 400), spacing, (0.0, 0.0, 0.0), pair.FLIPPED)
    depth, height, width = display_grid(large, large, None).shape
    assert max(depth, height, width) <= 128
    assert depth * height * width <= 1.05 * LARGEST_VOXELS


def test_beyond_the_scan_is_zero_and_inside_is_not() -> None:
    scan = pair.scan()
    grid = Grid.centered(tuple(scan.grid.center_mm().tolist()), (60, 60, 60), (3.0, 3.0, 3.0))
    grey = grey_levels(scan, grid)
    shades = grey_bytes(grey, contrast_window(grey))
    assert int(shades[30, 30, 30]) > 1
    assert int(shades[0, 0, 0]) == 0
    assert int(shades.max()) == 255
    assert int((shades > 0).sum()) == pytest.approx(scan.voxels.numel(), rel=0.05)


def test_a_scan_that_is_empty_in_view_makes_no_nan() -> None:
    nothing = torch.zeros(4, 4, 4)
    assert contrast_window(nothing) == (0.0, 1.0)
    assert contrast_window(torch.full((4, 4, 4), torch.nan)) == (0.0, 1.0)
    assert bool((grey_bytes(nothing, (0.0, 1.0)) == 1).all())


def test_a_fine_scan_is_averaged_and_not_skipped_through() -> None:
    fine = Grid.centered((0.0, 0.0, 0.0), (64, 64, 64), (0.5, 0.5, 0.5))
    index = fine.points_voxel().sum(-1).long()
    voxels = 1.0 + (index % 2).float()
    voxels[0, 0, 0] = 0.0
    stripes = Image(voxels, fine)
    coarse = Grid.centered((0.0, 0.0, 0.0), (20, 20, 20), (1.0, 1.0, 1.0))
    grey = grey_levels(stripes, coarse)
    assert bool(((grey - 0.5).abs() < 0.01).all())


def test_outlines_of_flat_surfaces_stay_where_they_are() -> None:
    grid = Grid.centered((0.0, 0.0, 0.0), (20, 20, 20), (2.0, 2.0, 2.0))
    labels = torch.zeros(grid.shape, dtype=torch.int64)
    labels[:, :, 10:] = 7  # from x = 0 mm on
    beside = Grid((1, 1, 2), (0.2, 2.0, 2.0), (-0.1, 1.0, 1.0))
    low, high = mask_bytes(LabelMap(labels, grid), beside)[0, 0].tolist()
    assert low < 127.5 < high


def test_packed_volumes_come_back() -> None:
    volume = torch.arange(60, dtype=torch.uint8).reshape(3, 4, 5)
    assert gzip.decompress(base64.b64decode(packed(volume))) == bytes(range(60))
    assert packed(volume) == packed(volume.clone())
