"""The table of the benchmarks: rows of each, one table between two markers of a page, whole or not at all."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
PAGE = "# Performance\n\nBefore.\n\n<!-- make bench: table -->\nold\n<!-- make bench: end -->\n\nAfter.\n"
FAKE = """
import sys
sys.path.insert(0, {folder!r})
from pathlib import Path
import rows
at = sys.argv.index("--rows")
if {fails}:
    sys.exit(3)
row = rows.Row.at_least("a pass | of {name}", "10 ms", "5 ms", (2.0, 1.9, 2.2), 3)
rows.written(Path(sys.argv[at + 1]), [row, rows.Row("on a GPU", "", "not measured: no GPU", goal="0.3 ms")])
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of the benchmarks, as `python benchmarks/...` finds it."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def loaded(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return loaded


@pytest.fixture
def runner(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The runner, with two benchmarks that take no time, a page and no results."""
    load("rows")
    module: ModuleType = load("run")
    for name in ("one", "two"):
        (tmp_path / f"bench_{name}.py").write_text(FAKE.format(folder=str(FOLDER), name=name, fails=False))
    monkeypatch.setattr(module, "__file__", str(tmp_path / "run.py"))
    monkeypatch.setattr(module, "PLAN", {"one": ("bench_one.py", "--threads", "1"), "two": ("bench_two.py",)})
    (tmp_path / "page.md").write_text(PAGE)
    return module


def call(module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    files = ["--page", str(folder / "page.md"), "--results", str(folder / "results.json")]
    monkeypatch.setattr(sys, "argv", ["run.py", *files, *words])
    module.main()


def test_the_table_is_replaced_and_the_rest_of_the_page_stays(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(runner, tmp_path, monkeypatch)
    page = (tmp_path / "page.md").read_text()
    before, after = PAGE.split("old\n")
    assert page.startswith(before)
    assert page.endswith(after)
    assert "old" not in page
    one, gpu = (line for line in page.splitlines() if "bench_one.py" in line)
    assert one == (
        r"| a pass \| of one | 10 ms | 5 ms | 2.00 (1.90 to 2.20) | 3 or more | **missed** | "
        "`python benchmarks/bench_one.py --threads 1` |"
    )
    assert "not measured: no GPU" in gpu
    assert [row["what"] for row in json.loads((tmp_path / "results.json").read_text())][2] == "a pass | of two"


def test_one_benchmark_alone_leaves_the_others_rows(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(runner, tmp_path, monkeypatch)
    rows = json.loads((tmp_path / "results.json").read_text())
    rows[0]["here"], rows[2]["here"] = "1 ms", "2 ms"
    (tmp_path / "results.json").write_text(json.dumps(rows))
    call(runner, tmp_path, monkeypatch, "--only", "two")
    assert [row["here"] for row in json.loads((tmp_path / "results.json").read_text())][::2] == ["1 ms", "5 ms"]
    assert "| 1 ms |" in (tmp_path / "page.md").read_text()


def test_nothing_changes_where_one_fails(runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bench_two.py").write_text(FAKE.format(folder=str(FOLDER), name="two", fails=True))
    with pytest.raises(SystemExit, match=r"bench_two.py failed with status 3: no file was changed"):
        call(runner, tmp_path, monkeypatch)
    assert (tmp_path / "page.md").read_text() == PAGE
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize("page", ["no markers", PAGE + PAGE, "<!-- make bench: end -->\n<!-- make bench: table -->"])
def test_a_page_without_its_markers_is_refused(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    (tmp_path / "page.md").write_text(page)
    with pytest.raises(ValueError, match="needs the lines"):
        call(runner, tmp_path, monkeypatch)


def test_quick_figures_never_reach_the_page_of_the_documentation(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--quick"])
    with pytest.raises(SystemExit):
        runner.main()
    assert "name other files" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["networks", "training"])
def test_quick_benchmarks_of_networks_give_rows(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    load("rows")
    measuring = load("measuring")
    monkeypatch.setattr(measuring, "peak_mib", lambda *_: 10.0)
    module, path = load(f"bench_{name}"), tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", [f"bench_{name}.py", "--quick", "--rows", str(path)])
    module.main()
    found = json.loads(path.read_text())
    assert len(found) == 4
    assert all(row["ratio"][0] > 0 and row["met"] in (True, False) for row in found)
    assert found[0]["command"] == f"python benchmarks/bench_{name}.py --quick"


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_gpu_benchmark_runs_on_a_cpu_or_says_that_it_measured_nothing(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    torch = pytest.importorskip("torch")
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("measures for minutes where there is a GPU")
    load("rows"), load("measuring")
    module, path = load("bench_gpu"), tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--quick", "--device", device, "--rows", str(path)])
    module.main()
    found = json.loads(path.read_text())
    assert len(found) == len(module.WANTED)
    assert all((row["here"] == "not measured: no GPU") == (device == "cuda") for row in found)
