"""Output files that appear whole or not at all, and never in place of something of the user's."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from crossalign.errors import OutputError


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise OutputError where `path` cannot become a file.

    It is a folder, it exists (without `overwrite`), or its folder is missing or locked.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder, expected the name of a file")
        if os.path.lexists(path) and not overwrite:
            raise OutputError(f"{path}: exists already: name another file, or pass --overwrite")
        if not path.parent.is_dir():
            raise OutputError(f"{path}: {path.parent} is not a folder that exists: make it first")
    except OutputError:
        raise
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {path.parent} cannot be written to")


@contextmanager
def whole_file(path: str | os.PathLike[str], overwrite: bool = False, suffix: str | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path`, moved to it on success and removed on any error. Raises OutputError."""
    path = Path(path)
    try:
        with _staged(path, overwrite, suffix or _suffix(path)) as partial:
            yield partial
    except OutputError:
        raise
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: cannot be written: {error}") from error


@contextmanager
def whole_files(paths: Sequence[str | os.PathLike[str]], overwrite: bool = False) -> Iterator[tuple[Path, ...]]:
    """Give a temporary path for each of several outputs; they are moved into place only if nothing failed.

    The temporary files exist already: write them with `overwrite=True`. Raises OutputError, also for one name twice.
    """
    places = [Path(path).absolute() for path in paths]
    for place in places:
        if places.count(place) > 1:
            raise OutputError(f"{place}: is named for two outputs: give each its own file")
    with ExitStack() as stack:
        yield tuple(stack.enter_context(_staged(Path(path), overwrite, _suffix(Path(path)))) for path in paths)


@contextmanager
def _staged(path: Path, overwrite: bool, suffix: str) -> Iterator[Path]:
    check_output(path, overwrite)
    try:
        handle, name = tempfile.mkstemp(prefix=".partial-", suffix=suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    partial = Path(name)
    try:
        yield partial
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        check_output(path, overwrite)  # someone may have made it in the meantime
        try:
            partial.replace(path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _suffix(path: Path) -> str:
    return ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
