"""Outputs appear whole or not at all."""

import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from crossalign.errors import OutputError
from crossalign.output import check_output, reason, whole_file, whole_files


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


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data")
    (tmp_path / "data").chmod(0o440)
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "dangling").symlink_to("nothing")
    for name in ("link", "dangling"):
        with pytest.raises(OutputError, match="exists already"), whole_file(tmp_path / name):
            pass
        with whole_file(tmp_path / name, overwrite=True) as partial:
            partial.write_text("new")
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == "new"
    assert (tmp_path / "data").read_text() == "data"
    assert (tmp_path / "link").stat().st_mode & 0o777 == 0o640  # as private as what it pointed to
    assert names(tmp_path) == ["dangling", "data", "link"]


def test_another_name_of_a_replaced_file_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    with whole_file(tmp_path / "a", overwrite=True) as partial:
        partial.write_text("new")
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("new", "old")


def test_devices_and_odd_names_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "is a pipe, socket or device"),
        (Path("/dev/null"), "is a pipe, socket or device"),
        (tmp_path / ("n" * 300), "the name is too long"),
        (Path(str(tmp_path / "a\0b")), "cannot be written"),
    ):
        with pytest.raises(OutputError, match=message):
            check_output(path, overwrite=True)


def test_nothing_written_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(OutputError, match="/a: nothing was written"), whole_file(tmp_path / "a", overwrite=True):
        pass
    assert (tmp_path / "a").read_text() == "old"


def test_a_file_that_replaces_a_private_one_is_private_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o604)
    with whole_file(tmp_path / "a", overwrite=True) as partial:
        assert partial.stat().st_mode & 0o777 == 0o600
        partial.write_text("new")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "no space left on the disk"),
        (OSError(122, "Disk quota exceeded"), "no space left within your quota"),
        (OSError(30, "Read-only file system"), "the disk can only be read"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "no space left on the disk"),
        (RuntimeError("a library's own\n words"), "a library's own words"),
    ],
)
def test_reasons_say_what_to_do(error: Exception, words: str, tmp_path: Path) -> None:
    assert reason(error).startswith(words)
    with pytest.raises(OutputError, match=f"/a: cannot be written: {words}"), whole_file(tmp_path / "a"):
        raise error
