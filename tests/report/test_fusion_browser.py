"""The page of a fusion in a real browser: it draws, each way to look draws something else, and the crosshair moves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from tests.fusion.phantom import pair
from tests.report.test_browser import AXIAL, BROWSER, DRIVER, PIXELS, browser

from crossalign.fusion import fuse
from crossalign.fusion.classical import Maximum
from crossalign.report.fusion_page import write_fusion_report

__all__ = ["browser"]  # the fixture

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="needs chromium and chromedriver: install both"),
]
SETTLED = "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture
def page(browser: Chrome, tmp_path: Path) -> Iterator[Chrome]:
    path = tmp_path / "fusion.html"
    write_fusion_report(path, fuse(*pair(), Maximum(), b_unit="SUV"))
    browser.get(path.as_uri())
    WebDriverWait(browser, 30).until(
        lambda driver: driver.find_element("id", "viewer").get_attribute("data-state") != "loading"
    )
    assert browser.find_element("id", "viewer").get_attribute("data-state") == "ready"
    yield browser
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def _look(page: Chrome) -> tuple[float, int]:
    page.execute_script(SETTLED)
    brightness, content = page.execute_script(PIXELS, AXIAL)
    return brightness, content


def test_each_way_to_look_draws_something_else(page):
    seen = set()
    for name in ("mri", "pet", "fused", "colour"):
        page.execute_script(f"""document.querySelector('[name="shown"][value="{name}"]').click()""")
        brightness, content = _look(page)
        assert brightness > 5
        seen.add(content)
    assert len(seen) == 4


def test_crosshair_and_slices_follow_the_keys_and_values_are_told(page):
    first = _look(page)
    place = page.find_element("id", "place").text
    plane = page.find_element("css selector", AXIAL)
    for _ in range(6):
        plane.send_keys(Keys.PAGE_UP)
    plane.send_keys(Keys.ARROW_LEFT)
    assert _look(page) != first
    assert page.find_element("id", "place").text != place
    assert "SUV" in page.find_element("id", "values").text
    page.find_element("id", "home").click()
    assert _look(page) == first
    assert page.find_element("id", "place").text == place


def test_the_colour_bar_is_drawn(page):
    assert page.execute_script(PIXELS, "#bar")[0] > 50
