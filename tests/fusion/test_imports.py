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
# Imports each module in a process of its own that has torch and no more, and prints those that fail.
IMPORT_EACH = """
import importlib, os, sys, traceback
for name in sys.argv[2].split():
    sys.modules[name] = None
import torch
for name in sys.argv[1].split():
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        print(name, flush=True)
"""


def test_each_is_imported_without_readers() -> None:
    words = [sys.executable, "-c", IMPORT_EACH, " ".join(MODULES), " ".join(BLOCKED)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("module", ["crossalign.fusion.training.settings", "crossalign.fusion.simulation.settings"])
def test_settings_are_imported_without_torch(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
