"""The pictures of a fusion: colours, planes, and a page that stands alone and names nobody."""

import base64
import gzip
import json
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.fusion.phantom import pair

from crossalign.errors import OutputError
from crossalign.fusion import fuse
from crossalign.fusion.classical import Average
from crossalign.geometry import Grid
from crossalign.images import Image
from crossalign.report.colours import colour_fusion, colour_table, lab_to_srgb, srgb_to_lab
from crossalign.report.cuts import Cut
from crossalign.report.embedding import niivue_notice
from crossalign.report.figures import draw_fusion_planes, write_fusion_planes
from crossalign.report.pages.fusion import FusionDisplay, fusion_page, write_fusion_report


@pytest.fixture(scope="module")
def result():
    mri, pet = pair()
    named = Image(mri.voxels, mri.grid, "DOE_JANE_19600101.nii.gz")
    found = fuse(named, Image(pet.voxels.roll(14, 2), pet.grid, "DOE_JANE_PET.nii"), Average(), b_unit="SUV")
    assert found.warnings  # which name the files
    return found


def test_lab_is_scikit_images_and_comes_back():
    from skimage.color import rgb2lab

    colours = np.random.default_rng(0).random((50, 3))
    assert srgb_to_lab(colours) == pytest.approx(rgb2lab(colours), abs=0.05)
    assert lab_to_srgb(srgb_to_lab(colours)) == pytest.approx(colours, abs=1e-6)


def test_lightness_of_the_table_is_the_mris_alone():
    lightness = srgb_to_lab(colour_table() / 255.0)[..., 0]
    assert np.ptp(lightness, axis=1).max() < 2.5  # rounding to 8 bits, and the screen's limits
    assert (np.diff(lightness.mean(axis=1)) > 0).all()


def test_without_pet_the_picture_is_grey():
    grey = colour_table()[:, 0].astype(int)
    assert np.ptp(grey, axis=1).max() <= 2
    plane = colour_fusion(np.linspace(0, 1, 5, dtype=np.float32)[None], np.zeros((1, 5), dtype=np.float32))
    assert plane.shape == (1, 5, 3)


def test_the_colour_bar_ends_at_the_pets_own_values(result):
    display = FusionDisplay.of(result)
    low, high = display.pet_range
    assert display.pet_unit == "SUV"
    assert low == pytest.approx(result.b_scaling.low)
    assert float(np.quantile(result.b_scaling.invert(result.b.voxels).numpy(), 0.99)) < high <= result.b_scaling.high


def test_planes_show_four_pictures_each_and_are_written_whole(result, tmp_path):
    figure = draw_fusion_planes(result)
    titles = [axes.get_title() for axes in figure.get_axes()]
    assert titles[:4] == ["MRI", "PET", "Fused", "MRI lightness, PET colour"]
    write_fusion_planes(tmp_path / "planes.png", result)
    content = (tmp_path / "planes.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert b"DOE" not in content
    with pytest.raises(OutputError, match="exists already"):
        write_fusion_planes(tmp_path / "planes.png", result)


def test_planes_are_those_of_a_radiologist():
    grid = Grid((4, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    volume = torch.zeros(grid.shape)
    volume[3, 0, 0] = 1  # the head end, the front, the patient's right
    for axis, center_mm in ((0, (0, 0, 3)), (1, (0, 0, 0)), (2, (0, 0, 0))):
        plane = Cut.through(grid, torch.tensor(center_mm, dtype=torch.float64), axis).plane(volume)
        assert plane[0, 0] == 1  # axial: front on top, right at the left; coronal, sagittal: head on top


def test_the_page_stands_alone_and_names_nobody(result, tmp_path):
    page = fusion_page(result).html()
    assert "DOE_JANE" not in page
    assert "Research software, not a medical device" in page
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert not re.search(r"https?://", page.replace(niivue_notice(), ""))
    assert "are the two registered?" in page
    (found,) = re.findall(r'id="viewer-data">(.*?)</script>', page, re.DOTALL)
    data = json.loads(found)
    assert data["unit"] == "SUV"
    display = FusionDisplay.of(result)
    assert (data["pet"]["low"], data["pet"]["high"]) == pytest.approx(display.pet_range)
    volumes = {"mri": (result.a, result.a_scaling), "pet": (result.b, result.b_scaling), "fused": (result.fused, None)}
    for name, (image, scaling) in volumes.items():
        read = nib.nifti1.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(data[name]["nifti"])))
        values = (image.voxels if scaling is None else scaling.invert(image.voxels)).numpy()
        span = 1.0 if scaling is None else scaling.high - scaling.low
        assert np.abs(read.get_fdata().T - values).max() <= 0.502 * span / 255  # 256 levels
        assert read.get_data_dtype() == np.uint8
    assert len(page) < 4_000_000
    assert "<h1>Fusion report</h1>" in page
    titled = fusion_page(result, title="Case 7").html()
    assert "<h1>Case 7</h1>" in titled
    assert "but what its title says" in titled
    write_fusion_report(tmp_path / "page.html", result)
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_registration_that_is_not_to_be_trusted_says_so_on_top(result):
    untrusted = replace(
        result, trusted=False, reasons=("DOE_JANE_PET.nii ended elsewhere: try another initial transform",)
    )
    page = fusion_page(untrusted).html()
    assert "DOE_JANE" not in page
    top = page.index("Do not trust this result")
    assert (
        page.index("<main>")
        < top
        < page.index("the PET ended elsewhere: try another initial transform")
        < page.index("warning</h2>")
    )
    assert "Do not trust" not in fusion_page(result).html()


def test_the_page_holds_notes_that_are_no_warnings(result):
    page = fusion_page(replace(result, notes=("DOE_JANE_PET.nii covers 4% of the grid",))).html()
    assert '<p class="soft">the PET covers 4% of the grid.</p>' in page
