import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.report import pair

from crossalign.errors import ImageError, OutputError
from crossalign.images import Image, LabelMap
from crossalign.registration.problem import Expectation, Step
from crossalign.report.pages.registration import ReportInput, registration_page, write_report


def page(**changes: Any) -> str:
    report = ReportInput(
        fixed=pair.scan("smith_john_mr.nii.gz"),
        moving=pair.scan("smith_john_us.nii.gz"),
        result=pair.result(),
        fixed_mask=pair.gland(),
        moving_mask=LabelMap(pair.gland().labels, pair.grid(), "smith_john_us_gland.nii.gz"),
        errors_mm={"SRE before": 10.0, "SRE after": 0.25, "TRE after": 3.5},
    )
    return registration_page(dataclasses.replace(report, **changes)).html()


def text_of(html: str) -> str:
    """Return what is read on the page, without scripts, styles and tags."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", bare)).replace("&#39;", "'")


def test_the_page_loads_nothing() -> None:
    html = page()
    assert not re.search(
        r"https?:|//[a-z]|@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket", re.sub(r"[\w+/=]{200,}", "", html)
    )
    assert not re.search(r"<(?:script|img|iframe|object|embed|link)\b[^>]*\b(?:src|href)=\"(?!data:)", html)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]


def test_the_page_says_what_happened() -> None:
    text = text_of(page())
    # The initial transform showed the scan 8 mm to the right and 6 mm too high; the correction takes that back.
    assert "the moving image was moved 10.0 mm (8.0 mm to the patient's left, 6.0 mm towards the feet)" in text
    assert "and not turned" in text
    assert "Over the whole structure that is 10.0 mm on average" in text
    assert "Research software, not a medical device." in text
    assert "Radiological convention" in text
    assert "Maps fixed points to moving points: (x, y, z, 1) in mm, LPS" in text
    for word in ("mi", "bins", "32", "coarse", "fine", "0.50 s", "1.25 s", "1.75 s", str(torch.__version__), "UTC"):
        assert word in text


def test_errors_are_paired() -> None:
    html = page()
    assert re.search(r'SRE</th><td class="number">10.00 mm</td><td class="number">0.25 mm</td>.*better">−9.75 mm', html)  # noqa: RUF001
    assert re.search(r'TRE</th><td class="number"></td><td class="number">3.50 mm</td>', html)
    assert "Errors against" not in page(errors_mm=None)
    parts = {"Centre before": 8.0, "Centre after": 3.0, "Angle_deg before": 14.0, "Angle_deg after": 15.5}
    shown = text_of(page(errors_mm=parts))
    assert "Centre8.00 mm3.00 mm" in shown
    assert "Angle14.00°15.50°+1.50°" in shown
    worse = page(errors_mm={"sre_before": 1.0, "sre_after": 2.0, "TRE before": float("nan"), "TRE after": 1.0})
    assert 'worse">+1.00 mm' in worse
    assert "not defined" in worse


def test_warnings_come_first() -> None:
    html = page(result=pair.result(warnings=("little overlap", "second thing")))
    assert html.index("2 warnings") < html.index("little overlap") < html.index('id="viewer"')
    assert 'class="warnings"' not in page()


def test_a_result_that_is_not_to_be_trusted_says_so_on_top() -> None:
    reasons = (
        "the answers scatter: try another initial transform",
        "smith_john_us.nii.gz shows nothing there: try another scan",
    )
    untrusted = pair.result(warnings=("odd header",), expectation=Expectation(9.3, False, reasons=reasons))
    html = page(result=untrusted)
    text = text_of(html)
    assert html.index("Do not trust this result") < html.index("scatter") < html.index("1 warning")
    assert "the moving image shows nothing there: try another scan" in text
    assert "9.3 mm: do not trust this" in text
    assert text.count("the answers scatter") == 1
    assert "no: see the top of the page" in text


@pytest.mark.parametrize(
    ("expectation", "words"),
    [(Expectation(), "not judged"), (Expectation(2.0, True), "nothing speaks against it")],
)
def test_other_results_have_no_such_box(expectation: Expectation, words: str) -> None:
    html = page(result=pair.result(expectation=expectation))
    assert 'class="verdict"' not in html
    assert f"{words}; look at the pictures all the same" in text_of(html)


def test_the_bound_stands_beside_the_expected_error() -> None:
    html = page(result=pair.result(expectation=Expectation(2.0, True).bounded(3.7, 0.9)))
    assert "2.0 mm, under 3.7 mm with 90%" in text_of(html)


def test_text_cannot_become_markup() -> None:
    attack = "<script>document.title='owned'</script>\"'&"
    html = page(
        result=pair.result(
            method=attack,
            warnings=(attack,),
            expectation=Expectation(reasons=(attack + "?",)),
            settings={attack: attack},
            steps=(Step(attack, pair.shift(0, 0, 0), 0.0),),
        ),
        errors_mm={attack + " before": 1.0, attack + " after": 2.0, attack: 2.0},
    )
    assert "<script>document" not in html
    assert html.count("<script") == 2
    assert html.count("&lt;script&gt;document") >= 8


def test_no_name_and_no_folder_of_a_file() -> None:
    texts = (
        "smith_john_us.nii.gz: dark",
        "read /data/Smith/scan 1",
        r"from C:\Smith\a.mha",
        "and Smith2/b.NII.GZ or ./Smith3 or ~/Smith4",
    )
    settings = {"stage 1": "/home/smith/best.safetensors", "levels": "4/2/1", "mask": "smith_john_gland.nii.gz"}
    html = page(result=pair.result(warnings=texts, settings=settings))
    assert "smith" not in html.lower()
    text = text_of(html)
    assert "the moving image: dark" in text
    assert "the fixed mask" in text
    assert "best.safetensors" in text
    assert "4/2/1" in text


def test_without_masks_and_steps() -> None:
    html = page(fixed_mask=None, moving_mask=None, errors_mm=None, result=pair.result(steps=(), settings={}))
    text = text_of(html)
    assert "centre of the fixed image" in text
    assert "Structure in" not in text
    assert "Outlines" not in text
    data = json.loads(html.split('id="viewer-data">')[1].split("</script>")[0])
    assert data["outlines"] == {}
    assert set(data["scans"]) == {"fixed", "before", "after"}


def test_only_a_moving_mask() -> None:
    text = text_of(page(fixed_mask=None))
    assert "Structure in the moving image" in text
    assert "Structure in the fixed image" not in text


def test_a_noisy_pair_stays_under_4_mb() -> None:
    noise = torch.rand(120, 130, 140, generator=torch.Generator().manual_seed(1))
    fine = dataclasses.replace(pair.grid(), shape=(120, 130, 140), spacing_mm=(0.8, 0.8, 0.8))
    image = Image(noise, fine)
    html = page(fixed=image, moving=image, fixed_mask=None, moving_mask=None)
    assert len(html) < 4_000_000


def test_the_file_is_whole_or_absent(tmp_path: Path) -> None:
    given: dict[str, Any] = {"fixed": pair.scan(), "moving": pair.scan(), "result": pair.result()}
    target = tmp_path / "doe_jane.html"
    write_report(target, **given)
    first = target.read_bytes()
    assert b"doe_jane" not in first
    with pytest.raises(OutputError, match="exists already"):
        write_report(target, **given)
    assert target.read_bytes() == first
    write_report(target, **given, overwrite=True)
    empty = LabelMap(torch.zeros(pair.grid().shape, dtype=torch.int64), pair.grid(), "empty.nii.gz")
    with pytest.raises(ImageError, match="empty"):
        write_report(tmp_path / "other.html", **given, fixed_mask=empty)
    with pytest.raises(OutputError, match="folder"):
        write_report(tmp_path / "missing" / "r.html", **given)
    assert [path.name for path in tmp_path.iterdir()] == ["doe_jane.html"]
