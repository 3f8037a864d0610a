"""The page in a real browser: it opens from a file, draws, and every control changes what is drawn."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.keys import Keys
from tests.report import pair
from tests.report.browser import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    click,
    needs_browser,
    open_page,
    pixels,
    set_slider,
    settle,
    slices,
    wait_for,
)

from crossalign.registration.problem import Expectation
from crossalign.report.pages.registration import write_report

pytestmark = [pytest.mark.browser, needs_browser]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    result = pair.result(warnings=("<img src=x onerror=\"document.title='owned'\">",))
    scan, gland = pair.scan(), pair.gland()
    write_report(path, fixed=scan, moving=scan, result=result, fixed_mask=gland, moving_mask=gland)
    return path


@pytest.fixture
def page(browser: Chrome, report: Path) -> Iterator[Chrome]:
    """Open the page anew, and find no complaint in the console after the test."""
    open_page(browser, report)
    yield browser
    assert browser.get_log("browser") == []


def test_every_picture_is_drawn(page: Chrome) -> None:
    for plane in ("axial", "sagittal", "coronal"):
        assert pixels(page, f'canvas.plane[data-plane="{plane}"]')[0] > 30
        for scan in ("fixed", "before", "after"):
            assert pixels(page, f'canvas.small[data-plane="{plane}"][data-scan="{scan}"]')[0] > 30
    assert page.title == "Registration report"
    assert not page.find_element("id", "viewer-status").is_displayed()


@pytest.mark.parametrize(
    "change",
    [
        lambda page: click(page, "[name=when][value=before]"),
        lambda page: set_slider(page, "blend", 0),
        lambda page: set_slider(page, "blend", 100),
        lambda page: click(page, "[name=overlay][value=board]"),
        lambda page: click(page, "[name=outlines]"),
        lambda page: click(page, "[name=crosshair]"),
        lambda page: click(page, "[name=tint]"),
        lambda page: set_slider(page, "slice-axial", 3),
    ],
    ids=["before", "fixed only", "moving only", "checkerboard", "outlines", "crosshair", "tint", "slice"],
)
def test_each_control_changes_the_picture(page: Chrome, change) -> None:
    first = pixels(page)[1]
    change(page)
    assert pixels(page)[1] != first


def test_the_square_slider_belongs_to_the_checkerboard(page: Chrome) -> None:
    assert not page.find_element("id", "square-control").is_displayed()
    click(page, "[name=overlay][value=board]")
    first = pixels(page)[1]
    assert page.find_element("id", "square-control").is_displayed()
    assert not page.find_element("id", "blend-control").is_displayed()
    set_slider(page, "square", 30)
    assert pixels(page)[1] != first


def test_an_aligned_pair_looks_the_same_at_either_end_of_the_blend(page: Chrome) -> None:
    click(page, "[name=tint]")
    click(page, "[name=outlines]")
    ends = []
    for value in (0, 100):
        set_slider(page, "blend", value)
        ends.append(pixels(page)[1])
    assert ends[0] == ends[1]
    click(page, "[name=when][value=before]")
    assert pixels(page)[1] != ends[0]


def test_a_click_moves_the_crosshair_of_all_planes(page: Chrome) -> None:
    x, y, z = slices(page)
    before = pixels(page, SAGITTAL)[1], pixels(page, CORONAL)[1]
    canvas = page.find_element("css selector", AXIAL)
    ActionChains(page).move_to_element_with_offset(canvas, 60, -40).click().perform()
    new_x, new_y, new_z = slices(page)
    assert new_x > x  # to the right of the screen: the patient's left
    assert new_y < y  # up: the front
    assert new_z == z
    assert pixels(page, SAGITTAL)[1] != before[0]
    assert pixels(page, CORONAL)[1] != before[1]
    click(page, "#center")
    assert slices(page) == [x, y, z]


def test_wheel_and_keys_change_the_slice(page: Chrome) -> None:
    x, y, z = slices(page)
    canvas = page.find_element("css selector", CORONAL)
    ActionChains(page).move_to_element(canvas).click().perform()
    x, y, z = slices(page)
    page.execute_script("arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: 100, cancelable: true}))", canvas)
    assert slices(page) == [x, y - 1, z]
    canvas.send_keys(Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.PAGE_UP)
    assert slices(page) == [x + 1, y, z + 2]  # up is towards the head
    canvas.send_keys("b", "c")
    settle(page)
    assert page.execute_script("return document.querySelector('[name=when]:checked').value") == "before"
    assert page.execute_script("return document.querySelector('[name=overlay]:checked').value") == "board"


def test_the_structure_is_where_the_crosshair_says(page: Chrome) -> None:
    position = page.find_element("id", "position").text
    values = [float(part.split()[1]) for part in position.split(", ")]
    assert [part.split()[0] for part in position.split(", ")] == ["L", "A", "S"]
    assert values == pytest.approx([12.0, 8.0, 30.0], abs=0.81)  # half a voxel of 1.5 mm, rounded
    assert page.find_element("id", "position-axial").text == f"S {values[2]:.1f} mm"


def test_a_scan_without_masks_opens(browser: Chrome, tmp_path: Path) -> None:
    path = tmp_path / "plain.html"
    write_report(path, fixed=pair.scan(), moving=pair.scan(), result=pair.result())
    open_page(browser, path)
    assert pixels(browser)[0] > 30
    assert browser.find_elements("css selector", "[name=outlines]") == []
    assert browser.get_log("browser") == []


def test_a_verdict_cannot_be_missed(browser: Chrome, tmp_path: Path) -> None:
    path = tmp_path / "untrusted.html"
    untrusted = pair.result(
        expectation=Expectation(9.3, False, reasons=("the answers scatter: try another initial transform",))
    )
    write_report(path, fixed=pair.scan(), moving=pair.scan(), result=untrusted)
    open_page(browser, path)
    box = browser.find_element("css selector", ".verdict")
    assert box.is_displayed()
    assert "try another initial transform" in box.text
    assert box.rect["y"] < 250  # on the first screen, above all pictures
    assert box.rect["width"] > 1000
    red = browser.execute_script("return getComputedStyle(arguments[0]).backgroundColor", box)
    assert red == "rgb(179, 38, 30)"
    assert browser.get_log("browser") == []


def test_a_damaged_page_says_so(browser: Chrome, report: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.html"
    path.write_text(report.read_text().replace('"after": "H4sI', '"after": "AAAA', 1))
    browser.get(path.as_uri())
    wait_for(lambda: browser.execute_script("return document.getElementById('viewer').dataset.state") == "failed")
    assert "cannot be shown" in browser.find_element("id", "viewer-status").text
    browser.get_log("browser")
