"""Bounded reading: regular files only, and no more of them than was allowed for."""

import os
import threading

import pytest

from crossalign.errors import InputError, ManifestError
from crossalign.input import check_regular_file, excerpt, parse_json, read_bytes, read_json, read_table, read_text


def test_a_pipe_and_a_device_are_refused_and_not_opened(tmp_path):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero"):
        with pytest.raises(InputError, match="pipe, socket or device"):
            read_text(path)


def test_names_that_no_file_can_have_are_input_errors(tmp_path):
    with pytest.raises(ManifestError, match="NUL"):
        check_regular_file("a\0b.csv", ManifestError)
    with pytest.raises(ManifestError, match="cannot be read"):
        check_regular_file(tmp_path / ("x" * 5000), ManifestError)
    with pytest.raises(ManifestError, match="no such file"):
        check_regular_file(tmp_path / "absent", ManifestError)
    with pytest.raises(ManifestError, match="folder"):
        check_regular_file(tmp_path, ManifestError)


def test_a_file_above_its_limit_is_refused(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(b"0" * 101)
    assert len(read_bytes(path, 101)) == 101
    with pytest.raises(InputError, match="larger than"):
        read_bytes(path, 100)


def test_a_table_is_read_with_quoted_cells_and_bounded_rows(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('\ufeffa,b\n"1,\u2028 2",3\n\n', encoding="utf-8")
    assert read_table(path) == [["a", "b"], ["1,\u2028 2", "3"], []]
    path.write_text("a\n" * 5)
    with pytest.raises(InputError, match="more than 4 rows"):
        read_table(path, row_limit=4)
    path.write_bytes(b"a\xff\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_table(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "1e999", "NaN", "1" * 5000, '{"a":', ""])
def test_json_that_is_deep_or_huge_or_damaged_is_an_input_error(tmp_path, text):
    with pytest.raises(InputError, match=r"^x\.json: "):
        parse_json(text, "x.json")
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_json(path)


def test_json_that_is_sound_is_read():
    assert parse_json('{"a": [1, 2.5, null, "[["]}', "x.json") == {"a": [1, 2.5, None, "[["]}


def test_a_long_or_odd_name_is_shortened_for_messages():
    assert excerpt("a\nb\x1b") == "a b?"
    assert len(excerpt("x" * 5000)) <= 80


def test_reading_a_pipe_never_waits(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = threading.Event()

    def attempt():
        with pytest.raises(InputError):
            read_bytes(pipe, 10)
        done.set()

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    assert done.wait(5)
