"""Being told to stop: real processes are stopped while they write, and leave nothing that is half made."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crossalign.cli.main import main
from crossalign.cli.signals import Stopped, stoppable
from crossalign.errors import OutputError
from crossalign.output import PARTIAL, whole_file, whole_files, whole_folder
from crossalign.output.partials import machine_id

# Runs a command and stops itself, by a real signal, at the n-th time that something is written.
STOPPED_AT = """
import os, signal, sys
import crossalign.output.whole as output
number, at, words = getattr(signal, sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
settle, count = output._finish_file, 0

def stop(partial, path):
    global count
    count += 1
    if count == at:
        os.kill(os.getpid(), number)
    settle(partial, path)

output._finish_file = stop
from crossalign.cli.main import main
sys.exit(main(words))
"""


def stopped(number: str, at: int, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", STOPPED_AT, number, str(at), *words],
        check=False, capture_output=True, text=True, cwd=folder, timeout=100,
    )  # fmt: skip


def register(pair: Path) -> list[str]:
    words = ["register", str(pair / "mr.nii.gz"), str(pair / "us.nii.gz"), "--initial", "center"]
    return [*words, "--method", "identity", "--output-transform", "a.tfm", "--moved", "a.nii.gz"]


@pytest.mark.parametrize(
    ("number", "at", "command"),
    [("SIGTERM", 1, "register"), ("SIGTERM", 3, "register"), ("SIGHUP", 4, "simulate"), ("SIGTERM", 7, "demo")],
)
def test_a_signal_leaves_nothing_behind(number: str, at: int, command: str, pair: Path, tmp_path: Path) -> None:
    words = (
        register(pair)
        if command == "register"
        else {"simulate": ["simulate", "2", "-o", "a"], "demo": ["demo"]}[command]
    )
    done = stopped(number, at, words, tmp_path)
    assert done.returncode == 128 + getattr(signal, number), done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"crossalign: error: stopped by {number}; outputs that were not finished have been removed"
    )
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_names_what_it_leaves_and_the_next_run_removes_it(pair: Path, tmp_path: Path) -> None:
    assert stopped("SIGKILL", 2, register(pair), tmp_path).returncode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert left
    assert all(path.name.startswith(PARTIAL) for path in left)
    for path in left:
        os.utime(path, (time.time() - 90,) * 2)
    points = tmp_path / "p.csv"
    points.write_text("x,y,z\n1,2,3\n")
    assert main(["apply", str(pair / "start.tfm"), str(points), "-o", str(tmp_path / "q.csv")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "q.csv"]


def test_only_what_is_surely_abandoned_is_removed(tmp_path: Path) -> None:
    dead, here = 2**22 + 1, machine_id()
    names = {
        "old and dead": (f"{PARTIAL}{here}-{dead}-aa.nii.gz", 90, False),
        "an old folder": (f"{PARTIAL}{here}-{dead}-bb", 90, False),
        "too young": (f"{PARTIAL}{here}-{dead}-cc.csv", 5, True),
        "alive": (f"{PARTIAL}{here}-{os.getppid()}-dd.csv", 90, True),
        "of another machine": (f"{PARTIAL}00000000-{dead}-ee.csv", 90, True),
        "the user's": (f"{PARTIAL}notes.txt", 90, True),
    }
    for what, (name, age, _) in names.items():
        path = tmp_path / name
        if "folder" in what:
            path.mkdir()
            (path / "inside").write_text("voxels")
        else:
            path.write_text("voxels")
        os.utime(path, (time.time() - age,) * 2)
    with whole_file(tmp_path / "a.txt") as partial:
        partial.write_text("a")
    for what, (name, _, stays) in names.items():
        assert (tmp_path / name).exists() == stays, what


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)
    time.sleep(0.05)  # Python runs its handlers between two steps of its own


def test_handlers_are_put_back_and_ignored_signals_stay_ignored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(Stopped) as told, stoppable():
            send(signal.SIGHUP, signal.SIGTERM)
        assert told.value.status() == 143
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, ignored)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_at_once_does_not_end_the_tidying() -> None:
    tidied = []

    def stop_and_tidy() -> None:
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGTERM)
            tidied.append(True)

    with pytest.raises(Stopped), stoppable():
        stop_and_tidy()
    assert tidied


def test_control_c_is_one_line(tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossalign.cli.models.run_models", lambda _name: send(signal.SIGINT))
    assert main(["models"]) == 130
    assert capfd.readouterr() == ("", "crossalign: error: interrupted\n")


def missing_in(path: Path) -> ValueError:
    path.write_text("b")
    return ValueError("missing")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing"), whole_folder(tmp_path / "a") as partial:
        raise missing_in(partial / "b")
    assert list(tmp_path.iterdir()) == []
    with whole_folder(tmp_path / "a") as partial:
        (partial / "b").write_text("b")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]
    with pytest.raises(OutputError, match="exists already: name a folder"), whole_folder(tmp_path / "a"):
        pass
    with (
        pytest.raises(OutputError, match=r"/c/d: cannot be written: no space left"),
        whole_folder(tmp_path / "c") as partial,
    ):
        raise OutputError(f"{partial}/d: cannot be written: no space left")


def test_messages_name_the_users_files(tmp_path: Path) -> None:
    def spoil(second: Path) -> None:
        second.unlink()
        second.mkdir()
        second.write_text("b")

    paths = (tmp_path / "a.txt", tmp_path / "b.txt")
    with pytest.raises(OutputError, match=r"/b\.txt: cannot be written") as told, whole_files(paths) as (_, second):
        spoil(second)
    assert PARTIAL not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    script = '"$0" -m crossalign models | true; "$0" -m crossalign --help | true'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
