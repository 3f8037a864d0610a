"""The manifest: what it accepts, and that each fault is named by its row and its column."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from tests.damage import damaged, edited_lines
from tests.data.files import HEADER, ROW, write_case, write_manifest

from crossalign.data import in_split, read_manifest
from crossalign.errors import ManifestError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("manifest"))


def row(case: str = "a", split: str = "train") -> str:
    return ROW.format(case=case, split=split)


def test_reads_rows_in_order(folder: Path) -> None:
    path = write_manifest(folder, row("b"), row("a", "val"), row("c", "test"), row("d"))
    cases = read_manifest(path)
    assert [case.name for case in cases] == ["b", "a", "c", "d"]
    assert [case.patient for case in cases] == ["b", "a", "c", "d"]
    assert cases[0].fixed == folder / "mr.nii.gz"
    assert cases[0].landmarks is None
    assert cases[0].moving_mask is None
    assert [case.name for case in in_split(cases, "train")] == ["b", "d"]
    assert read_manifest(path, "train") == in_split(cases, "train")


def test_optional_columns_in_any_order(folder: Path) -> None:
    header = "landmarks,patient,moving_mask," + HEADER
    path = write_manifest(folder, "points.csv,p,us_gland.nii.gz," + row("a"), ",,," + row("b"), header=header)
    first, second = read_manifest(path)
    assert first.landmarks == folder / "points.csv"
    assert first.moving_mask == folder / "us_gland.nii.gz"
    assert first.patient == "p"
    assert (second.landmarks, second.moving_mask, second.patient) == (None, None, "b")


def test_what_spreadsheets_do(folder: Path) -> None:
    """A byte order mark, Windows line ends, quotes, spaces, blank rows, rows of commas."""
    path = folder / "excel.csv"
    quoted = '"a, ""one""",train,"mr.nii.gz", us.nrrd ,gland.nii.gz,truth.tfm'
    text = "\r\n".join((" case" + HEADER[4:].replace(",", ", "), "", quoted, ",,,,,", row("b"), ""))
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [case.name for case in read_manifest(path)] == ['a, "one"', "b"]


def test_paths_are_relative_to_the_manifest_or_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder / "lists"
    elsewhere.mkdir(exist_ok=True)
    moved = row().replace("mr.nii.gz", "../mr.nii.gz").replace("us.nrrd", str(folder.resolve() / "us.nrrd"))
    moved = moved.replace("gland.nii.gz", "../gland.nii.gz").replace("truth.tfm", "../truth.tfm")
    path = write_manifest(elsewhere, moved)
    monkeypatch.chdir(elsewhere)
    for spelling in (path, str(path), "cases.csv"):
        (case,) = read_manifest(spelling)
        assert case.fixed.is_file()
        assert case.moving == folder.resolve() / "us.nrrd"


BAD_ROWS = {
    "empty value": (row("b").replace("us.nrrd", " "), "column 'moving': is empty"),
    "empty case": (row(""), "column 'case': is empty"),
    "short row": ("b,train,mr.nii.gz", "column 'moving': is empty"),
    "unknown split": (row("b", "training"), "column 'split': got 'training', expected one of train, val, test"),
    "split in capitals": (row("b", "Train"), "column 'split': got 'Train'"),
    "missing file": (row("b").replace("gland", "nobody"), "column 'fixed_mask': no such file: nobody.nii.gz"),
    "folder": (row("b").replace("mr.nii.gz", "."), r"column 'fixed': is a folder, expected a file: \."),
    "device": (row("b").replace("mr.nii.gz", "/dev/zero"), "column 'fixed': is a pipe, socket or device.*: /dev/zero"),
    "endless name": (row("b").replace("mr.nii.gz", "m" * 5000), r"column 'fixed': cannot be read: .*: m+ \.\.\. m+"),
    "endless case": (row("x" * 99_000).replace("us.nrrd", ""), "column 'moving': is empty"),
    "endless split": (row("b", "x" * 99_000), r"column 'split': got 'x+ \.\.\. x+', expected one of"),
    "control character": (row("b\x1b[31m"), r"column 'case': 'b\?\[31m' holds a control character: rename it"),
    "line break": (row('"b\nc"'), "column 'case': 'b c' holds a control character"),
    "duplicate": (row("a"), "column 'case': 'a' stands in row 2 already"),
    "extra value": (row("b") + ",", "column 7: 7 values, but the header has 6 columns"),
}


@pytest.mark.parametrize(("line", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
@pytest.mark.parametrize("blank", [0, 2])
def test_bad_row_is_named(line: str, message: str, blank: int, folder: Path) -> None:
    """The header is row 1, and blank rows count, as they do in an editor or a spreadsheet."""
    path = write_manifest(folder, row("a"), *[""] * blank, line, row("z"))
    with pytest.raises(ManifestError, match=rf"^cases\.csv, row {3 + blank}, {message}"):
        read_manifest(path)


def test_missing_optional_file(folder: Path) -> None:
    path = write_manifest(folder, row("a") + ",nobody.csv", header=HEADER + ",landmarks")
    with pytest.raises(ManifestError, match=r"row 2, column 'landmarks': no such file: nobody\.csv"):
        read_manifest(path)


def test_patient_in_two_splits(folder: Path) -> None:
    header = HEADER + ",patient"
    fine = (row("a") + ",p", row("b") + ",p", row("c", "val") + ",q")
    assert len(read_manifest(write_manifest(folder, *fine, header=header))) == 3
    path = write_manifest(folder, *fine, row("d", "val") + ",p", header=header)
    with pytest.raises(ManifestError, match="row 5, column 'split': patient 'p' is in 'train' and 'val'"):
        read_manifest(path)


@pytest.mark.parametrize("column", HEADER.split(","))
def test_missing_column(column: str, folder: Path) -> None:
    header = ",".join(name for name in HEADER.split(",") if name != column)
    with pytest.raises(ManifestError, match=rf"row 1: column '{column}' is missing; expected case, split,"):
        read_manifest(write_manifest(folder, row(), header=header))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (HEADER + ",landmark", "row 1: unknown column 'landmark'"),
        (HEADER + ",", "row 1: unknown column ''"),
        (HEADER + ",fixed", "row 1: column 'fixed' stands there twice"),
        (HEADER.replace(",", ";"), "row 1: column 'case' is missing; .*separated by commas"),
    ],
)
def test_odd_headers(header: str, message: str, folder: Path) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(write_manifest(folder, row() + ",x", header=header))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, expected a header"),
        (b"\n\n", "is empty, expected a header"),
        (HEADER.encode(), "holds no cases, only a header"),
        ((HEADER + "\n,,,,,\n").encode(), "holds no cases"),
        (HEADER.encode("utf-16"), "not text in UTF-8"),
        (b"case,split\n\xe9\xff", "not text in UTF-8"),
        (b"a" * 200_000, "not a CSV file"),
    ],
    ids=["empty", "blank", "header", "commas", "utf-16", "latin-1", "one long cell"],
)
def test_not_a_manifest(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path / "cases.csv")


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match="is a folder, expected a file"):
        read_manifest(tmp_path)
    locked = write_manifest(tmp_path, row())
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("running as root, who may read everything")
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(locked)


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cases.csv")
    with pytest.raises(ManifestError, match="pipe, socket or device"):
        read_manifest(tmp_path / "cases.csv")


def test_many_rows_are_checked_quickly_and_too_many_refused(folder: Path) -> None:
    lines = [row(f"case{number}") for number in range(99_000)]
    begin = time.process_time()
    path = write_manifest(folder, *lines[:20_000], row("case7"))
    with pytest.raises(ManifestError, match="row 20002, column 'case': 'case7' stands in row 9 already"):
        read_manifest(path)
    path = write_manifest(folder, *lines, *lines, *lines)
    with pytest.raises(ManifestError, match="more than 100000 rows: split it"):
        read_manifest(path)
    assert time.process_time() - begin < 20  # each was over 12 s; here with every call's types checked


def test_damaged_manifests_are_refused_or_read(folder: Path) -> None:
    header = HEADER + ",patient,moving_mask,landmarks"
    path = write_manifest(folder, *(row(name) + ",p,us_gland.nii.gz,points.csv" for name in "abc"), header=header)
    generator = np.random.default_rng(0)
    sound = path.read_bytes()
    copies = [*damaged(sound, generator, 150), *(t.encode() for t in edited_lines(sound.decode(), generator, 150))]
    messages: list[str] = []
    for copy in copies:
        path.write_bytes(copy)
        try:
            read_manifest(path)
        except ManifestError as error:
            messages.append(str(error))
    assert len(copies) / 3 < len(messages) < len(copies)
    assert max(map(len, messages)) < 600


def test_absent_split_says_which_there_are(folder: Path) -> None:
    cases = read_manifest(write_manifest(folder, row("a", "val"), row("b", "test")))
    with pytest.raises(ManifestError, match=r"no case with split 'train', only \['test', 'val'\]"):
        in_split(cases, "train")
