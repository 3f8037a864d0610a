"""Outputs appear whole or not at all."""

from pathlib import Path

import pytest

from crossalign.errors import OutputError
from crossalign.images import whole_file, whole_files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_error_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a.txt", overwrite=True) as partial:
        partial.write_text(str(1 / len(partial.read_text())))
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_disk_error_becomes_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written: no space left"), whole_file(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


def test_a_file_made_in_the_meantime_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"), whole_file(tmp_path / "a.txt"):
        (tmp_path / "a.txt").write_text("theirs")
    assert (tmp_path / "a.txt").read_text() == "theirs"
    assert names(tmp_path) == ["a.txt"]


def test_several_files_come_together_or_not_at_all(tmp_path: Path) -> None:
    wanted = (tmp_path / "a.nii.gz", tmp_path / "b.txt")
    with pytest.raises(ZeroDivisionError), whole_files(wanted) as (first, second):
        first.write_text(str(1 / len(second.read_text())))
    assert names(tmp_path) == []
    with whole_files(wanted) as (first, second):
        assert first.name.endswith(".nii.gz")
        first.write_text("a")
        second.write_text("b")
    assert names(tmp_path) == ["a.nii.gz", "b.txt"]


def test_one_name_for_two_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="two outputs"), whole_files((tmp_path / "a", tmp_path / "a")):
        pass


def test_files_get_the_users_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with whole_file(tmp_path / "ours") as partial:
        partial.write_text("ours")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
