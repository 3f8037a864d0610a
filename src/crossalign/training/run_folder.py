"""The folder of a run: what may be written into it, and that what it holds belongs to the run at hand."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from crossalign.errors import InputError, OutputError
from crossalign.input import read_json, shown
from crossalign.output import PARTIAL, reason
from crossalign.training.data_record import changes

SETTINGS, HISTORY, LOG = "settings.json", "history.csv", "tensorboard"
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
DATA = "data"  # the entry of settings.json that says what was trained on
LEFT = (PARTIAL, ".partial-")  # how names begin that a killed process leaves behind
RUN = {"steps", "batch", "seed"}  # settings that every run has


def check_run_folder(folder: Path) -> None:
    """Raise OutputError where a run can neither begin nor go on in a folder.

    A folder is fit that does not exist yet, is empty, holds a run, or holds no more than what a run leaves that was
    killed before its first file was whole.
    """
    if "\0" in str(folder):
        raise OutputError(f"{shown(folder, 200)}: the name holds a NUL character: name another folder")
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file, expected a folder for the run")
        if not folder.absolute().parent.is_dir():
            raise OutputError(f"{folder}: {folder.parent} is not a folder that exists: make it first")
        place = folder if folder.is_dir() else folder.absolute().parent
        if not os.access(place, os.W_OK | os.X_OK):
            raise OutputError(f"{folder}: {place} cannot be written to: name another folder")
        if folder.is_dir() and not any((folder / name).is_file() for name in (SETTINGS, LAST, PREVIOUS)):
            _check_contents(folder)
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # a name that is too long or holds a NUL, a folder that is locked
        raise OutputError(f"{shown(folder, 200)}: cannot be used for a run: {reason(error)}") from error


def _check_contents(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        log = path.name == LOG and path.is_dir() and all("tfevents" in entry.name for entry in path.iterdir())
        if not log and not path.name.startswith(LEFT):
            raise OutputError(f"{folder}: holds other files than a run ('{shown(path.name)}'): name a new folder")


def check_saved_settings(folder: Path, settings: Mapping[str, object], begun: bool) -> None:
    """Raise InputError where settings.json is damaged, not a run's, or (of one that has `begun`) not these settings."""
    path = folder / SETTINGS
    if not os.path.lexists(path):
        return
    way_out = "delete it: it is written again from the checkpoint" if begun else "move it away, or name another folder"
    try:
        saved = read_json(path)
    except InputError as error:
        raise InputError(f"{error}: {way_out}") from error
    if not isinstance(saved, dict) or not set(saved) >= RUN:
        raise InputError(f"{path}: does not hold the settings of a run ({', '.join(sorted(RUN))}, ...): {way_out}")
    saved.pop(DATA, None)
    changed = changes(saved, settings)
    if begun and changed:
        raise InputError(
            f"{path}: is not what the run was begun with ({'; '.join(changed)}): put it back, or {way_out}"
        )


def check_same_run(
    folder: Path, saved: tuple[Mapping[str, object], Mapping[str, object]],
    now: tuple[Mapping[str, object], Mapping[str, object]],
) -> None:  # fmt: skip
    """Compare a run's settings and data with those at hand; raises OutputError that names what differs."""
    if changed := changes(saved[0], now[0]):
        raise OutputError(
            f"{folder}: holds a run with other settings: name another folder, or give those that it was begun with "
            f"({'; '.join(changed)})"
        )
    if changed := changes(saved[1], now[1]):
        raise OutputError(
            f"{folder}: holds a run on other data: name another folder, or put the data back ({'; '.join(changed)})"
        )


def settings_text(settings: Mapping[str, object], data: Mapping[str, object]) -> str:
    """Write what settings.json holds."""
    return json.dumps({**settings, DATA: data}, indent=2) + "\n"


def discard_new_folder(folder: Path) -> None:
    """Remove a folder that a run made and did nothing in; what is not the run's stays."""
    for path in (folder / SETTINGS, folder / HISTORY, *sorted((folder / LOG).glob("*tfevents*"))):
        path.unlink(missing_ok=True)
    for place in (folder / LOG, folder):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
