"""Importing what a command needs, quickly: without collecting garbage, and nibabel without pydicom."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _NibabelWithoutPydicom:
    """Tells nibabel, while it is imported, that pydicom is not installed.

    nibabel would import pydicom, and with it an image library and an HTTP client (0.1 s in all), to read one extension
    of NIfTI's header that nothing here reads. Every other import of pydicom finds it.
    """

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        """Find nothing; raise ModuleNotFoundError for pydicom where nibabel asks for it."""
        nibabel = sys.modules.get("nibabel")
        if name == "pydicom" and nibabel is not None and not hasattr(nibabel, "Nifti1Image"):
            raise ModuleNotFoundError("nibabel is imported without pydicom", name=name)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Do not collect garbage within the block: what modules define is kept, and looking through it takes a tenth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def lean_nibabel() -> Iterator[None]:
    """Let nibabel be imported without pydicom within the block."""
    sys.meta_path.insert(0, _NibabelWithoutPydicom)
    try:
        yield
    finally:
        sys.meta_path.remove(_NibabelWithoutPydicom)
