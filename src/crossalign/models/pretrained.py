"""The models that come in the package: the files of one folder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from crossalign.errors import InputError
from crossalign.models.model_file import ModelFile, read_model_file

FOLDER = Path(str(files("crossalign.models"))) / "weights"
SUFFIX = ".safetensors"


def shipped_names(task: str = "registration") -> tuple[str, ...]:
    """Names of the shipped models for a task, in alphabetical order."""
    return tuple(path.stem for path in _paths() if read_model_file(path).task == task)


def shipped_path(name: str) -> Path | None:
    """Return the file of a shipped model; None where none has this name."""
    return next((path for path in _paths() if path.stem == name), None)


def shipped_file(name: str) -> ModelFile:
    """Read a shipped model's file, all but the tensors; raises InputError for an unknown name."""
    path = shipped_path(name)
    if path is None:
        raise InputError(f"no shipped model is called '{name}': there are {', '.join(one.stem for one in _paths())}")
    return read_model_file(path)


def _paths() -> list[Path]:
    return sorted(FOLDER.glob(f"*{SUFFIX}"), key=lambda path: path.stem)
