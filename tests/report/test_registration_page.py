import base64
import dataclasses
import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.report import pair

from crossalign.cli.registration.answer import result_lines
from crossalign.errors import ImageError, OutputError
from crossalign.geometry import Rigid, codes_like, orientation_code, quarter_turn, rotation_of_code
from crossalign.images import Image, LabelMap
from crossalign.registration import Initialisation
from crossalign.registration.landmarks import LandmarkPairs
from crossalign.registration.orientation import Orientation
from crossalign.registration.problem import Application, Expectation, Step
from crossalign.report.embedding import embed, niivue_notice, niivue_script
from crossalign.report.page import content_hash
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
    html = page().replace(niivue_notice(), "")
    assert not re.search(
        r"https?:|//[a-z]|@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket", re.sub(r"[\w+/=]{200,}", "", html)
    )
    assert not re.search(r"<(?:script|img|iframe|object|embed|link)\b[^>]*\b(?:src|href)=\"(?!data:)", html)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]


def test_the_page_says_what_happened() -> None:
    text = text_of(page())
    # Initially points were looked up 8 mm too far left and 6 mm too low; the correction takes that back.
    assert "looked up was moved 10.0 mm (8.0 mm to the patient's right, 6.0 mm towards the head) and not turned" in text
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
    assert html.count("<script") == 4
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
    assert not {"fixed_mask", "moving_mask"} & set(data)


def test_only_a_moving_mask() -> None:
    text = text_of(page(fixed_mask=None))
    assert "Structure in the moving image" in text
    assert "Structure in the fixed image" not in text


def test_shift_as_the_terminal_says_it() -> None:
    lines = result_lines(pair.result(), Initialisation(Rigid.identity(), "header", ""), {})
    line = next(line for line in lines if "motion" in line)
    shift = re.search(r"\((L .*?)\)", line)
    assert shift is not None
    assert f'id="shift">{shift[1]}</span> mm' in page()


def test_a_title_only_where_it_is_asked_for() -> None:
    html = page(title="Case <7>, smith_john_mr.nii.gz")
    assert "<h1>Case &lt;7&gt;, smith_john_mr.nii.gz</h1>" in html
    assert "but what its title says" in html
    assert "<h1>Registration report</h1>" in page()


def test_landmarks_have_their_errors_before_and_after() -> None:
    points = pair.CENTER_MM + torch.tensor([[0.0, 0, 0], [9, 0, 0]], dtype=torch.float64)
    moving = points + torch.tensor([[0.0, 0, 0], [0, 3, 4]], dtype=torch.float64)
    html = page(landmarks=LandmarkPairs(("apex", "<b>"), points, moving))
    cells = re.findall(r"data-point.*?>(\S+?)</button></th>.*?>([\d.]+ mm)</td>.*?>([\d.]+ mm)</td>", html)
    first, second = (math.dist((8, 0, -6), (0, *error)) for error in ((0, 0), (3, 4)))
    assert cells == [("apex", f"{first:.2f} mm", "0.00 mm"), ("&lt;b&gt;", f"{second:.2f} mm", "5.00 mm")]


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0, 200], "uint8"), ([-5, 30_000], "int16"), ([0, 70_000], "float32"), ([0.5, 1], "float32")],
)
def test_volumes_are_embedded_with_their_values_and_geometry(values: list[float], kind: str) -> None:
    voxels = torch.zeros(pair.grid().shape)
    voxels[3, 5, 7], voxels[4, 6, 8] = values
    image = Image(voxels, pair.grid())
    shift = pair.shift(5.0, -2.0, 1.0)
    content = gzip.decompress(base64.b64decode(embed(image, shift).nifti))
    read = nib.nifti1.Nifti1Image.from_bytes(content)
    assert read.get_data_dtype() == np.dtype(kind)
    assert np.array_equal(np.asarray(read.dataobj).T, voxels.numpy())
    corner = image.grid.to_physical(torch.tensor([[7.0, 5, 3]], dtype=torch.float64))[0] + torch.tensor([5.0, -2, 1])
    x, y, z, _ = read.affine @ [7, 5, 3, 1]
    assert [-x, -y, z] == pytest.approx(corner.tolist(), abs=1e-4)


def test_an_ordinary_pair_makes_a_page_under_15_mb() -> None:
    noise = torch.randint(0, 255, (80, 256, 256), generator=torch.Generator().manual_seed(1)).float()  # 5 million bytes
    image = Image(noise, dataclasses.replace(pair.grid(), shape=(80, 256, 256), spacing_mm=(0.7, 0.7, 1.0)))
    html = page(fixed=image, fixed_mask=None, moving_mask=None)
    assert len(html) < 15_000_000


def test_the_viewer_is_the_pinned_one_with_its_licence() -> None:
    assert "Redistribution and use in source and binary forms" in niivue_notice()
    html = page()
    assert niivue_notice() in html
    packed = html.split('id="niivue">')[1].split("</script>")[0]
    assert gzip.decompress(base64.b64decode(packed)).decode() == niivue_script()
    assert content_hash(niivue_script()) in html  # the one script that the page's policy lets it add
    assert len(html) < 2_000_000


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


def turned_input(report: ReportInput, turn: Rigid, as_correction: bool) -> ReportInput:
    """Return the same scans with a header that is turned, and a registration that did not believe it."""
    wrong = report.turned(turn)
    back = turn.rotation.mT
    if as_correction:
        degrees = next(one for one in (90, 180, 270) if torch.equal(quarter_turn(one // 90), back))
        identity = Rigid.identity()
        used = (Application(1, 1, 0, identity, identity, 1.0, degrees),)
        steps = tuple(dataclasses.replace(step, applications=used) for step in wrong.result.steps)
        return dataclasses.replace(wrong, result=dataclasses.replace(wrong.result, steps=steps))
    code = orientation_code(report.fixed.grid)
    orientation = Orientation(code, "RAS", back, torch.eye(3, dtype=torch.float64), "as given")
    return dataclasses.replace(wrong, result=dataclasses.replace(wrong.result, orientation=orientation))


@pytest.mark.parametrize(("index", "as_correction"), [(5, False), (17, False), (3, True)])
def test_a_wrong_header_changes_neither_pictures_nor_words(index: int, as_correction: bool) -> None:
    """The same scans under a header that the registration did not believe: only the files' own numbers differ."""
    points = pair.CENTER_MM + torch.tensor([[9.0, 4.0, 0]], dtype=torch.float64)
    report = ReportInput(
        pair.scan(),
        pair.scan(),
        pair.result(fixed_to_moving=pair.shift(1.0, 2.0, 3.0)),
        pair.gland(),
        pair.gland(),
        landmarks=LandmarkPairs(("cyst",), points, points),
    )
    turn = Rigid(rotation_of_code(codes_like(pair.grid())[index], pair.grid()), torch.zeros(3, dtype=torch.float64))
    right, wrong = (registration_page(one) for one in (report, turned_input(report, turn, as_correction)))
    own = {"matrix", "parameters", "axes"}
    assert {name for name in right.context if right.context[name] != wrong.context[name]} - {"seconds"} <= own
    assert right.context["stills"] == wrong.context["stills"]
    assert right.context["matrix"] != wrong.context["matrix"]
    assert dict(wrong.viewer) == dict(right.viewer) | {"to_header": turn.rotation.tolist()}
    header, code = (orientation_code(one.fixed.grid) for one in (report.turned(turn), report))
    text = text_of(wrong.html())
    assert f"header says {header}. The registration took its axes to point to {code} (" in text
    assert "The registration took its axes" not in text_of(right.html())
    shift = re.search(r'id="shift">(L .*?)</span>', wrong.html())
    assert shift is not None
    lines = result_lines(turned_input(report, turn, as_correction).result, Initialisation(Rigid.identity(), "", ""), {})
    assert any(f"({shift[1]})" in line for line in lines)
    assert shift[1] == "L \u22127.00, P +2.00, S +9.00" or shift[1] == "L -7.00, P +2.00, S +9.00"


def test_a_header_that_was_believed_is_not_named() -> None:
    code = orientation_code(pair.grid())
    straight = torch.eye(3, dtype=torch.float64)
    orientation = Orientation(code, code, straight, straight, "recognised")
    html = page(result=dataclasses.replace(pair.result(), orientation=orientation))
    assert "The registration took its axes" not in text_of(html)
    assert "file-position" not in html.split("<script")[0]
