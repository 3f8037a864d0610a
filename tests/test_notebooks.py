"""The notebooks of the documentation: `make docs` runs each once and checks its results; here, that it does."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from docs.notebook_runs import CHECKS, FOLDER, run_notebooks
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook


class Hooks:
    """What stands in for `atexit`, and is left registered there."""

    def __init__(self) -> None:
        self.left: list[Callable[[], None]] = []

    def register(self, hook: Callable[[], None]) -> None:
        self.left.append(hook)

    def unregister(self, hook: Callable[[], None]) -> None:
        self.left.remove(hook)


def test_every_notebook_is_checked_and_holds_no_outputs() -> None:
    """Outputs are made when the site is built: kept in the file, they would fall behind the code unseen."""
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(CHECKS)
    for name, checks in CHECKS.items():
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
        assert "not a medical device" in " ".join(notebook.cells[0].source.split())
        assert checks
        assert all(text.startswith("assert ") for text in checks)


@pytest.mark.filterwarnings("default")  # of the client and the kernel's ports
def test_a_notebook_is_run_and_a_check_that_fails_ends_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = tmp_path / "good.ipynb", tmp_path / "bad.ipynb"
    for path in (good, bad):
        nbformat.write(new_notebook(cells=[new_code_cell("a = 6 * 7"), new_code_cell("a")]), path)
    (shown,) = run_notebooks({good: ("assert a == 42",)})
    assert [cell.source for cell in shown.cells] == ["a = 6 * 7", "a"]
    assert shown.cells[1].outputs[0].data["text/plain"] == "42"
    hooks = Hooks()
    monkeypatch.setattr("nbclient.client.atexit", hooks)
    with pytest.raises(CellExecutionError, match="assert a == 43"):
        run_notebooks({bad: ("assert a == 43",), good: ("import time; time.sleep(0.5)", "assert a == 42")})
    assert hooks.left == []  # a notebook that was cut off would leave one, which fails at the interpreter's exit
