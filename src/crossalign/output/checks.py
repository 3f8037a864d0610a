"""Whether something can be written to a path, and why it could not."""

import errno
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from crossalign.errors import OutputError

REASONS: Mapping[int, str] = {
    errno.ENOSPC: "no space left on the disk: free some, or write to another disk",
    errno.EDQUOT: "no space left within your quota: free some, or write to another disk",
    errno.EFBIG: "no space left within the size of file allowed here (ulimit -f): raise it, or write elsewhere",
    errno.EROFS: "the disk can only be read: write to another folder",
    errno.EACCES: "permission denied: change the permissions, or write to another folder",
    errno.EPERM: "not permitted: change the permissions, or write to another folder",
    errno.EIO: "the disk reports an error: write to another disk",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}


def reason(error: BaseException) -> str:
    """Say why writing failed and what to do, from an OSError or the message of a library that wraps one."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (wrapped := re.search(r"os error (\d+)", str(error))):
        number = int(wrapped.group(1))
    if number is None:
        return " ".join(str(error).split()) or type(error).__name__
    return REASONS.get(number) or os.strerror(number)


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise OutputError where `path` cannot become a file.

    It is a folder, a pipe or a device, it exists (without `overwrite`), or its folder is missing or locked. A symbolic
    link counts as existing; with `overwrite` the link is replaced, and what it points to stays as it is.
    """
    path = Path(path)
    try:
        kind = mode(path)
        if kind is not None and stat.S_ISDIR(kind):
            raise OutputError(f"{path}: is a folder, expected the name of a file")
        if kind is not None and not stat.S_ISREG(kind):
            raise OutputError(f"{path}: is a pipe, socket or device, expected the name of a regular file")
        if os.path.lexists(path) and not overwrite:
            raise OutputError(f"{path}: exists already: name another file, or pass --overwrite")
        _check_parent(path)
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # a name too long or with a NUL, a folder that may not be looked into
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error


def check_new_folder(path: str | os.PathLike[str]) -> None:
    """Raise OutputError where `path` cannot become a new folder: it exists, or its folder is missing or locked."""
    path = Path(path)
    try:
        if os.path.lexists(path):
            raise OutputError(f"{path}: exists already: name a folder that does not exist")
        _check_parent(path)
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be made: {reason(error)}") from error


def mode(path: Path) -> int | None:
    """Return the mode of what a path leads to, through links; None where there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"{path}: {path.parent} is not a folder that exists: make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {path.parent} cannot be written to: name another folder")
