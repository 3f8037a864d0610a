"""Networks, training and simulation of fusion run where torch and numpy are installed, but no reader of images."""

import subprocess
import sys

import pytest

BLOCKED = ("SimpleITK", "nibabel", "matplotlib", "jinja2", "cyclopts", "typer")
MODULES = (
    "crossalign.fusion",
    "crossalign.fusion.networks.compact",
    "crossalign.fusion.networks.model_files",
    "crossalign.fusion.networks.published",
    "crossalign.fusion.networks.slabwise",
    "crossalign.fusion.simulation.pairs",
    "crossalign.fusion.training.dataset",
    "crossalign.fusion.training.task",
)


@pytest.mark.parametrize("module", MODULES)
def test_it_is_imported_without_readers(module: str) -> None:
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in BLOCKED)
    code = f"import sys\n{blocked}import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["crossalign.fusion.training.settings", "crossalign.fusion.simulation.settings"])
def test_settings_are_imported_without_torch(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
