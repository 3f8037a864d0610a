"""The page of an overlay in a real browser: the controls move, and the crosshair reads the PET's own values."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from selenium.webdriver import Chrome
from tests.report import pair
from tests.report.browser import (
    NIIVUE_SECONDS,
    look_at,
    needs_browser,
    open_page,
    requests_made,
    scene,
    set_slider,
    text,
)

from crossalign.fusion.overlay import make_overlay
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image
from crossalign.report.pages.overlay import write_overlay_page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300), needs_browser]
MR_TO_PET = Rigid.from_parameters(torch.tensor([4.0, -3.0, 2.0, 8.0, 0.0, 12.0], dtype=torch.float64), pair.CENTER_MM)


def pet() -> Image:
    x, y, z = MR_TO_PET.apply(pair.CENTER_MM[None])[0].tolist()
    grid = Grid.centered((x, y, z), (14, 16, 18), (6.0, 6.0, 6.0))
    distance = (grid.points_mm() - torch.tensor([x, y, z], dtype=torch.float64)).norm(dim=-1)
    return Image((7.3 * torch.exp(-((distance / 15) ** 2))).float(), grid, "smith_pet.nii.gz")


@pytest.fixture(scope="module")
def page(browser: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    path: Path = tmp_path_factory.mktemp("overlay") / "overlay.html"
    write_overlay_page(path, make_overlay(pair.scan(), pet(), MR_TO_PET, pet_unit="SUV"))
    assert "smith" not in path.read_text()
    open_page(browser, path, NIIVUE_SECONDS)
    yield browser
    assert requests_made(browser) == []
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("shift_mm", [(0.0, 0.0, 0.0), (9.0, -7.0, 4.0), (-13.0, 10.0, 8.0)])
def test_the_crosshair_reads_the_files_values(page: Chrome, shift_mm: tuple[float, ...]) -> None:
    point, image = pair.CENTER_MM + torch.tensor(shift_mm, dtype=torch.float64), pet()
    look_at(page, point.tolist())
    x, y, z = image.grid.to_voxel(MR_TO_PET.apply(point[None]))[0].round().long().tolist()
    value, unit = text(page, "value-pet").split()
    assert float(value) == pytest.approx(float(image.voxels[z, y, x]), rel=1e-5)
    assert unit == "SUV"


@pytest.mark.parametrize(
    ("name", "value", "first"),
    [("opacity", 10, 80), ("onset", 40, 10), ("full", 90, 50), ("pet-high", 3, 6), ("fixed-high", 90, 151)],
)
def test_each_control_changes_the_picture(page: Chrome, name: str, value: float, first: float) -> None:
    set_slider(page, name, first)
    before = scene(page)
    set_slider(page, name, value)
    after = scene(page)
    set_slider(page, name, first)
    assert before[0] > 5
    assert after[1] != before[1]


def test_no_uptake_leaves_the_mr_as_it_is(page: Chrome) -> None:
    set_slider(page, "onset", 0)
    set_slider(page, "opacity", 0)
    plain = scene(page)[1]
    set_slider(page, "pet-high", 5)
    assert scene(page)[1] == plain
    set_slider(page, "opacity", 80)
    assert scene(page)[1] != plain
