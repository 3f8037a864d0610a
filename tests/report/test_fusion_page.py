"""The pictures of a fusion: colours, planes, and a page that stands alone and names nobody."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.fusion.phantom import pair

from crossalign.errors import OutputError
from crossalign.fusion import fuse
from crossalign.fusion.classical import Average
from crossalign.images import Image
from crossalign.report.fusion_colour import LEVELS, colour_fusion, colour_table, lab_to_srgb, srgb_to_lab
from crossalign.report.fusion_display import pet_range, show
from crossalign.report.fusion_figure import draw_fusion_planes, write_fusion_planes
from crossalign.report.fusion_page import render_fusion_report, write_fusion_report


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
    low, high, unit = pet_range(result, show(result))
    assert unit == "SUV"
    assert low == pytest.approx(result.b_scaling.low)
    assert float(np.quantile(result.b_scaling.undone(result.b.voxels).numpy(), 0.99)) < high <= result.b_scaling.high


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
    from crossalign.report.fusion_figure import _plane

    volume = torch.zeros(4, 5, 6)
    volume[3, 0, 0] = 1  # the head end, the front, the patient's right
    assert _plane(volume, 0, 3)[0, 0] == 1  # axial: front on top, right at the left
    assert _plane(volume, 1, 0)[0, 0] == 1  # coronal: head on top
    assert _plane(volume, 2, 0)[0, 0] == 1  # sagittal: head on top, front at the left


def test_the_page_stands_alone_and_names_nobody(result, tmp_path):
    page = render_fusion_report(result)
    assert "DOE_JANE" not in page
    assert "Research software, not a medical device" in page
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert not re.search(r"https?://", page)
    assert "are the two registered?" in page
    (found,) = re.findall(r'<script id="viewer-data"[^>]*>(.*?)</script>', page, re.DOTALL)
    data = json.loads(found)
    assert set(data["scans"]) == {"mri", "pet", "fused"}
    assert data["unit"] == "SUV"
    assert data["levels"] == LEVELS
    assert len(page) < 4_000_000
    write_fusion_report(tmp_path / "page.html", result)
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_registration_that_is_not_to_be_trusted_says_so_on_top(result):
    told = replace(result, trusted=False, reasons=("DOE_JANE_PET.nii ended elsewhere: try another start",))
    page = render_fusion_report(told)
    assert "DOE_JANE" not in page
    top = page.index("Do not trust this result")
    assert (
        page.index("<main>")
        < top
        < page.index("the PET ended elsewhere: try another start")
        < page.index("warning</h2>")
    )
    assert "Do not trust" not in render_fusion_report(result)


def test_the_page_tells_notes_that_are_no_warnings(result):
    page = render_fusion_report(replace(result, notes=("DOE_JANE_PET.nii covers 4% of the grid",)))
    assert '<p class="soft">the PET covers 4% of the grid.</p>' in page
