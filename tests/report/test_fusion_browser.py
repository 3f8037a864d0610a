"""The page of a fusion in a real browser: it draws, each way to look draws something else, and the crosshair moves."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from tests.fusion.phantom import pair
from tests.report.browser import AXIAL, click, needs_browser, open_page, pixels

from crossalign.fusion import fuse
from crossalign.fusion.classical import Maximum
from crossalign.report.pages.fusion import write_fusion_report

pytestmark = [pytest.mark.browser, needs_browser]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fusion") / "fusion.html"
    write_fusion_report(path, replace(fuse(*pair(), Maximum(), b_unit="SUV"), trusted=False))
    return path


@pytest.fixture
def page(browser: Chrome, report: Path) -> Iterator[Chrome]:
    open_page(browser, report)
    yield browser
    assert browser.get_log("browser") == []


def test_each_choice_displays_something_else(page: Chrome) -> None:
    contents = set()
    for name in ("mri", "pet", "fused", "colour"):
        click(page, f"[name=displayed][value={name}]")
        brightness, content = pixels(page)
        assert brightness > 5
        contents.add(content)
    assert len(contents) == 4


def test_crosshair_slices_and_values_follow_the_keys(page: Chrome) -> None:
    first = pixels(page)
    position = page.find_element("id", "position").text
    plane = page.find_element("css selector", AXIAL)
    for _ in range(6):
        plane.send_keys(Keys.PAGE_UP)
    plane.send_keys(Keys.ARROW_LEFT)
    assert pixels(page) != first
    assert page.find_element("id", "position").text != position
    assert "SUV" in page.find_element("id", "value").text
    click(page, "#center")
    assert pixels(page) == first
    assert page.find_element("id", "position").text == position
    plane.send_keys("c")  # on from colour to the first, MRI
    assert pixels(page) != first
    assert page.execute_script("return document.querySelector('[name=displayed]:checked').value") == "mri"


def test_the_colour_bar_is_drawn(page: Chrome) -> None:
    assert pixels(page, "#bar")[0] > 50


def test_a_verdict_cannot_be_missed(page: Chrome) -> None:
    box = page.find_element("css selector", ".verdict")
    assert box.is_displayed()
    assert "The PET may not lie where the MRI does" in box.text
    assert "from another initial transform" in box.text
    assert box.rect["y"] < 250  # on the first screen, above all pictures
