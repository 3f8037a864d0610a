"""The page about an explanation: it stands alone, names nobody, and its map lies where the volumes say."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from selenium.webdriver import Chrome
from tests.report import pair
from tests.report.browser import click, needs_browser, open_page, pixels, set_slider, settle, slices

from crossalign.errors import OutputError
from crossalign.explanation import Explanation, explain
from crossalign.geometry import Rigid, codes_like, orientation_code, rotation_of_code, sample
from crossalign.models import Cascade, Model, Stage, StageSettings
from crossalign.networks import build_network
from crossalign.registration import NetworkRegistration, Problem
from crossalign.registration.patient_axes import turned_grid
from crossalign.report.figures import draw_explanation, write_explanation_figure
from crossalign.report.pages.explanation import explanation_page, write_explanation_report
from crossalign.report.wording import coordinates
from crossalign.types import Vector

POINT = pair.CENTER_MM + torch.tensor([6.0, -5.0, 4.0], dtype=torch.float64)


PROBLEM = Problem(pair.scan("doe_jane_mr.nii.gz"), pair.scan("doe_jane_us.nii.gz"), pair.shift(3, 0, 0), pair.gland())


def explained(problem: Problem, point: Vector) -> Explanation:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        stages = tuple(
            Stage(build_network(name, (8, 8, 8), 6.0).eval(), StageSettings(name, (8, 8, 8), 6.0, 3.0), {})
            for name in ("attention-reg", "correspondence")
        )
    method = NetworkRegistration(Model(Cascade(stages)), "<b>doe_jane_mr.nii.gz")
    return explain(problem, method, {"apex": point}, steps=2)


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    return explained(PROBLEM, POINT)


@pytest.fixture(scope="module")
def report(explanation: Explanation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explanation") / "page.html"
    write_explanation_report(path, explanation)
    return path


def test_the_page_stands_alone_and_names_nobody(report: Path) -> None:
    page = report.read_text()
    assert "doe_jane" not in page
    assert "smith" not in page
    assert "<b>" not in page
    assert "Research software, not a medical device" in page
    bare = re.sub(r"[\w+/=]{200,}", "", page)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket", bare)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert len(page) < 4_000_000
    assert page.count("<option") == 4 + 6 + 1 + 8 + 6 + 1
    data = json.loads(page.split('id="viewer-data">')[1].split("</script>")[0])
    assert set(data["scans"]) == {"fixed", "moving1", "moving2"}
    assert [mark["words"] for one in data["maps"] for mark in one["marks"]].count("match") == 1


def test_tables_say_what_was_found(explanation: Explanation, report: Path) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", report.read_text().split("<script")[0]))
    value = explanation.stages[0].parameters[0].value
    assert f"{value:+.2f} mm".replace("-", "\u2212") in text
    assert "of 16 " in text
    assert "of 8 " in text
    assert "a wrong registration has maps that look as good" in text


def test_the_file_is_whole_or_absent(explanation: Explanation, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_explanation_report(tmp_path / "page.html", explanation)
    with pytest.raises(OutputError, match="folder"):
        write_explanation_report(tmp_path / "no" / "page.html", explanation)
    assert (tmp_path / "page.html").read_text() == "mine"


def test_the_figure_shows_each_map_over_its_image(explanation: Explanation, tmp_path: Path) -> None:
    titles = [axes.get_title() for axes in draw_explanation(explanation).get_axes()[:8]]
    assert titles[:2] == ["Fixed, point", "Moving, as given"]
    assert titles[2:] == [
        "Grad-CAM, fixed", "Grad-CAM, moving", "by position, fixed", "by position, moving",
        "six parameters", "attended",
    ]  # fmt: skip
    write_explanation_figure(tmp_path / "figure.png", explanation)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert b"doe" not in (tmp_path / "figure.png").read_bytes()


def test_a_wrong_header_changes_no_picture(explanation: Explanation) -> None:
    """The same scans under a header that the networks did not believe: only the tables keep its coordinates."""
    turn = Rigid(rotation_of_code(codes_like(pair.grid())[5], pair.grid()), torch.zeros(3, dtype=torch.float64))
    grid = turned_grid(pair.grid(), turn)
    fixed, moving = (replace(image, grid=grid) for image in (PROBLEM.fixed, PROBLEM.moving))
    problem = replace(
        PROBLEM,
        fixed=fixed,
        moving=moving,
        initial=turn @ PROBLEM.initial @ turn.inverse(),
        fixed_mask=replace(pair.gland(), grid=grid),
        fixed_to_patient=turn.rotation.mT,
    )
    point = turn.apply(POINT[None])[0]
    wrong = explained(problem, point)
    right_picture, wrong_picture = picture(explanation), picture(wrong)
    assert np.abs(right_picture - wrong_picture).mean() < 0.5
    assert np.abs(right_picture - right_picture[:, ::-1]).mean() > 5
    page = explanation_page(wrong)
    text = page.html()
    header, code = orientation_code(grid), orientation_code(pair.grid())
    assert f"header says {header}. The networks took its axes to point to {code}:" in text
    assert "The networks took its axes" not in explanation_page(explanation).html()
    assert coordinates(point) in text
    maps = cast("list[dict[str, list[dict[str, object]]]]", page.viewer["maps"])
    marks = [mark["point_mm"] for one in maps for mark in one["marks"] if mark["scan"] == "fixed"]
    assert marks[0] == pytest.approx(POINT.tolist(), abs=0.01)


def picture(explanation: Explanation) -> np.ndarray:
    canvas = FigureCanvasAgg(draw_explanation(explanation))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=float)


@pytest.mark.browser
@needs_browser
def test_every_control_changes_the_picture(browser: Chrome, report: Path) -> None:
    open_page(browser, report)
    assert pixels(browser)[0] > 20
    changes = {
        "other image": lambda: click(browser, "[name=under][value=moving]"),
        "opacity": lambda: set_slider(browser, "opacity", 0),
        "outline": lambda: click(browser, "[name=outlines]"),
        "crosshair": lambda: click(browser, "[name=crosshair]"),
        "slice": lambda: set_slider(browser, "slice-axial", 5),
    }
    for name, change in changes.items():
        before = pixels(browser)[1]
        change()
        assert pixels(browser)[1] != before, name
    assert browser.get_log("browser") == []


@pytest.mark.browser
@needs_browser
def test_the_page_reads_the_value_that_the_volume_holds(
    browser: Chrome, explanation: Explanation, report: Path
) -> None:
    """The script interpolates by itself: at the crosshair it must say what resampling in Python says."""
    open_page(browser, report)
    maps = [one for stage in explanation.stages for one in stage.maps()]
    for number in (0, 4, 5, len(maps) - 1):
        choose(browser, number)
        click(browser, "#highest")
        assert_value(browser, maps[number])
        click(browser, "#center")
        assert_value(browser, maps[number])


@pytest.mark.browser
@needs_browser
def test_a_points_map_opens_at_the_point(browser: Chrome, explanation: Explanation, report: Path) -> None:
    open_page(browser, report)
    titles = [one.title for stage in explanation.stages for one in stage.maps()]
    choose(browser, titles.index("Match weights of apex"))
    settle(browser)
    assert crosshair(browser) == pytest.approx(POINT.tolist(), abs=0.81)
    assert "ring: apex (fixed image)" in browser.find_element("id", "marked").text
    assert browser.execute_script("return document.querySelector('[name=under]:checked').value") == "moving"


def choose(browser: Chrome, number: int) -> None:
    browser.execute_script(
        "const s = document.querySelector('[name=map]'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('change', {bubbles: true}));",
        str(number),
    )


def crosshair(browser: Chrome) -> list[float]:
    """Where the crosshair is, (x, y, z), LPS, mm, as the page says it."""
    parts = [part.split() for part in browser.find_element("id", "position").text.split(", ")]
    return [float(value) * (1 if letter in "LPS" else -1) for letter, value in parts]


def assert_value(browser: Chrome, one) -> None:
    settle(browser)
    data = browser.execute_script("return JSON.parse(document.getElementById('viewer-data').textContent)")
    at = slices(browser)
    point = torch.tensor([[o + i * data["spacing_mm"] for o, i in zip(data["origin_mm"], at, strict=True)]]).double()
    image = one.image
    index = image.grid.to_voxel(point)[None, None, None]
    expected = float(sample(image.voxels[None, None], index.reshape(1, 1, 1, 1, 3)))
    said = float(browser.find_element("id", "value").text.split()[-1])
    assert said == pytest.approx(expected, abs=0.03)
