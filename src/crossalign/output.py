"""Output files and folders that appear whole or not at all, and never in place of something of the user's.

What is written goes to a temporary name in the same folder (`.crossalign-partial-...`), is flushed to the disk and
checked, and is renamed last. A process that is killed leaves such a name behind; the next one that writes into the
folder removes it, where the process that made it has ended.
"""

import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from crossalign.errors import OutputError

PARTIAL = ".crossalign-partial-"
LEFTOVER_SECONDS = 60.0
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
# What has been staged and neither moved into place nor removed yet, by this process.
_staged: dict[Path, int] = {}
_searched: set[Path] = set()


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
        kind = _mode(path)
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


@contextmanager
def whole_file(path: str | os.PathLike[str], overwrite: bool = False, suffix: str | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path`, moved to it on success and removed on any error. Raises OutputError."""
    path = Path(path)
    with _whole({path: suffix or _suffix(path)}, overwrite) as (partial,):
        try:
            yield partial
        except RuntimeError as error:  # what ITK and torch raise for a disk's error
            raise OutputError(f"{path}: cannot be written: {reason(error)}") from error


@contextmanager
def whole_files(paths: Sequence[str | os.PathLike[str]], overwrite: bool = False) -> Iterator[tuple[Path, ...]]:
    """Give a temporary path for each of several outputs; they are moved into place only if nothing failed.

    The temporary files exist already: write them with `overwrite=True`. Raises OutputError, also for one name twice.
    """
    absolute = [Path(path).absolute() for path in paths]
    for one in absolute:
        if absolute.count(one) > 1:
            raise OutputError(f"{one}: is named for two outputs: give each its own file")
    with _whole({Path(path): _suffix(Path(path)) for path in paths}, overwrite) as partials:
        yield partials


@contextmanager
def whole_folder(path: str | os.PathLike[str], reserved: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path`, moved to it on success and removed on any error. Raises OutputError.

    `path` must not exist; where `reserved` it is an empty folder that the caller made, which goes on an error as well.
    """
    path = Path(path)
    if not reserved:
        check_new_folder(path)
    partial = _partial_name(path, "")
    try:
        _stage_folder(partial, path)
        yield partial
        if not reserved:
            check_new_folder(path)
        _to_disk(partial)
        partial.rename(path)
        _to_disk(path.parent)
    except OutputError as error:
        raise OutputError(_with_final_names(str(error), {partial: path})) from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {_with_final_names(reason(error), {partial: path})}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        _staged.pop(partial, None)
        if reserved:
            with suppress(OSError):  # no longer empty: the folder has its final name
                path.rmdir()


def write_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write a text in UTF-8 to a temporary path of `whole_file` or `whole_files`; raises OutputError that names it."""
    write_bytes(text.encode("utf-8", "backslashreplace"), path)


def write_bytes(content: bytes, path: str | os.PathLike[str]) -> None:
    """Write bytes to a temporary path of `whole_file` or `whole_files`; raises OutputError that names it."""
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error


def discard_partials() -> None:
    """Remove what this process has staged and not finished: called when the process is stopped by a signal."""
    for partial, process in tuple(_staged.items()):
        if process == os.getpid():
            _remove(partial)
            _staged.pop(partial, None)


@contextmanager
def _whole(suffixes: Mapping[Path, str], overwrite: bool) -> Iterator[tuple[Path, ...]]:
    paths: dict[Path, Path] = {}
    try:
        for path, suffix in suffixes.items():
            check_output(path, overwrite)
            partial = _partial_name(path, suffix)
            paths[partial] = path
            _stage_file(partial, path)
        yield tuple(paths)
        for partial, path in paths.items():
            check_output(path, overwrite)  # someone may have made it in the meantime
            _finish_file(partial, path)
        for partial, path in paths.items():
            partial.replace(path)
        for folder in {path.parent for path in paths.values()}:
            _to_disk(folder)
    except OutputError as error:
        raise OutputError(_with_final_names(str(error), paths)) from error
    except (OSError, _safetensor_error()) as error:  # evaluated only where something was raised
        raise OutputError(f"{_names(error, paths)}: cannot be written: {reason(error)}") from error
    finally:
        for partial in paths:
            _remove(partial)
            _staged.pop(partial, None)


def _names(error: BaseException, paths: Mapping[Path, Path]) -> str:
    """Name the output that an error is about, or all of them where it does not say."""
    named = getattr(error, "filename", None)
    if named is not None:
        return _with_final_names(os.fsdecode(named), paths)
    first, *others = paths.values()
    return f"{first} (and {len(others)} other outputs)" if others else str(first)


def _with_final_names(message: str, paths: Mapping[Path, Path]) -> str:
    """Replace temporary names by the names that the user gave."""
    for partial, path in paths.items():
        message = message.replace(str(partial), str(path)).replace(partial.name, path.name)
    return message


def _mode(path: Path) -> int | None:
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


def _stage_file(partial: Path, path: Path) -> None:
    _remove_leftovers(path.parent)
    _staged[partial] = os.getpid()
    # The kernel takes the umask off. What replaces a file is as private as that one from the first byte on.
    mode = 0o666 if _mode(path) is None else 0o600
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode))


def _stage_folder(partial: Path, path: Path) -> None:
    _remove_leftovers(path.parent)
    _staged[partial] = os.getpid()
    partial.mkdir()


def _finish_file(partial: Path, path: Path) -> None:
    """Flush a staged file to the disk with the mode of the one it replaces; raises OutputError where it is empty."""
    handle = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(handle).st_size == 0:
            raise OutputError(f"{path}: nothing was written: is the disk full?")
        try:
            old = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            old = None
        if old is not None:
            writable = stat.S_IWUSR if path.is_symlink() else 0
            with suppress(OSError):  # only root may hand a file to its owner
                os.fchown(handle, old.st_uid, old.st_gid)
            with suppress(OSError):  # a disk without modes
                os.fchmod(handle, stat.S_IMODE(old.st_mode) & 0o777 | writable)
        _fsync(handle)
    finally:
        os.close(handle)


def _to_disk(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _fsync(handle)
    finally:
        os.close(handle)


def _fsync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks know no fsync
            raise


def _safetensor_error() -> type[Exception]:
    from safetensors import SafetensorError

    return SafetensorError


def _suffix(path: Path) -> str:
    return ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix


def _machine_id() -> str:
    """Identify this machine, or container (whose process numbers are its own), among others that use the same disk."""
    import hashlib  # with socket 30 ms, which `crossalign --help` should not wait for
    import socket

    try:
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        processes = ""
    return hashlib.sha256(f"{socket.gethostname()}|{processes}".encode()).hexdigest()[:8]


def _partial_name(path: Path, suffix: str) -> Path:
    return path.parent / f"{PARTIAL}{_machine_id()}-{os.getpid()}-{os.urandom(4).hex()}{suffix}"


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
    if found is None or found.group(1) != _machine_id():
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
