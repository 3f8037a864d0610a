"""The manifest of a cohort without truth: what it may hold, and errors that name row and column."""

from pathlib import Path

import pytest

from crossalign.data.pairs import PairFiles, read_pairs
from crossalign.errors import ManifestError

HEADER = "case,fixed,moving,fixed_mask,moving_mask,initial,fixed_landmarks,moving_landmarks\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("mr.nii.gz", "us.nii.gz", "gland.nii.gz", "start.tfm", "p.csv"):
        (tmp_path / name).write_text("x")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    (folder / "pairs.csv").write_text(text)
    return folder / "pairs.csv"


def test_paths_are_relative_to_the_manifest_and_empty_cells_are_none(folder: Path) -> None:
    text = (
        HEADER + f"a,mr.nii.gz,us.nii.gz,gland.nii.gz,,start.tfm,,\nb 2,{folder}/mr.nii.gz,us.nii.gz,,,,p.csv,p.csv\n"
    )
    first, second = read_pairs(write(folder, text))
    mr, us = folder / "mr.nii.gz", folder / "us.nii.gz"
    assert first == PairFiles("a", mr, us, folder / "gland.nii.gz", None, folder / "start.tfm")
    assert second == PairFiles("b 2", mr, us, fixed_landmarks=folder / "p.csv", moving_landmarks=folder / "p.csv")


def test_a_manifest_with_truth_serves_too(folder: Path) -> None:
    text = "case,patient,split,fixed,moving,fixed_mask,reference,landmarks\n"
    (one,) = read_pairs(write(folder, text + "a,p,test,mr.nii.gz,us.nii.gz,gland.nii.gz,start.tfm,p.csv\n"))
    assert one.initial is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,mr.nii.gz,none.nii.gz\n", "pairs.csv, row 2, column 'moving': no such file: none.nii.gz"),
        ("a,mr.nii.gz,us.nii.gz\nb,,us.nii.gz\n", "pairs.csv, row 3, column 'fixed': is empty"),
        ("../a,mr.nii.gz,us.nii.gz\n", "pairs.csv, row 2, column 'case': '../a' cannot name a folder"),
        (".a,mr.nii.gz,us.nii.gz\n", "pairs.csv, row 2, column 'case': '.a' cannot name a folder"),
        ("a,mr.nii.gz,us.nii.gz\nA,mr.nii.gz,us.nii.gz\n", "row 3, column 'case': 'A' stands in row 2 already"),
        ("a,mr.nii.gz,us.nii.gz,x\n", "pairs.csv, row 2, column 4: 4 values"),
        ("", "pairs.csv: holds no cases"),
    ],
)
def test_errors_name_row_and_column(rows: str, message: str, folder: Path) -> None:
    with pytest.raises(ManifestError) as raised:
        read_pairs(write(folder, "case,fixed,moving\n" + rows))
    assert message in str(raised.value)


def test_unknown_columns_and_lonely_landmarks_are_refused(folder: Path) -> None:
    with pytest.raises(ManifestError, match="row 1: unknown column 'mask'"):
        read_pairs(write(folder, "case,fixed,moving,mask\na,mr.nii.gz,us.nii.gz,\n"))
    with pytest.raises(ManifestError, match="case 'a': landmarks are in one image only"):
        read_pairs(write(folder, HEADER + "a,mr.nii.gz,us.nii.gz,,,,p.csv,\n"))
