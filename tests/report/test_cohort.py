"""The page of a cohort: its order, its links, and nothing that it loads."""

from dataclasses import replace
from pathlib import Path

import torch
from tests.report import pair

from crossalign.geometry import Grid, Rigid, rotation_of_code
from crossalign.images import Image
from crossalign.registration.orientation import Orientation
from crossalign.registration.patient_axes import turned_grid
from crossalign.report.pages.cohort import CohortRow, case_thumbnail, worst_first, write_cohort_page


def row(name: str, error: str = "", expected: float | None = None, trusted: bool | None = None) -> CohortRow:
    return CohortRow(name, error, "mi", expected, trusted, 1.0, (), (), "", f"{name}/report.html")


ROWS = [
    row("good", expected=2.0, trusted=True),
    row("worse", expected=3.0, trusted=True),
    row("bad", expected=8.0, trusted=False),
    row("worst", expected=9.0, trusted=False),
    row("open"),
    row("broken", error="the fixed image: no such <b>file</b>"),
]


def test_failed_first_then_not_trusted_then_by_expected_error() -> None:
    assert [one.name for one in worst_first(ROWS)] == ["broken", "worst", "bad", "open", "worse", "good"]


def test_the_page_counts_links_and_escapes(tmp_path: Path) -> None:
    write_cohort_page(tmp_path / "index.html", ROWS, 8)
    text = (tmp_path / "index.html").read_text()
    assert text.index(">broken<") < text.index(">worst<") < text.index(">open<") < text.index(">good<")
    assert '<a href="worst/report.html">worst</a>' in text
    assert "2 of 8 cases are not done yet" in text
    assert "no such &lt;b&gt;file&lt;/b&gt;" in text
    assert "Research software, not a medical device." in text
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_a_thumbnail_shows_both_images_and_a_chequerboard() -> None:
    import base64
    import io

    import numpy as np
    from PIL import Image as Picture

    grid = Grid((20, 24, 28), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    ramp = torch.linspace(0, 1, 28).expand(grid.shape).contiguous()
    moving = Image(ramp.flip(2).contiguous(), grid)
    fixed, result = Image(ramp, grid), pair.result(center_mm=grid.center_mm())
    drawn = case_thumbnail(fixed, moving, result)
    shades = np.asarray(Picture.open(io.BytesIO(base64.b64decode(drawn)))).astype(float)
    assert shades.shape == (120, 360)
    assert shades[60, 20] < 80 < 170 < shades[60, 100]  # darker on the left: the fixed image's ramp
    assert shades[60, 140] > 170 > 80 > shades[60, 220]
    assert len(drawn) < 20_000
    half = Rigid(rotation_of_code("RAS", grid), torch.zeros(3, dtype=torch.float64))  # a header half a turn off
    first, second = (replace(one, grid=turned_grid(grid, half)) for one in (fixed, moving))
    orientation = Orientation("LPS", "LPS", half.rotation.mT, half.rotation.mT, "as given")
    turned = replace(result, orientation=orientation, center_mm=half.rotation @ result.center_mm)
    assert case_thumbnail(first, second, turned) == drawn
