"""Silence for the C libraries below SimpleITK, which print lines of their own before they report an error."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
