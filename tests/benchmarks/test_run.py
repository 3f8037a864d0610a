"""The table of the benchmarks: rows of each, one table between two markers of a page, whole or not at all."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import bench_gpu, measuring, run

ROOT = Path(__file__).parents[2]
PAGE = "# Performance\n\nBefore.\n\n<!-- make bench: table -->\nold\n<!-- make bench: end -->\n\nAfter.\n"
FAKE = """
import sys
from pathlib import Path
from benchmarks import rows
at = sys.argv.index("--rows")
if {fails}:
    sys.exit(3)
row = rows.Row.at_least("a pass | of {name}", "10 ms", "5 ms", (2.0, 1.9, 2.2), 3)
rows.written(Path(sys.argv[at + 1]), [row, rows.Row("on a GPU", "", "not measured: no GPU", goal="0.3 ms")])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two benchmarks that take no time, a page and no results, for the runner."""
    (tmp_path / "benchmarks").mkdir()  # found as part of the package, which is a namespace
    for name in ("one", "two"):
        (tmp_path / "benchmarks" / f"bench_{name}.py").write_text(FAKE.format(name=name, fails=False))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, ROOT))))
    monkeypatch.setattr(
        run, "PLAN", {"one": ("benchmarks.bench_one", "--threads", "1"), "two": ("benchmarks.bench_two",)}
    )
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path


def call(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    files = ["--page", str(folder / "page.md"), "--results", str(folder / "results.json")]
    monkeypatch.setattr(sys, "argv", ["run.py", *files, *words])
    run.main()


def test_the_table_is_replaced_and_the_rest_of_the_page_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(folder, monkeypatch)
    page = (folder / "page.md").read_text()
    before, after = PAGE.split("old\n")
    assert page.startswith(before)
    assert page.endswith(after)
    assert "old" not in page
    one, gpu = (line for line in page.splitlines() if "bench_one" in line)
    assert one == (
        r"| a pass \| of one | 10 ms | 5 ms | 2.00 (1.90 to 2.20) | 3 or more | **missed** | "
        "`python -m benchmarks.bench_one --threads 1` |"
    )
    assert "not measured: no GPU" in gpu
    assert [row["what"] for row in json.loads((folder / "results.json").read_text())][2] == "a pass | of two"


def test_one_benchmark_alone_leaves_the_others_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(folder, monkeypatch)
    rows = json.loads((folder / "results.json").read_text())
    rows[0]["here"], rows[2]["here"] = "1 ms", "2 ms"
    (folder / "results.json").write_text(json.dumps(rows))
    call(folder, monkeypatch, "--only", "two")
    assert [row["here"] for row in json.loads((folder / "results.json").read_text())][::2] == ["1 ms", "5 ms"]
    assert "| 1 ms |" in (folder / "page.md").read_text()


def test_nothing_changes_where_one_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "benchmarks" / "bench_two.py").write_text(FAKE.format(name="two", fails=True))
    with pytest.raises(SystemExit, match=r"bench_two failed with status 3: no file was changed"):
        call(folder, monkeypatch)
    assert (folder / "page.md").read_text() == PAGE
    assert not (folder / "results.json").exists()


@pytest.mark.parametrize("page", ["no markers", PAGE + PAGE, "<!-- make bench: end -->\n<!-- make bench: table -->"])
def test_a_page_without_its_markers_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    (folder / "page.md").write_text(page)
    with pytest.raises(ValueError, match="needs the lines"):
        call(folder, monkeypatch)


def test_quick_figures_never_reach_the_page_of_the_documentation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--quick"])
    with pytest.raises(SystemExit):
        run.main()
    assert "name other files" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["networks", "training"])
def test_quick_benchmarks_of_networks_give_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(measuring, "peak_mib", lambda *_: 10.0)
    module, path = importlib.import_module(f"benchmarks.bench_{name}"), tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", [f"bench_{name}.py", "--quick", "--rows", str(path)])
    module.main()
    found = json.loads(path.read_text())
    assert len(found) == 4
    assert all(row["ratio"][0] > 0 and row["met"] in (True, False) for row in found)
    assert found[0]["command"] == f"python -m benchmarks.bench_{name} --quick"


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_gpu_benchmark_runs_on_a_cpu_or_says_that_it_measured_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    torch = pytest.importorskip("torch")
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("measures for minutes where there is a GPU")
    path = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--quick", "--device", device, "--rows", str(path)])
    bench_gpu.main()
    found = json.loads(path.read_text())
    assert len(found) == len(bench_gpu.WANTED)
    assert all((row["here"] == "not measured: no GPU") == (device == "cuda") for row in found)
