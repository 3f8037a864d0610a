"""The model file: stages, how they are combined and run, calibration and card in one sealed safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from crossalign.errors import InputError, WeightsError
from crossalign.fields import settings_of
from crossalign.input import excerpt, parse_json
from crossalign.models.card import Card
from crossalign.models.tensor_files import (
    GIB,
    SEAL,
    FileKind,
    TensorHeader,
    check_finite,
    check_seal,
    digest_of,
    load_tensors,
    read_header,
    refused,
    save_tensors,
)

Settings = TypeVar("Settings")
FORMAT = "crossalign-model-1"
KIND = FileKind(limit_bytes=GIB)
MOST_STAGES = 100
# What settings or weights of another version, or of somebody else's making, lead to.
UNFIT = (AttributeError, LookupError, TypeError, ValueError, RuntimeError)
TASKS = {
    "registration": "a registration network: for `register --method` and `train --from`",
    "fusion": "a fusion network: for `fuse --method`",
    "extractors": "pre-trained extractors: for `train --pretrained`",
}


@dataclass(frozen=True)
class Task(Generic[Settings]):
    """What networks are for, and how one is built from its settings.

    `rename` maps the names of tensors that earlier versions wrote to today's.
    """

    name: str
    settings: type[Settings]
    build: Callable[[Settings], nn.Module]
    rename: Callable[[str], str] = str


@dataclass(frozen=True, eq=False)
class StoredStage:
    """A stage as a file holds it: settings as JSON, notes, the shapes and types of its tensors, and their digest.

    Its tensors have names that begin with `prefix`, in `file`: the model file itself, or one beside it. Stages of
    earlier versions have no digest.
    """

    settings: Mapping[str, Any]
    notes: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]
    sha256: str | None
    prefix: str
    file: Path


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model file whose header is fine; its tensors are read by `tensors` and `networks`.

    `run` and `calibration` are JSON. `made_for` is the number of stages that they were made for: files of earlier
    versions held one stage each, the last of them the settings of all. `initial_stage` is the number of the stage that
    training goes on from.
    """

    path: Path
    task: str
    stages: tuple[StoredStage, ...]
    arrangement: object = 1
    run: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    card: Card = field(default_factory=Card)
    initial_stage: int = 1
    made_for: int = 1

    def megabytes(self) -> float:
        """Return the size of the file, without stages that another one holds."""
        return self.path.stat().st_size / 1e6

    def tensors(self) -> tuple[dict[str, Tensor], ...]:
        """Read each stage's tensors by name; raises WeightsError that names a stage that is not what was written."""
        files = {path: load_tensors(path, KIND) for path in dict.fromkeys(stage.file for stage in self.stages)}
        stages = []
        for number, stage in enumerate(self.stages, start=1):
            held = files[stage.file]
            stages.append({name: held[stage.prefix + name] for name in stage.shapes})
            self._check_digest(number, stage, stages[-1])
        for path, held in files.items():
            check_seal(held, read_header(path, KIND), path, KIND)
            check_finite(held, path, KIND)
        return tuple(stages)

    def _check_digest(self, number: int, stage: StoredStage, tensors: Mapping[str, Tensor]) -> None:
        got = stage.sha256 and stage_digest(tensors, stage.settings)
        if got == stage.sha256:
            return
        others = [n for n, other in enumerate(self.stages, start=1) if other.sha256 == got]
        fault = f"it is stage {others[0]}, in another's place" if others else "it was altered"
        raise refused(
            self.path, KIND, f"stage {number} of {len(self.stages)} is not what was written (SHA-256): {fault}"
        )

    def networks(self, task: Task[Settings], device: torch.device | str = "cpu") -> list[tuple[nn.Module, Settings]]:
        """Build each stage's network, in eval mode, with its weights; raises WeightsError where they do not fit.

        Names and shapes are compared on torch's meta device first: settings that ask for more than the file holds
        cost no memory.
        """
        try:
            settings = [settings_of(task.settings, stage.settings) for stage in self.stages]
            for stage, values in zip(self.stages, settings, strict=True):
                with torch.device("meta"):
                    expected = task.build(values).state_dict()
                _check_names(self.path, stage, {task.rename(name): name for name in stage.shapes}, expected)
            networks = []
            for tensors, values in zip(self.tensors(), settings, strict=True):
                network = task.build(values)
                network.load_state_dict({task.rename(name): value for name, value in tensors.items()})
                networks.append((network.to(device).eval(), values))
        except WeightsError:
            raise
        except UNFIT as error:
            raise unfit(self.path, error) from error
        return networks


@dataclass(frozen=True, eq=False)
class StageContents:
    """What a file is to hold of a stage."""

    tensors: Mapping[str, Tensor]
    settings: object
    notes: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class ModelContents:
    """What a model file is to hold; `run`, `calibration` and the stages' settings are dataclasses, or JSON values.

    A stage whose digest is a key of `beside` is not written again: the model file of that name, in the same folder,
    holds it.
    """

    task: str
    stages: Sequence[StageContents]
    arrangement: object = 1
    run: object = None
    calibration: object = None
    card: Card = field(default_factory=Card)
    initial_stage: int = 1
    beside: Mapping[str, str] = field(default_factory=dict)


def save_model_file(contents: ModelContents, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a model file. Raises OutputError."""
    tensors: dict[str, Tensor] = {}
    stages: list[dict[str, object]] = []
    for number, stage in enumerate(contents.stages, start=1):
        settings = json.loads(json.dumps(_values(stage.settings)))
        digest = stage_digest(stage.tensors, settings)
        if digest in contents.beside:
            stages.append({"sha256": digest, "file": contents.beside[digest]})
            continue
        tensors |= {f"{number}.{name}": value for name, value in stage.tensors.items()}
        stages.append({"sha256": digest, "settings": settings, "notes": dict(stage.notes)})
    model = {
        "task": contents.task,
        "stages": stages,
        "arrangement": contents.arrangement,
        "run": _values(contents.run) or {},
        "calibration": _values(contents.calibration),
        "card": asdict(contents.card),
        "initial_stage": contents.initial_stage,
    }
    save_tensors(tensors, {"format": FORMAT, "model": json.dumps(model)}, Path(path), overwrite)


def stage_digest(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hexadecimal) of a stage's weights and settings."""
    return digest_of(tensors, {"settings": json.dumps(settings, sort_keys=True)})


def read_model_file(path: str | os.PathLike[str], task: str | None = None) -> ModelFile:
    """Read a model file, or a weight file of an earlier version, all but the tensors.

    Raises WeightsError where it is missing, damaged, or not for this task (None: for any).
    """
    from crossalign.models.earlier_files import FORMATS, read_earlier_file

    path = Path(path)
    if "\0" not in str(path) and not os.path.lexists(path):
        raise WeightsError(f"{excerpt(path, 200)}: no such weight file")
    header = read_header(path, KIND)
    held = header.metadata.get("format")
    if held != FORMAT and held not in FORMATS:
        checkpoint = "it is the checkpoint of a training run: take best.safetensors beside it"
        reason = checkpoint if "progress" in header.metadata else f"format '{excerpt(held)}'"
        raise WeightsError(f"{path.name}: no model file of crossalign ({reason})")
    file = read_earlier_file(path, header) if held in FORMATS else _read(path, header)
    if task is not None and file.task != task:
        what = TASKS.get(task, task).partition(":")[0]
        raise WeightsError(f"{path.name}: does not hold {what}, but {TASKS[file.task]}")
    return file


def _read(path: Path, header: TensorHeader) -> ModelFile:
    if odd := sorted(set(header.metadata) - {"format", "model", SEAL}):
        raise refused(path, KIND, f"its metadata holds '{excerpt(odd[0])}', which crossalign does not write")
    if SEAL not in header.metadata:
        raise refused(path, KIND, "it has no digest (SHA-256)")
    try:
        model = parse_json(header.metadata["model"], "its description")
        entries = model["stages"]
        if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_STAGES or model["task"] not in TASKS:
            raise InputError(f"it needs 1 to {MOST_STAGES} stages and one task of {', '.join(TASKS)}")
        return ModelFile(
            path=path,
            task=model["task"],
            stages=tuple(_stage(path, header, n, entry, len(entries)) for n, entry in enumerate(entries, start=1)),
            arrangement=model["arrangement"],
            run=dict(model["run"]),
            calibration=None if model["calibration"] is None else dict(model["calibration"]),
            card=settings_of(Card, model["card"]),
            initial_stage=min(max(1, int(model["initial_stage"])), len(entries)),
            made_for=len(entries),
        )
    except WeightsError:
        raise
    except UNFIT as error:
        raise unfit(path, error) from error


def _stage(path: Path, header: TensorHeader, number: int, entry: Mapping[str, Any], count: int) -> StoredStage:
    """Find a stage's tensors: in this file, or in the one that its entry names."""
    digest, prefix = str(entry["sha256"]), f"{number}."
    if "file" in entry:
        return _stage_beside(path, number, str(entry["file"]), digest)
    if not any(name.startswith(prefix) for name in header.shapes):
        raise refused(path, KIND, f"stage {number} of {count} is missing")
    notes = {str(name): str(value) for name, value in entry["notes"].items()}
    return StoredStage(dict(entry["settings"]), notes, *_under(prefix, header), digest, prefix, path)


def _stage_beside(path: Path, number: int, name: str, digest: str) -> StoredStage:
    other = path.with_name(Path(name).name)
    try:
        header = read_header(other, KIND)
        entries = parse_json(header.metadata["model"], "its description")["stages"]
        place = next(n for n, entry in enumerate(entries) if entry["sha256"] == digest and "file" not in entry)
    except (InputError, StopIteration, *UNFIT) as error:
        raise WeightsError(
            f"{path.name}: stage {number} is held by {excerpt(other.name)} beside it, which is missing or holds it no "
            "longer: keep both files together"
        ) from error
    return _stage(other, header, place + 1, entries[place], len(entries))


def _under(prefix: str, header: TensorHeader) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    names = [name for name in header.shapes if name.startswith(prefix)]
    return (
        {name.removeprefix(prefix): header.shapes[name] for name in names},
        {name.removeprefix(prefix): header.types[name] for name in names},
    )


def _check_names(path: Path, stage: StoredStage, names: Mapping[str, str], expected: Mapping[str, Tensor]) -> None:
    """Raise WeightsError where the tensors (by today's names) are not those that a network has."""
    for name in sorted({*expected} | {*names}):
        wanted, got = expected.get(name), stage.shapes.get(names.get(name, ""))
        if wanted is None or got is None:
            fault = (
                f"the weights hold '{excerpt(name)}', which the network has not"
                if wanted is None
                else f"'{name}' is missing"
            )
        elif got != tuple(wanted.shape):
            fault = f"'{name}' has the shape {got}, expected {tuple(wanted.shape)}"
        elif ("F" in stage.types[names[name]]) != wanted.dtype.is_floating_point:
            fault = f"'{name}' is of type {stage.types[names[name]]}, expected {wanted.dtype}"
        else:
            continue
        raise unfit(path, fault)


def unfit(path: str | os.PathLike[str], error: object) -> WeightsError:
    """Make the error for settings and weights that are not of this version."""
    return WeightsError(
        f"{excerpt(Path(path).name)}: settings and weights do not fit this version: {excerpt(error, 300)}: "
        "use a file that `crossalign train`, `train-fusion` or `pretrain` wrote, or train it again"
    )


def _values(settings: Any) -> Any:
    return asdict(settings) if hasattr(settings, "__dataclass_fields__") else settings
