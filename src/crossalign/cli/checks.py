"""What several commands share: their outcome, the device, the files that they read and write, and warnings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from crossalign.cli.console import input_warnings
from crossalign.errors import InputError, InputWarning, OutputError
from crossalign.images.files.dicom.series import dicom_files
from crossalign.models.model_file import WEIGHT_SUFFIXES
from crossalign.models.pretrained import shipped_path


def pick_device(name: str) -> torch.device:
    """Turn `auto`, `cpu` or `cuda` into a device; auto takes the GPU where there is one. Raises InputError."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here: use --device auto or cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise OutputError where an output is an input of the same run, or two outputs are one file.

    Links of both kinds are followed, and on a disk that ignores case so is the name. The files of voxels that a header
    names are inputs too.
    """
    taken = {identity for path in inputs for part in (path, *_behind(path)) for identity in _identities(part)}
    seen: set[object] = set()
    for path in outputs:
        identities = _identities(path)
        if identities & taken:
            raise OutputError(f"{path}: is an input of this run: write to another file")
        if identities & seen:
            raise OutputError(f"{path}: is named for two outputs: give each its own file")
        seen |= identities


def weight_files(spelled: str | None) -> tuple[Path, ...]:
    """Name the files behind a method: weight files joined with +, those of shipped weights, or none."""
    if not spelled:
        return ()
    name = spelled.partition(":")[0]
    if (path := shipped_path(name)) is not None:
        return (path,)
    return tuple(Path(part) for part in spelled.split("+") if part.endswith(WEIGHT_SUFFIXES))


def files_in(folder: Path) -> tuple[Path, ...]:
    """List every file in a folder and its folders, in order of their names: the outputs of a command that made it."""
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


def _behind(path: Path) -> tuple[Path, ...]:
    """Return the files of voxels behind a header or in a folder; none where they cannot be read, as a reader tells."""
    from crossalign.training.data_record import detached_files

    try:
        if path.is_dir():
            return tuple(dicom_files(path, path.name))
        return tuple(detached_files(path)) if path.is_file() else ()
    except OSError:
        return ()


def _identities(path: Path) -> set[object]:
    """Return what tells a file from others: its name without links, and its place on the disk where it exists."""
    found = Path(os.path.realpath(path))
    name = str(found).casefold() if _ignores_case(found.parent) else str(found)
    try:
        place = found.stat()
    except OSError:
        return {name}
    return {name, (place.st_dev, place.st_ino)}


def _ignores_case(folder: Path) -> bool:
    other = folder.with_name(folder.name.swapcase()) if folder.name else folder
    try:
        return other.name != folder.name and other.samefile(folder)
    except OSError:
        return False


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect what the readers warn of (InputWarning) in a list, each text once, in place of issuing it.

    For commands that put the warnings of their inputs into the result: reports and JSON files then carry them. They are
    issued after all where the block ends in an error: what was odd about an input may be its cause.
    """
    texts: list[str] = []
    try:
        with input_warnings(texts.append):
            yield texts
    except BaseException:
        for text in texts:
            warnings.warn(text, InputWarning, stacklevel=3)
        raise
