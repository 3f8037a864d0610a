"""Steps in a real browser on a page's viewer: open it, read its pixels, and set its controls."""

import shutil
import time
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
READ = """
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
PIXELS = f"const canvas = document.querySelector(arguments[0]); {READ}"
AXIAL, SAGITTAL, CORONAL = (f'canvas.plane[data-plane="{name}"]' for name in ("axial", "sagittal", "coronal"))
needs_browser = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="needs chromium and chromedriver: install both"
)


def open_page(browser: Chrome, path: Path, seconds: float = 20.0) -> None:
    browser.get(path.as_uri())
    state = "return document.getElementById('viewer').dataset.state"
    wait_for(lambda: browser.execute_script(state) != "loading", seconds)
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


NIIVUE_PIXELS = f"const {{nv}} = crossalignViewer, canvas = nv.gl.canvas; nv.drawScene(); {READ}"
NIIVUE_SECONDS = 200.0  # at most until a page with NiiVue is ready: its programs are compiled, here in software


def scene(browser: Chrome) -> tuple[float, int]:
    """Return the mean and a fingerprint of what NiiVue draws."""
    mean, fingerprint = browser.execute_script(NIIVUE_PIXELS)
    return mean, fingerprint


def look_at(browser: Chrome, point_mm: list[float]) -> None:
    """Put NiiVue's crosshair on a point (LPS, mm)."""
    x, y, z = point_mm
    browser.execute_script("lookAt(crossalignViewer.nv, arguments[0])", [-x, -y, z])


def text(browser: Chrome, name: str) -> str:
    return browser.find_element("id", name).text


def requests_made(browser: Chrome) -> list[str]:
    """Return the addresses that the page loaded or asked for, those within itself left out."""
    names = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    return [name for name in names if not name.startswith(("data:", "blob:"))]
