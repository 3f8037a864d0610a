"""`crossalign batch` in several processes, on a Dask cluster, killed and interrupted: nothing lost, nothing twice."""

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.cli.batch_cases import FAST, Deadly, contents, write_cohort

from crossalign.cli.batch.cluster import run_on_cluster
from crossalign.cli.batch.jobs import Job, jobs_of
from crossalign.cli.batch.pool import ENDED, run_in_processes
from crossalign.cli.main import main
from crossalign.cli.requests.batch import BatchRequest
from crossalign.output import PARTIAL

CASES = ("a", "b", "c", "d")
# Runs a command and stops itself, by a real signal, when a case's last file is about to be put in place.
STOPPED_AT = """
import os, signal, sys
import crossalign.output.whole as output
number, at, words = getattr(signal, sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
settle, count = output._finish_file, 0

def stop(partial, path):
    global count
    count += path.name == "case.json"
    if count == at and path.name == "case.json":
        os.kill(os.getpid(), number)
    settle(partial, path)

output._finish_file = stop
from crossalign.cli.main import main
sys.exit(main(words))
"""


@pytest.fixture(scope="module")
def expected(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of one undisturbed process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    manifest = write_cohort(folder, pair, CASES)
    assert main(["batch", str(manifest), "-o", str(folder / "out"), "--moved", "--no-report", *FAST]) == 0
    return contents(folder / "out")


def jobs(folder: Path, pair: Path) -> tuple[Job, ...]:
    made = write_cohort(folder, pair, CASES)
    (folder / "out").mkdir()
    request = BatchRequest(
        made, output=folder / "out", method="identity", recognition="off", moved=True, no_report=True
    )
    return jobs_of(request)


@pytest.mark.slow
@pytest.mark.timeout(400)  # processes that import torch: slow on a busy machine
def test_where_a_worker_dies_nothing_is_lost_and_a_case_that_kills_each_time_is_the_only_one_that_fails(
    pair: Path, tmp_path: Path, expected: dict[str, bytes], one_thread: None
) -> None:
    names = Deadly(("identity",), tmp_path, once="b", always="c")
    with closing(run_in_processes(jobs(tmp_path, pair)[:3], names, 2)) as run:
        results = {result.name: result.error for result in run}
    assert results == {"a": "", "b": "", "c": ENDED}
    assert contents(tmp_path / "out") == {place: held for place, held in expected.items() if place[0] in "ab"}
    assert names.tried().count("b") == 2
    assert names.tried().count("c") in (1, 2)  # 1 where it was lost with its companion before it began
    assert names.tried().count("a") <= 2  # it may have been lost with its companion


@pytest.mark.slow
@pytest.mark.timeout(400)  # processes that import torch: slow on a busy machine
def test_a_dask_worker_that_dies_in_mid_run_loses_nothing_and_nothing_is_done_twice(
    pair: Path, tmp_path: Path, expected: dict[str, bytes], one_thread: None
) -> None:
    distributed = pytest.importorskip("distributed")
    names = Deadly(("identity",), tmp_path, once="b")
    work = jobs(tmp_path, pair)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(**options) as cluster,
        closing(run_on_cluster(work, names, cluster.scheduler_address)) as run,
    ):
        results = list(run)
        words = ["batch", str(tmp_path / "pairs.csv"), "-o", str(tmp_path / "again"), "--moved", "--no-report", *FAST]
        assert main([*words, "--scheduler", cluster.scheduler_address]) == 0
    assert contents(tmp_path / "again") == expected
    assert sorted(result.name for result in results) == list(CASES)
    assert not [result.error for result in results if result.error]
    assert contents(tmp_path / "out") == expected
    assert names.tried() == ["a", "b", "b", "c", "d"]


def test_no_scheduler_is_said(pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("crossalign.cli.batch.cluster.CONNECT_SECONDS", 0.5)
    manifest = write_cohort(tmp_path, pair)
    words = ["batch", str(manifest), "-o", str(tmp_path / "out"), *FAST, "--scheduler"]
    assert main([*words, "tcp://127.0.0.1:1"]) == 2
    assert "--scheduler tcp://127.0.0.1:1: no Dask scheduler answers there" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main([*words, "tcp://127.0.0.1:1"]) == 2
    assert "pip install 'crossalign[dask]'" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [("SIGKILL", -signal.SIGKILL), ("SIGINT", 130)])
def test_a_run_that_is_stopped_goes_on_where_it_was(
    number: str, status: int, pair: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    words = ["batch", str(write_cohort(tmp_path, pair, CASES)), "-o", str(out), "--moved", "--no-report", *FAST]
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_AT, number, "3", *words],
        check=False, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    finished = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/case.json")}
    assert finished.keys() == {"a", "b"}
    if number == "SIGINT":
        assert "2 of 4 cases are not done yet" in (out / "index.html").read_text()
        assert not list(out.rglob(f"{PARTIAL}*"))
    assert main(words) == 0
    assert contents(out) == expected
    assert {name: (out / name / "case.json").stat().st_mtime_ns for name in finished} == finished
