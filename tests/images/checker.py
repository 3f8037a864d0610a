"""dciodvfy of Debian's dicom3tools: a checker of DICOM objects that knows nothing of this library."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHECKER = shutil.which("dciodvfy")
needs_checker = pytest.mark.skipif(CHECKER is None, reason="dciodvfy is not installed (Debian's dicom3tools)")


def errors_in(path: Path, kind: str) -> list[str]:
    """The errors that the checker finds in a file that it takes to be of a kind, such as MRImage."""
    assert CHECKER is not None
    found = subprocess.run([CHECKER, "-new", str(path)], capture_output=True, text=True, check=False)
    lines = found.stderr.splitlines()
    assert kind in lines, found.stderr
    return [line for line in lines if line.startswith("Error")]
