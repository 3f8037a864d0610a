"""Temporary names: what this process has staged, and what processes that were killed left behind."""

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

PARTIAL = ".crossalign-partial-"
LEFTOVER_SECONDS = 60.0
# What has been staged and neither moved into place nor removed yet, by this process.
_staged: dict[Path, int] = {}
_searched: set[Path] = set()


def stage(partial: Path) -> None:
    """Note a temporary name as this process's before anything is there; first removes the folder's leftovers."""
    _remove_leftovers(partial.parent)
    _staged[partial] = os.getpid()


def unstage(partial: Path) -> None:
    """Remove what has a temporary name, if it is still there, and forget the name."""
    _remove(partial)
    _staged.pop(partial, None)


def discard_partials() -> None:
    """Remove what this process has staged and not finished: called when the process is stopped by a signal."""
    for partial, process in tuple(_staged.items()):
        if process == os.getpid():
            unstage(partial)


def partial_name(path: Path, suffix: str) -> Path:
    """Return a temporary name, which no other process uses, in the folder of a path."""
    return path.parent / f"{PARTIAL}{machine_id()}-{os.getpid()}-{os.urandom(4).hex()}{suffix}"


def machine_id() -> str:
    """Identify this machine, or container (whose process numbers are its own), among others that use the same disk."""
    import hashlib  # with socket 30 ms, which `crossalign --help` should not wait for
    import socket

    try:
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        processes = ""
    return hashlib.sha256(f"{socket.gethostname()}|{processes}".encode()).hexdigest()[:8]


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes of this user on this machine left in a folder when they were killed; looks once."""
    folder = folder.absolute()
    if folder in _searched:
        return
    _searched.add(folder)
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name.startswith(PARTIAL) and _abandoned(path):
                _remove(path)


def _abandoned(partial: Path) -> bool:
    found = re.match(re.escape(PARTIAL) + r"([0-9a-f]{8})-([0-9]{1,10})-", partial.name)
    if found is None or found.group(1) != machine_id():
        return False
    status = partial.lstat()
    return (
        status.st_uid == os.geteuid()
        and time.time() - status.st_mtime > LEFTOVER_SECONDS
        and not _is_running(int(found.group(2)))
    )


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's process
        return True
    return True


def _remove(partial: Path) -> None:
    with suppress(OSError):
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
