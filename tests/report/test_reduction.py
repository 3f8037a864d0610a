"""Small pages: what is left of an image lies where it lay, and has its values to within a level."""

import base64
import dataclasses
import gzip
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.report import pair

from crossalign.geometry import Grid
from crossalign.images import Image
from crossalign.report.pages.registration import ReportInput, registration_page
from crossalign.report.reduction import MOST_VOXELS, block_of, coarser_grid, cropped_grid, reduce_image, reduce_mask

FINE = Grid((60, 300, 280), (0.4, 0.4, 2.0), (11.0, -60.0, 5.0), pair.FLIPPED)


def ramp(grid: Grid) -> Image:
    """A scan whose values are linear in space: means of blocks are the values at their middles."""
    weights = torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64)
    return Image((grid.points_mm() @ weights).float(), grid, "smith.nii.gz")


def test_a_reduced_image_lies_where_it_lay() -> None:
    center = FINE.center_mm()
    points = center + torch.tensor([[-40.0, -30, -20], [40, 30, 20]], dtype=torch.float64)
    found = reduce_image(ramp(FINE), points)
    image = found.image
    assert image.voxels.numel() <= MOST_VOXELS
    assert "cropped, means of 2 x 2 x 1 voxels, 256 levels from" in found.done
    assert torch.allclose(image.voxels, ramp(image.grid).voxels, atol=1e-2)
    assert bool(image.grid.contains(points).all())
    x, y, z = image.grid.spacing_mm
    assert (x, y, z) == (0.8, 0.8, 2.0)


@pytest.mark.parametrize("spacing", [(0.3, 0.3, 0.3), (0.3, 0.5, 4.0), (2.0, 2.0, 2.0)])
def test_few_voxels_are_left_and_the_finest_axes_lose_most(spacing: tuple[float, float, float]) -> None:
    grid = Grid((150, 160, 170), spacing, (0.0, 0.0, 0.0))
    coarser = coarser_grid(grid, block_of(grid))
    assert np.prod(coarser.shape) <= MOST_VOXELS
    assert max(coarser.spacing_mm) / min(coarser.spacing_mm) <= max(spacing) / min(spacing) + 0.5


def test_a_byte_keeps_its_values_and_a_mask_its_place() -> None:
    scan, gland = pair.scan(), pair.gland()
    whole = dataclasses.replace(scan, voxels=scan.voxels.round().clamp(0, 255))
    points = gland.extremes_mm()
    found = reduce_image(whole, points)
    part, (z, y, x) = cropped_grid(scan.grid, points)
    depth, height, width = part.shape
    assert torch.equal(found.image.voxels, whole.voxels[z : z + depth, y : y + height, x : x + width])
    assert (found.levels, found.done) == (None, "cropped")
    mask = reduce_mask(gland, points)
    assert torch.equal(mask.extremes_mm(), points)
    assert mask.foreground_count() == gland.foreground_count()
    far = reduce_image(whole, points + 1000.0)
    assert far.image.grid == scan.grid


def test_a_small_page_of_a_large_pair_says_what_was_reduced() -> None:
    noise = torch.randn((60, 200, 200), generator=torch.Generator().manual_seed(1)) * 100
    grid = dataclasses.replace(pair.grid(), shape=(60, 200, 200), spacing_mm=(0.45, 0.45, 1.5))
    large = Image(noise, grid, "smith.nii.gz")
    report = ReportInput(large, large, pair.result(), pair.gland().resampled(grid), reduced=True)
    html = registration_page(report).html()
    assert len(html) < 3_500_000  # the full page has 24 MB
    assert 'id="reduced"' in html
    assert "Fixed image: cropped, means of" in html
    data = json.loads(html.split('id="viewer-data">')[1].split("</script>")[0])
    read = nib.nifti1.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(data["fixed"]["nifti"])))
    assert read.get_data_dtype() == np.uint8
    assert data["fixed"]["least"] < data["fixed"]["low"] < data["fixed"]["high"] < data["fixed"]["largest"]
