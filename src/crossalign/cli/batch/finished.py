"""The file that says that a case is finished: of which inputs and settings, what came out, and its picture.

It is written last, whole or not at all. A case counts as finished where the file can be read and every output that it
names is there with the size that it had.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import crossalign
from crossalign.cli.batch.jobs import Job
from crossalign.cli.checks import weight_files
from crossalign.cli.initialisation import transform_file
from crossalign.cli.methods import chosen_method
from crossalign.cli.options import Given
from crossalign.cli.requests.registration import CaseOptions, RegisterRequest
from crossalign.errors import InputError
from crossalign.fields import settings_of
from crossalign.images.files.dicom.series import dicom_files, is_dicom
from crossalign.input import read_json
from crossalign.output import whole_file, write_text
from crossalign.training.data_record import detached_files

FORMAT = "crossalign batch case 1"
PARTS = ("fixed", "moving", "fixed_mask", "moving_mask", "fixed_landmarks", "moving_landmarks")
PIECE = 1 << 20


@dataclass(frozen=True)
class CaseResult:
    """What a table and a page say of one case. `error` is why it failed, "" where it did not; the rest is then empty.

    `seconds` is the whole case's: reading, registering and writing. `thumbnail` is a JPEG as base64. `earlier` says
    that an earlier run made it.
    """

    name: str
    error: str = ""
    method: str = ""
    expected_sre_mm: float | None = None
    trusted: bool | None = None
    seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    thumbnail: str = ""
    earlier: bool = False


def write_finished(job: Job, inputs: Mapping[str, Any], result: CaseResult) -> None:
    """Write down that a case is finished: its outputs are in place. Raises OutputError."""
    held = {field.name: getattr(result, field.name) for field in fields(result) if field.name != "earlier"}
    content = {
        "format": FORMAT,
        "settings": case_settings(job.request),
        "inputs": inputs,
        "outputs": {path.name: path.stat().st_size for path in job.outputs()},
        "result": held,
        "note": "Research software, not a medical device.",
    }
    with whole_file(job.finished, overwrite=True) as partial:
        write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", partial)


def read_finished(job: Job) -> tuple[CaseResult, tuple[str, ...]] | None:
    """Return what a finished case gave, and how its inputs and settings differ from those of now; None: not finished.

    Outputs that are asked for now and were not then count as settings.
    """
    held = _held(job.finished)
    if held is None:
        return None
    try:
        result = settings_of(CaseResult, held["result"])
    except InputError:
        return None
    folder = job.finished.parent
    if any(_size(folder / name) != size for name, size in held["outputs"].items()):
        return None
    changes = [f"{name} was {then} and is {now}" for name, then, now in _changes(held["settings"], job.request)]
    then, now = held["inputs"], _files(job.request)
    changes += [f"{part} is another file" for part in now.keys() | then.keys() if not _same(then.get(part), now, part)]
    missing = [path.name for path in job.outputs() if path.name not in held["outputs"]]
    changes += [f"{name} was not asked for" for name in missing]
    return replace(result, earlier=True), tuple(sorted(changes))


def input_marks(request: RegisterRequest) -> dict[str, Any]:
    """Return size, time of change and SHA-256 of every input by its part, no name of a file among them."""
    return {part: _mark(paths) | {"sha256": _sha256(paths)} for part, paths in _files(request).items()}


def case_settings(request: RegisterRequest) -> dict[str, Any]:
    """Return everything that decides a result beside the files of the case, as JSON has it."""
    held: dict[str, Any] = {}
    for field in fields(CaseOptions):
        value = getattr(request, field.name)
        held[field.name] = dict(value.values) if isinstance(value, Given) else value
    if transform_file(request.initial) is not None:
        held["initial"] = "a file"  # which is an input
    method = chosen_method(request)[0]
    held["method"] = "+".join(Path(name).name for name in method.split("+"))
    held["weights"] = [_sha256((path,)) for path in weight_files(method)]
    held["crossalign"] = crossalign.__version__
    plain: dict[str, Any] = json.loads(json.dumps(held, default=list))
    return plain


def _held(path: Path) -> dict[str, Any] | None:
    """Read the file; None where it is not there, or is not what this module wrote."""
    try:
        held = read_json(path)
    except InputError:
        return None
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        return None
    parts = ("settings", "inputs", "outputs", "result")
    return held if all(isinstance(held.get(part), dict) for part in parts) else None


def _changes(then: Mapping[str, Any], request: RegisterRequest) -> Iterator[tuple[str, Any, Any]]:
    now = case_settings(request)
    for name in dict.fromkeys((*now, *then)):
        if then.get(name) != now.get(name):
            yield name, _short(name, then.get(name)), _short(name, now.get(name))


def _short(name: str, value: Any) -> str:
    if name == "weights":
        return " + ".join(digest[:8] for digest in value or ()) or "none"
    return json.dumps(value)


def _files(request: RegisterRequest) -> dict[str, tuple[Path, ...]]:
    """Return the files behind each input: those of voxels beside headers, and all of a DICOM folder."""
    named = {part: getattr(request, part) for part in PARTS} | {"initial": transform_file(request.initial)}
    return {part: _behind(path) for part, path in named.items() if path is not None}


def _behind(path: Path) -> tuple[Path, ...]:
    if path.is_dir():
        return tuple(dicom_files(path, path.name))
    if is_dicom(path):  # a file means its series, which is in its folder
        return tuple(dicom_files(path.parent, path.parent.name))
    return (path, *detached_files(path))


def _mark(paths: tuple[Path, ...]) -> dict[str, Any]:
    found = [path.stat() for path in paths]
    changed_ns = max((one.st_mtime_ns for one in found), default=0)
    return {"bytes": sum(one.st_size for one in found), "changed_ns": changed_ns}


def _same(then: Any, now: Mapping[str, tuple[Path, ...]], part: str) -> bool:
    """Say whether an input is as it was: by size and time of change, and where these differ by its content."""
    if not isinstance(then, dict) or part not in now:
        return False
    mark = _mark(now[part])
    if all(then.get(name) == value for name, value in mark.items()):
        return True
    return then.get("bytes") == mark["bytes"] and then.get("sha256") == _sha256(now[part])


def _sha256(paths: tuple[Path, ...]) -> str:
    return _digest(tuple((str(path), (found := path.stat()).st_size, found.st_mtime_ns) for path in paths))


@lru_cache(maxsize=256)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    """Digest the contents of files, each after its size; sizes and times are there for the cache."""
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(size.to_bytes(8, "little"))
        with Path(path).open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
