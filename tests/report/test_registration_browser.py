"""The page in a real browser: it opens from a file, draws, and every control changes what is drawn."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from selenium.webdriver import ActionChains, Chrome
from tests.report import pair
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
    wait_for,
)

from crossalign.geometry import Rigid
from crossalign.registration.landmarks import LandmarkPairs
from crossalign.registration.problem import Expectation
from crossalign.report.notebook import show
from crossalign.report.pages.registration import write_report

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300), needs_browser]
TILT = Rigid.from_parameters(torch.tensor([4.0, -3.0, 2.0, 8.0, 0.0, 12.0], dtype=torch.float64), pair.CENTER_MM)


@pytest.fixture(scope="module")
def page(browser: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Open one page for all tests of its controls, which each leave it as it was; no complaint is in the console."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    warning = "<img src=x onerror=\"document.title='owned'\">"
    result = pair.result(fixed_to_moving=TILT, warnings=(warning,), expectation=Expectation(2.0, True))
    points = pair.CENTER_MM + torch.tensor([[9.0, 0, 0]], dtype=torch.float64)
    write_report(
        path,
        fixed=pair.scan(),
        moving=pair.scan(),
        result=result,
        fixed_mask=pair.gland(),
        moving_mask=pair.gland(),
        landmarks=LandmarkPairs(("cyst",), points, points),
    )
    open_page(browser, path, NIIVUE_SECONDS)
    yield browser
    assert requests_made(browser) == []
    assert browser.get_log("browser") == []


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (lambda page: click(page, "[name=when][value=before]"), lambda page: click(page, "[name=when][value=after]")),
        (lambda page: set_slider(page, "blend", 10), lambda page: set_slider(page, "blend", 50)),
        (lambda page: click(page, "[name=overlay][value=board]"), lambda page: click(page, "[name=overlay]")),
        (lambda page: click(page, "[name=outlines]"), lambda page: click(page, "[name=outlines]")),
        (lambda page: click(page, "[name=landmarks]"), lambda page: click(page, "[name=landmarks]")),
        (lambda page: click(page, "[name=crosshair]"), lambda page: click(page, "[name=crosshair]")),
        (lambda page: click(page, "[name=tint]"), lambda page: click(page, "[name=tint]")),
        (lambda page: set_slider(page, "fixed-high", 100), lambda page: set_slider(page, "fixed-high", 151)),
        (lambda page: set_slider(page, "zoom", 3), lambda page: set_slider(page, "zoom", 1)),
        (lambda page: look_at(page, [20.0, -8.0, 30.0]), lambda page: click(page, "#center")),
    ],
    ids=["before", "blend", "checkerboard", "outlines", "landmarks", "crosshair", "tint", "window", "zoom", "point"],
)
def test_each_control_changes_the_picture(page: Chrome, there, back) -> None:
    first = scene(page)
    there(page)
    second = scene(page)
    back(page)
    assert first[0] > 5
    assert second[1] != first[1]


@pytest.mark.parametrize("shift_mm", [(0.0, 0.0, 0.0), (6.2, -13.0, 8.9), (-24.0, 11.0, -4.4)])
def test_the_crosshair_reads_both_files_values(page: Chrome, shift_mm: tuple[float, ...]) -> None:
    point = pair.CENTER_MM + torch.tensor(shift_mm, dtype=torch.float64)
    look_at(page, point.tolist())
    # NiiVue puts its crosshair where it can: what counts is the point that it says, within float32.
    shown = page.execute_script("return toLps(crossalignViewer.nv.frac2mm(crossalignViewer.nv.scene.crosshairPos))")
    assert shown == pytest.approx(point.tolist(), abs=0.01)
    scan = pair.scan()
    for name, transform in (("fixed", Rigid.identity()), ("moving", TILT)):
        x, y, z = scan.grid.to_voxel(transform.apply(point[None]))[0].round().long().tolist()
        assert float(text(page, f"value-{name}")) == pytest.approx(float(scan.voxels[z, y, x]), rel=1e-5)
    click(page, "#center")


def test_a_click_moves_the_crosshair(page: Chrome) -> None:
    first = text(page, "position")
    canvas = page.find_element("id", "canvas")
    ActionChains(page).move_to_element_with_offset(canvas, -30, 20).click().perform()
    assert text(page, "position") != first
    click(page, "#center")
    assert text(page, "position") == first == "L 12.0, A 8.0, S 30.0"


def test_flicker_shows_one_image_and_the_other(page: Chrome) -> None:
    click(page, "[name=flicker]")
    alpha = "return crossalignViewer.nv.overlayAlphaShader"
    for value in (0, 1, 0):
        wait_for(lambda value=value: page.execute_script(alpha) == value)
    click(page, "[name=flicker]")
    assert page.execute_script(alpha) == 0.5


def test_the_planes_can_be_drawn_from_the_moving_images_voxels(page: Chrome) -> None:
    position, first = text(page, "position"), scene(page)
    click(page, "[name=detail][value=moving]")
    assert text(page, "position") == position
    assert scene(page)[1] != first[1]
    click(page, "[name=detail][value=fixed]")
    assert text(page, "position") == position


def test_a_trusted_result_has_no_banner(page: Chrome) -> None:
    assert page.find_elements("css selector", ".verdict") == []
    assert page.title == "Registration report"
    assert not page.find_element("id", "viewer-status").is_displayed()
    assert not page.find_element("css selector", ".still").is_displayed()


def test_where_webgl2_is_missing_the_still_pictures_are_shown(browser: Chrome, tmp_path: Path) -> None:
    path = tmp_path / "untrusted.html"
    reason = "the answers scatter: try another initial transform"
    result = pair.result(expectation=Expectation(9.3, False, reasons=(reason,)))
    write_report(path, fixed=pair.scan(), moving=pair.scan(), result=result)
    without = {"source": "HTMLCanvasElement.prototype.getContext = () => null;"}
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", without)
    try:
        browser.get(path.as_uri())
        wait_for(lambda: browser.execute_script("return document.getElementById('viewer').dataset.state") == "still")
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", json.loads(json.dumps(added)))
    assert "no WebGL2" in text(browser, "viewer-status")
    picture = browser.find_element("css selector", ".still img")
    assert picture.is_displayed()
    assert browser.execute_script("return arguments[0].naturalWidth", picture) > 500
    assert not browser.find_element("id", "canvas").is_displayed()
    box = browser.find_element("css selector", ".verdict")  # the banner: on the first screen, above all pictures
    assert "try another initial transform" in box.text
    assert box.rect["y"] < 250
    assert browser.execute_script("return getComputedStyle(arguments[0]).backgroundColor", box) == "rgb(179, 38, 30)"
    assert browser.get_log("browser") == []


def test_the_viewer_runs_in_a_notebooks_frame(browser: Chrome, tmp_path: Path) -> None:
    """`crossalign.show` puts the page into a sandboxed frame, as a notebook's page has it."""
    frame = show(pair.result(), pair.scan(), pair.scan(), pair.gland())._repr_html_()
    (tmp_path / "notebook.html").write_text(f"<!doctype html><meta charset='utf-8'><body>{frame}")
    browser.get((tmp_path / "notebook.html").as_uri())
    browser.switch_to.frame(0)
    try:
        state = "return document.getElementById('viewer')?.dataset.state"
        wait_for(lambda: browser.execute_script(state) not in (None, "loading"), NIIVUE_SECONDS)
        assert browser.execute_script(state) == "ready"
        assert scene(browser)[0] > 5
    finally:
        browser.switch_to.default_content()
    assert browser.get_log("browser") == []
