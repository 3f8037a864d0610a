"""What mkdocs does with notebooks: runs each once, from end to end in a fresh kernel, and checks what it computed."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent / "notebooks"
CELL_SECONDS = 400  # at most
# What must hold of a notebook's variables after its last cell; these cells are on no page.
CHECKS: Mapping[str, tuple[str, ...]] = {
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


def run_notebooks(checks: Mapping[Path, tuple[str, ...]]) -> list[NotebookNode]:
    """Run notebooks at the same time, each followed by its checks; return them with their outputs, without the checks.

    Raises nbclient's CellExecutionError for a cell or a check that fails: the message holds its traceback. It does so
    when all have ended: one that is cancelled while its kernel starts leaves a hook of nbclient's to the interpreter's
    exit, which fails there.
    """

    async def run() -> list[NotebookNode | BaseException]:
        return await asyncio.gather(*(_run(path, cells) for path, cells in checks.items()), return_exceptions=True)

    notebooks: list[NotebookNode] = []
    for found in asyncio.run(run()):
        if isinstance(found, BaseException):
            raise found
        notebooks.append(found)
    return notebooks


async def _run(path: Path, checks: tuple[str, ...]) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    cells = list(notebook.cells)
    notebook.cells = cells + [nbformat.v4.new_code_cell(text) for text in checks]
    await NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3").async_execute()
    notebook.cells = cells
    return notebook


@event_priority(100)
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the notebooks with their outputs in the place of those without, ahead of the plugin that shows them."""
    folder = Path(tempfile.mkdtemp(prefix="notebooks-"))
    (folder / FOLDER.name).mkdir()
    checks = {FOLDER / f"{name}.ipynb": cells for name, cells in CHECKS.items()}
    for path, notebook in zip(checks, run_notebooks(checks), strict=True):
        name = f"{FOLDER.name}/{path.name}"
        nbformat.write(notebook, folder / name)
        before = files.get_file_from_path(name)
        if before is None:
            raise ValueError(f"{name} is not among the site's files")
        files.remove(before)
        files.append(File(name, str(folder), config.site_dir, config.use_directory_urls))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Put the notebooks without outputs beside their pages, for readers to download."""
    for name in CHECKS:
        shutil.copy(FOLDER / f"{name}.ipynb", Path(config.site_dir) / FOLDER.name)
