"""The models that come in the package: the files of one folder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from crossalign.errors import InputError
from crossalign.models.model_file import UNFIT, ModelContents, description_of, read_model_file

WEIGHTS_FOLDER = Path(str(files("crossalign.models"))) / "weights"


def shipped_names(task: str = "registration") -> tuple[str, ...]:
    """Names of the shipped models for a task, in alphabetical order."""
    return tuple(path.stem for path in _paths() if _task(path) == task)


def shipped_path(name: str) -> Path | None:
    """Return the file of a shipped model; None where none has this name."""
    return next((path for path in _paths() if path.stem == name), None)


def shipped_file(name: str) -> ModelContents:
    """Read a shipped model's file; raises InputError for an unknown name, WeightsError where it is damaged."""
    path = shipped_path(name)
    if path is None:
        raise InputError(f"no shipped model is called '{name}': there are {', '.join(one.stem for one in _paths())}")
    return read_model_file(path)


def _task(path: Path) -> object:
    try:
        return description_of(path).get("task")
    except UNFIT:  # damaged: loading it says how
        return None


def _paths() -> list[Path]:
    return sorted(WEIGHTS_FOLDER.glob("*.safetensors"), key=lambda path: path.stem)
