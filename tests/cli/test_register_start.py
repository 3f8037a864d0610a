"""Where `crossalign register` starts, which structure it is about, and how it tells its verdict."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from crossalign.cli.main import main
from crossalign.geometry import Grid, Rigid
from crossalign.images import (
    Image,
    LabelMap,
    read_label_map,
    read_transform,
    write_image,
    write_label_map,
    write_transform,
)
from crossalign.registration import Expectation, Method, Problem, Solution, Step
from crossalign.registration.methods import PLAIN_METHODS

GRID = Grid((16, 18, 20), (3.0, 3.0, 3.0), (-20.0, 5.0, 40.0))
SHIFT = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)


class Doubtful(Method):
    """Answers with its start, and does not trust it."""

    name = "doubtful"

    def settings(self) -> dict[str, str]:
        return {}

    def solve(self, problem: Problem) -> Solution:
        reasons = ("the answers scatter over 14 mm: try another start",)
        stayed = Step("stay", problem.initial, 0.0)
        return Solution((stayed,), ("noisy scan",), Expectation(9.3, False, 14.0, None, reasons))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pair in one world (fixed, moving) and a mask of two zones (zones)."""
    monkeypatch.chdir(tmp_path)
    scan = Image(torch.rand(GRID.shape, generator=torch.Generator().manual_seed(2)), GRID)
    write_image(scan, "fixed.nii.gz")
    write_image(Image(scan.voxels[2:14], Grid((12, 18, 20), GRID.spacing_mm, (-20.0, 5.0, 46.0))), "moving.nii.gz")
    zones = torch.zeros(GRID.shape, dtype=torch.int64)
    zones[5:8, 5:9, 5:9], zones[8:11, 5:9, 5:9] = 1, 4
    write_label_map(LabelMap(zones, GRID), "zones.nii.gz")
    return tmp_path


def register(capfd: pytest.CaptureFixture[str], *words: object, status: int = 0) -> Any:  # out and err
    given = ["register", "fixed.nii.gz", "moving.nii.gz", "--output-transform", "out.tfm", "--overwrite"]
    if "--method" not in words:
        given += ["--method", "identity"]
    assert main([*given, *(str(word) for word in words)]) == status
    return capfd.readouterr()


def shift_of(path: str | Path = "out.tfm") -> list[float]:
    return [round(value, 3) for value in read_transform(path).translation_mm.tolist()]


def test_scans_of_one_world_start_from_their_headers(work: Path, capfd) -> None:
    out, err = register(capfd)
    assert "initial  header (by the headers 100% of the smaller field of view lies in the other)" in out
    assert (shift_of(), err) == ([0, 0, 0], "")


def test_scans_of_unrelated_worlds_start_from_centres(pair: Path, tmp_path: Path, capfd) -> None:
    words = ["register", pair / "mr.nii.gz", pair / "us.nii.gz", "--method", "identity", "--output-transform"]
    for name, more in (("center", []), ("mask-center", ["--fixed-mask", pair / "gland.nii.gz"])):
        assert main([str(word) for word in [*words, tmp_path / f"{name}.tfm", *more]]) == 0
        assert f"initial  {name} (the headers put the scans apart)" in capfd.readouterr().out
    assert main([str(word) for word in [*words, tmp_path / "c.tfm", "--initial", "center"]]) == 0
    capfd.readouterr()
    assert shift_of(tmp_path / "center.tfm") == shift_of(tmp_path / "c.tfm")


@pytest.mark.parametrize("word", ["header", "identity"])
def test_the_headers_can_be_asked_for(work: Path, capfd, word: str) -> None:
    assert "initial  header\n" in register(capfd, "--initial", word).out
    assert shift_of() == [0, 0, 0]


def test_a_word_wins_over_a_file_of_that_name_and_says_so(work: Path, capfd) -> None:
    write_transform(Rigid(torch.eye(3, dtype=torch.float64), SHIFT), "t.tfm")
    Path("t.tfm").rename("header")
    _out, err = register(capfd, "--initial", "header")
    assert "'header' was read as the word, not as the file of that name: write ./header for the file" in err
    assert shift_of() == [0, 0, 0]
    _out, err = register(capfd, "--initial", "./header")
    assert (shift_of(), err) == ([2, 0, 0], "")


@pytest.mark.parametrize("name", ["headers", "no/start.tfm"])
def test_a_start_that_is_neither_lists_the_words(work: Path, capfd, name: str) -> None:
    _out, err = register(capfd, "--initial", name, status=2)
    assert "no such file: expected a transform file or one of header, identity, center, mask-center" in err


def test_several_labels_need_a_choice(work: Path, capfd) -> None:
    _out, err = register(capfd, "--fixed-mask", "zones.nii.gz", status=2)
    assert "holds the labels 1 (48 voxels), 4 (48 voxels): several labels" in err
    assert "--mask-label N" in err
    centres = {}
    for label in ("1", "4", "1,4"):
        register(capfd, "--fixed-mask", "zones.nii.gz", "--mask-label", label, "--initial", "mask-center")
        centres[label] = shift_of()[2]
    assert centres["1"] - centres["4"] == pytest.approx(9.0, abs=1e-2)
    assert centres["1,4"] == pytest.approx((centres["1"] + centres["4"]) / 2, abs=1e-2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fixed-mask", "zones.nii.gz", "--mask-label", "2"], "holds no label 2: holds the labels 1"),
        (
            ["--fixed-mask", "zones.nii.gz", "--mask-label", "one"],
            "its labels have no names, got 'one', expected a number",
        ),
        (["--mask-label", "1"], "--mask-label needs --fixed-mask"),
    ],
)
def test_labels_that_cannot_be_chosen(work: Path, capfd, words: list[str], message: str) -> None:
    assert message in register(capfd, *words, status=2)[1]


def test_a_mask_stored_in_another_order_is_the_same_mask(work: Path, capfd) -> None:
    zones = read_label_map("zones.nii.gz")
    direction = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    flipped = Grid(GRID.shape, GRID.spacing_mm, (-20.0 + 3 * 19, 5.0, 40.0), direction)
    write_label_map(LabelMap((zones.labels == 4).long().flip(-1), flipped), "flipped.nii.gz")
    _out, err = register(capfd, "--fixed-mask", "flipped.nii.gz", "--initial", "mask-center", "--record", "r.json")
    assert "was resampled to that of fixed.nii.gz (exact" in err
    assert any("exact" in text for text in json.loads(Path("r.json").read_text())["warnings"])
    there = shift_of()
    register(capfd, "--fixed-mask", "zones.nii.gz", "--mask-label", "4", "--initial", "mask-center")
    assert there == shift_of()


def test_the_advice_for_a_mask_elsewhere_can_be_followed(work: Path, capfd) -> None:
    zones = read_label_map("zones.nii.gz")
    wrong = Grid(GRID.shape, (3.2, 3.2, 3.2), GRID.origin_mm)
    write_label_map(LabelMap((zones.labels == 4).long(), wrong), "wrong.nii.gz")
    _out, err = register(capfd, "--fixed-mask", "wrong.nii.gz", status=2)
    advice = "crossalign apply identity wrong.nii.gz --reference fixed.nii.gz --label -o NEW_MASK.nii.gz"
    assert advice in err
    assert main(advice.split()[1:]) == 0
    capfd.readouterr()
    register(capfd, "--fixed-mask", "NEW_MASK.nii.gz")


@pytest.fixture
def doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLAIN_METHODS, "doubtful", Doubtful)


def test_a_result_that_is_not_to_be_trusted_says_so_first(work: Path, capfd, doubtful) -> None:
    words = ["--method", "doubtful", "--record", "r.json", "--report", "r.html"]
    out, err = register(capfd, *words)
    first = "do not trust this result: the answers scatter over 14 mm: try another start"
    assert out.splitlines()[0] == first
    assert "expected SRE 9.3 mm (do not trust this)" in out
    assert "warning: do not trust this result (1 reason in the output)" in err
    assert "warning: noisy scan" in err
    record = json.loads(Path("r.json").read_text())
    assert (record["trusted"], record["expected_sre_mm"]) == (False, 9.3)
    assert record["reasons"] == [first.partition(": ")[2]]
    assert record["warnings"] == ["noisy scan"]
    assert record["files"] == {
        "fixed": "fixed.nii.gz", "moving": "moving.nii.gz", "fixed_mask": None, "moving_mask": None, "initial": None,
        "fixed_landmarks": None, "moving_landmarks": None, "mask_label": None, "moving_mask_label": None,
    }  # fmt: skip
    assert str(work) not in Path("r.json").read_text()
    page = Path("r.html").read_text()
    assert page.index("Do not trust this result") < page.index("1 warning") < page.index('id="viewer"')


def test_strict_ends_with_status_3_and_writes_all_the_same(work: Path, capfd, doubtful) -> None:
    out, _err = register(capfd, "--method", "doubtful", "--strict", status=3)
    assert out.startswith("do not trust this result")
    assert Path("out.tfm").is_file()
    register(capfd, "--strict")  # the identity says nothing of itself


def test_what_the_readers_warn_of_is_told_also_where_the_command_fails(work: Path, capfd, monkeypatch) -> None:
    Path("header").write_text("")
    monkeypatch.setattr(
        "crossalign.cli.registration.command.register", lambda *_, **__: (_ for _ in ()).throw(MemoryError())
    )
    _out, err = register(capfd, "--initial", "header", status=2)
    assert "'header' was read as the word" in err
    assert err.index("as the word") < err.index("crossalign: error")


def test_a_moving_label_map_is_told_where_it_is_interpolated(work: Path, capfd) -> None:
    write_label_map(read_label_map("zones.nii.gz"), "moving.nii.gz", overwrite=True)
    assert register(capfd).err == ""
    assert "moving.nii.gz: its integers look like labels" in register(capfd, "--moved", "moved.nii.gz").err
