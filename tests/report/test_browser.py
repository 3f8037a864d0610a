"""The page in a real browser: it opens from a file, draws, and every control changes what is drawn."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys
from tests.report import pair

from crossalign.registration.problem import Expectation
from crossalign.report.page import write_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1800",
)
PIXELS = """
const canvas = document.querySelector(arguments[0]);
const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
copy.drawImage(canvas, 0, 0);
const data = copy.getImageData(0, 0, canvas.width, canvas.height).data;
let sum = 0, hash = 0;
for (let i = 0; i < data.length; i += 4) {
  sum += data[i] + data[i + 1] + data[i + 2];
  hash = (Math.imul(hash, 31) + data[i] + 256 * data[i + 1] + 65536 * data[i + 2]) | 0;
}
return [sum / (data.length / 4), hash];
"""
AXIAL, SAGITTAL, CORONAL = (f'canvas.plane[data-plane="{name}"]' for name in ("axial", "sagittal", "coronal"))

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="needs chromium and chromedriver: install both"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


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


def open_page(browser: Chrome, path: Path) -> None:
    browser.get(path.as_uri())
    wait_for(lambda: browser.execute_script("return document.getElementById('viewer').dataset.state") != "loading")
    assert browser.execute_script("return document.getElementById('viewer').dataset.state") == "ready"


def wait_for(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long for the page"
        time.sleep(0.02)


def settle(browser: Chrome) -> None:
    """Wait for two frames: what was asked for is drawn."""
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]));")


def pixels(browser: Chrome, canvas: str = AXIAL) -> tuple[float, int]:
    settle(browser)
    mean, fingerprint = browser.execute_script(PIXELS, canvas)
    return mean, fingerprint


def set_slider(browser: Chrome, name: str, value: float) -> None:
    browser.execute_script(
        "const s = document.querySelector(`[name='${arguments[0]}']`); s.value = arguments[1];"
        "s.dispatchEvent(new Event('input', {bubbles: true}));",
        name,
        value,
    )


def slices(browser: Chrome) -> list[int]:
    settle(browser)
    script = (
        "return ['sagittal', 'coronal', 'axial'].map((p) => Number(document.querySelector(`[name=slice-${p}]`).value))"
    )
    return list(browser.execute_script(script))


def click(browser: Chrome, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


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
        lambda page: click(page, "[name=mode][value=board]"),
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
    click(page, "[name=mode][value=board]")
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
    click(page, "#home")
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
    assert page.execute_script("return document.querySelector('[name=mode]:checked').value") == "board"


def test_the_gland_is_where_the_crosshair_says(page: Chrome) -> None:
    place = page.find_element("id", "place").text
    values = [float(part.split()[1]) for part in place.split(", ")]
    assert [part.split()[0] for part in place.split(", ")] == ["L", "A", "S"]
    assert values == pytest.approx([12.0, 8.0, 30.0], abs=0.81)  # half a voxel of 1.5 mm, rounded
    assert page.find_element("id", "place-axial").text == f"S {values[2]:.1f} mm"


def test_a_scan_without_masks_opens(browser: Chrome, tmp_path: Path) -> None:
    path = tmp_path / "plain.html"
    write_report(path, fixed=pair.scan(), moving=pair.scan(), result=pair.result())
    open_page(browser, path)
    assert pixels(browser)[0] > 30
    assert browser.find_elements("css selector", "[name=outlines]") == []
    assert browser.get_log("browser") == []


def test_a_verdict_cannot_be_missed(browser: Chrome, tmp_path: Path) -> None:
    path = tmp_path / "doubted.html"
    doubted = pair.result(expectation=Expectation(9.3, False, reasons=("the answers scatter: try another start",)))
    write_report(path, fixed=pair.scan(), moving=pair.scan(), result=doubted)
    open_page(browser, path)
    box = browser.find_element("css selector", ".verdict")
    assert box.is_displayed()
    assert "try another start" in box.text
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
