"""The page of a fusion in a real browser: each way to look draws something else, and the values are the files'."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from selenium.webdriver import Chrome
from tests.fusion.phantom import pair
from tests.report.browser import (
    NIIVUE_SECONDS,
    click,
    look_at,
    needs_browser,
    open_page,
    requests_made,
    scene,
    set_slider,
    text,
)

from crossalign.fusion import fuse
from crossalign.fusion.classical import Maximum
from crossalign.report.pages.fusion import write_fusion_report

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300), needs_browser]
SELECTED = "return document.querySelector('[name=displayed]:checked').value"


@pytest.fixture(scope="module")
def page(browser: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    path: Path = tmp_path_factory.mktemp("fusion") / "fusion.html"
    write_fusion_report(path, replace(fuse(*pair(), Maximum(), b_unit="SUV"), trusted=False), title="Case 7")
    open_page(browser, path, NIIVUE_SECONDS)
    yield browser
    assert requests_made(browser) == []
    assert browser.get_log("browser") == []


def test_each_choice_displays_something_else(page: Chrome) -> None:
    pictures = set()
    for name in ("mri", "pet", "fused", "colour"):
        click(page, f"[name=displayed][value={name}]")
        brightness, content = scene(page)
        assert brightness > 5
        pictures.add(content)
    assert len(pictures) == 4
    set_slider(page, "opacity", 0)
    without = scene(page)[1]
    click(page, "[name=displayed][value=mri]")
    assert scene(page)[1] == without  # the MRI alone
    page.find_element("id", "viewer").send_keys("c")
    assert page.execute_script(SELECTED) == "pet"
    click(page, "[name=displayed][value=colour]")
    set_slider(page, "opacity", 80)


def test_windows_move(page: Chrome) -> None:
    for name, displayed in (("mri-high", "mri"), ("pet-high", "pet"), ("fused-high", "fused")):
        click(page, f"[name=displayed][value={displayed}]")
        before = scene(page)[1]
        slider = page.find_element("css selector", f"[name={name}]")
        first = float(str(slider.get_property("value")))
        set_slider(page, name, first / 2)
        assert scene(page)[1] != before
        set_slider(page, name, first)
    click(page, "[name=displayed][value=colour]")


@pytest.mark.parametrize("voxel", [(21, 24, 18), (12, 30, 20)])
def test_the_crosshair_reads_near_the_files_values(page: Chrome, voxel: tuple[int, int, int]) -> None:
    mri, pet = pair()
    point = mri.grid.to_physical(torch.tensor([voxel], dtype=torch.float64))[0]
    look_at(page, point.tolist())
    x, y, z = voxel
    assert float(text(page, "value-mri")) == pytest.approx(float(mri.voxels[z, y, x]), abs=900 / 255)
    value, unit = text(page, "value-pet").split()
    assert float(value) == pytest.approx(max(0.0, float(pet.voxels[z, y, x])), abs=12 / 255)
    assert unit == "SUV"
    assert 0 <= float(text(page, "value-fused")) <= 1
    first = text(page, "position")
    click(page, "#center")
    assert text(page, "position") != first


def test_a_verdict_cannot_be_missed(page: Chrome) -> None:
    assert page.find_element("tag name", "h1").text == "Case 7"
    box = page.find_element("css selector", ".verdict")
    assert box.is_displayed()
    assert "The PET may not lie where the MRI does" in box.text
    assert "from another initial transform" in box.text
    assert box.rect["y"] < 250  # on the first screen, above all pictures
