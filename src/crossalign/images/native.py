"""Silence for the C libraries below SimpleITK, which print lines of their own before they report an error."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = threading.Lock()


@contextmanager
def quiet_native() -> Iterator[None]:
    """Drop what is written to file descriptor 2 (MetaIO's and ITK's chatter); their errors are raised all the same."""
    with _LOCK:
        try:
            saved = os.dup(2)
        except OSError:  # no standard error at all
            yield
            return
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)


@contextmanager
def native_path(path: Path) -> Iterator[str]:
    """Give a name of a file that ITK can take: its own, or that of a link where its own is not UTF-8.

    On a name that is not UTF-8, as an old disk may hold, SimpleITK ends the process.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="crossalign-") as folder:
            link = Path(folder) / path.name.encode("ascii", "replace").decode().replace("?", "_")
            link.symlink_to(path.absolute())
            yield str(link)
        return
    yield str(path)
