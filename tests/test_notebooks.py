"""The notebooks of the documentation: each runs from end to end in a fresh kernel, and its result is what it says."""

import os
import sysconfig
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
# What must hold of a notebook's variables after its last cell.
RESULTS = {
    "mr-to-ultrasound": (
        "assert after_mm < 0.7 * before_mm, (before_mm, after_mm)",
        "assert document['result']['fixed_to_moving'] and document['error'] is None",
    ),
    "dicom-to-slicer": (
        "assert difference_mm < 1e-6",
        "assert left_mm < min(10, apart_mm), (apart_mm, left_mm)",
        "assert moved.grid.agrees_with(mr.grid) and float(moved.voxels.std()) > 0",
    ),
    "train-to-evaluate": (
        "assert trained['steps'] == 120 and trained['val_sre_mm'] < trained['initial_val_sre_mm']",
        "assert mine_mm < identity_mm, (mine_mm, identity_mm)",
        "assert shipped_mm < identity_mm",
    ),
}


def test_every_notebook_is_checked_and_holds_no_outputs() -> None:
    """Outputs are made when the site is built: kept in the file, they would fall behind the code unseen."""
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(RESULTS)
    for name in RESULTS:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
        assert "not a medical device" in " ".join(notebook.cells[0].source.split())


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("default")  # of the client and the kernel's ports; the notebook's own are shown in it
@pytest.mark.parametrize("name", RESULTS)
def test_notebook_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    notebook.cells += [nbformat.v4.new_code_cell(text) for text in RESULTS[name]]
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
