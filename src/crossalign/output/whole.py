"""Output files and folders that appear whole or not at all, and never in place of something of the user's.

What is written goes to a temporary name in the same folder (`.crossalign-partial-...`), is flushed to the disk and
checked, and is renamed last. A process that is killed leaves such a name behind; the next one that writes into the
folder removes it, where the process that made it has ended.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from crossalign.errors import OutputError
from crossalign.output.checks import check_new_folder, check_output, mode, reason
from crossalign.output.partials import partial_name, stage, unstage


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
    partial = partial_name(path, "")
    try:
        stage(partial)
        partial.mkdir()
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
        unstage(partial)
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


@contextmanager
def _whole(suffixes: Mapping[Path, str], overwrite: bool) -> Iterator[tuple[Path, ...]]:
    paths: dict[Path, Path] = {}
    try:
        for path, suffix in suffixes.items():
            check_output(path, overwrite)
            partial = partial_name(path, suffix)
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
            unstage(partial)


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


def _stage_file(partial: Path, path: Path) -> None:
    stage(partial)
    # The kernel takes the umask off. What replaces a file is as private as that one from the first byte on.
    access = 0o666 if mode(path) is None else 0o600
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, access))


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
