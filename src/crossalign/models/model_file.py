"""The model file: stages, how they are combined and run, calibration and card in one sealed safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from crossalign.errors import InputError, WeightsError
from crossalign.fields import Settings, settings_of
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
    read_tensor_header,
    refused,
    save_tensors,
)

MODEL_FORMAT = "crossalign-model-1"
MODEL_FILE = FileKind(limit_bytes=GIB)
MOST_STAGES = 100
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")  # of what may be given as a file of weights
# What settings or weights of another version, or of somebody else's making, lead to.
UNFIT = (AttributeError, LookupError, TypeError, ValueError, RuntimeError)
TASKS = {
    "registration": "a registration network: for `register --method` and `train --from`",
    "fusion": "a fusion network: for `fuse --method`",
    "extractors": "pre-trained extractors: for `train --pretrained`",
    "recognition": "a network that recognises orientations: `register --moving-orientation auto` uses it",
}


@dataclass(frozen=True)
class NetworkTask(Generic[Settings]):
    """What networks are for, and how one is built from its settings.

    `rename` maps the names of tensors that earlier versions wrote to today's.
    """

    name: str
    settings: type[Settings]
    build: Callable[[Settings], nn.Module]
    rename: Callable[[str], str] = str


@dataclass(frozen=True, eq=False)
class StageContents:
    """A stage in a file: its tensors by name, its settings (a dataclass, or JSON once read), and free notes."""

    tensors: Mapping[str, Tensor]
    settings: Any
    notes: Mapping[str, str]

    @cached_property
    def sha256(self) -> str:
        """Digest (hexadecimal) of weights and settings."""
        return digest_of(self.tensors, {"settings": json.dumps(_json(self.settings), sort_keys=True)})


@dataclass(frozen=True, eq=False)
class ModelContents:
    """What a model file holds; `run` and `calibration` are dataclasses, or JSON once read.

    `arrangement` is the number of a stage (from 1), or such parts in `{"cascade": [...]}` or `{"ensemble": [...]}`.
    `initial_stage` is the number of the stage that training goes on from. `made_for` is the number of stages that the
    settings were made for: files of earlier versions held one each, the last of them the settings of all. `path` is the
    file that was read.
    """

    task: str
    stages: Sequence[StageContents]
    arrangement: object = 1
    run: Any = field(default_factory=dict)
    calibration: Any = None
    card: Card = field(default_factory=Card)
    initial_stage: int = 1
    made_for: int = 1
    path: Path = field(default_factory=Path)

    def networks(
        self, task: NetworkTask[Settings], device: torch.device | str = "cpu"
    ) -> list[tuple[nn.Module, Settings]]:
        """Build each stage's network, in eval mode, with its weights; raises WeightsError where they do not fit.

        Names and shapes are compared on torch's meta device first: settings that ask for more than the file holds
        cost no memory.
        """
        networks = []
        try:
            for stage in self.stages:
                settings = settings_of(task.settings, stage.settings)
                tensors = {task.rename(name): value for name, value in stage.tensors.items()}
                with torch.device("meta"):
                    _check_names(tensors, task.build(settings).state_dict())
                network = task.build(settings)
                network.load_state_dict(tensors)
                networks.append((network.to(device).eval(), settings))
        except UNFIT as error:
            raise unfit(self.path, error) from error
        return networks


def save_model_file(
    contents: ModelContents,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    shared: Mapping[str, str] | None = None,
) -> None:
    """Write a model file. Raises OutputError.

    `shared` names model files of the same folder by the digests of stages that they hold: such a stage is not written
    again. So do the package's models, to be small; a user's file holds all of its stages.
    """
    tensors: dict[str, Tensor] = {}
    stages: list[dict[str, object]] = []
    for number, stage in enumerate(contents.stages, start=1):
        if shared is not None and stage.sha256 in shared:
            stages.append({"sha256": stage.sha256, "file": shared[stage.sha256]})
        else:
            tensors |= {f"{number}.{name}": value for name, value in stage.tensors.items()}
            stages.append({"sha256": stage.sha256, "settings": _json(stage.settings), "notes": dict(stage.notes)})
    model = {
        "task": contents.task,
        "stages": stages,
        "arrangement": contents.arrangement,
        "run": _json(contents.run),
        "calibration": _json(contents.calibration),
        "card": _json(contents.card),
        "initial_stage": contents.initial_stage,
    }
    save_tensors(tensors, {"format": MODEL_FORMAT, "model": json.dumps(model)}, Path(path), overwrite)


def read_model_file(path: str | os.PathLike[str], task: str | None = None) -> ModelContents:
    """Read a model file, or a weight file of an earlier version.

    Raises WeightsError where it is missing, not for this task (None: for any), or not what was written; the error
    names a stage that is missing, altered, or another one.
    """
    from crossalign.models.earlier_files import FORMATS, read_earlier_file

    path = Path(path)
    if "\0" not in str(path) and not os.path.lexists(path):
        raise WeightsError(f"{excerpt(path, 200)}: no such weight file")
    header = read_tensor_header(path, MODEL_FILE)
    held = header.metadata.get("format")
    if held != MODEL_FORMAT and held not in FORMATS:
        checkpoint = "it is the checkpoint of a training run: take best.safetensors of the same folder"
        reason = checkpoint if "progress" in header.metadata else f"format '{excerpt(held)}'"
        raise WeightsError(f"{path.name}: no model file of crossalign ({reason})")
    try:
        contents = _read(path, header) if held == MODEL_FORMAT else read_earlier_file(path, header)
    except WeightsError:
        raise
    except UNFIT as error:
        raise unfit(path, error) from error
    if task is not None and contents.task != task:
        what = TASKS.get(task, task).partition(":")[0]
        raise WeightsError(f"{path.name}: does not hold {what}, but {TASKS[contents.task]}")
    return contents


def description_of(path: Path) -> dict[str, Any]:
    """Return what a model file says of itself, without its tensors; raises InputError or LookupError."""
    return dict(parse_json(read_tensor_header(path, MODEL_FILE).metadata["model"], "its description"))


def _read(path: Path, header: TensorHeader) -> ModelContents:
    if odd := sorted(set(header.metadata) - {"format", "model", SEAL}):
        raise refused(path, MODEL_FILE, f"its metadata holds '{excerpt(odd[0])}', which crossalign does not write")
    if SEAL not in header.metadata:
        raise refused(path, MODEL_FILE, "it has no digest (SHA-256)")
    model = description_of(path)
    entries, task = list(model["stages"]), model["task"]
    if not 1 <= len(entries) <= MOST_STAGES or task not in TASKS:
        raise InputError(f"it needs 1 to {MOST_STAGES} stages and one task of {', '.join(TASKS)}")
    tensors = load_tensors(path, MODEL_FILE)
    stages = [
        _shared_stage(path, number, entry) if "file" in entry else _stage(tensors, number, entry)
        for number, entry in enumerate(entries, start=1)
    ]
    _check_digests(path, stages, [str(entry["sha256"]) for entry in entries])
    check_seal(tensors, header, path, MODEL_FILE)
    check_finite(tensors, path, MODEL_FILE)
    return ModelContents(
        task=task,
        stages=stages,
        arrangement=model["arrangement"],
        run=dict(model["run"]),
        calibration=None if model["calibration"] is None else dict(model["calibration"]),
        card=settings_of(Card, model["card"], "card."),
        initial_stage=min(max(1, int(model["initial_stage"])), len(stages)),
        made_for=len(stages),
        path=path,
    )


def _stage(tensors: Mapping[str, Tensor], number: int, entry: Mapping[str, Any]) -> StageContents:
    prefix = f"{number}."
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    notes = {str(name): str(value) for name, value in entry["notes"].items()}
    return StageContents(own, dict(entry["settings"]), notes)


def _shared_stage(path: Path, number: int, entry: Mapping[str, Any]) -> StageContents:
    """Find a stage that another model file of the folder holds."""
    other = path.with_name(Path(str(entry["file"])).name)
    try:
        entries = description_of(other)["stages"]
        found = next(n for n, one in enumerate(entries, start=1) if one["sha256"] == entry["sha256"])
        return _stage(load_tensors(other, MODEL_FILE), found, entries[found - 1])
    except (StopIteration, *UNFIT) as error:
        raise WeightsError(
            f"{path.name}: stage {number} is held by {excerpt(other.name)}, which is missing in the "
            "same folder, or holds it no longer: keep both files in one folder"
        ) from error


def _check_digests(path: Path, stages: Sequence[StageContents], digests: Sequence[str]) -> None:
    for number, (stage, digest) in enumerate(zip(stages, digests, strict=True), start=1):
        if stage.sha256 == digest:
            continue
        if not stage.tensors:
            fault = "is missing"
        elif stage.sha256 in digests:
            fault = f"is not what was written (SHA-256): it is stage {digests.index(stage.sha256) + 1}"
        else:
            fault = "is not what was written (SHA-256): it was altered"
        raise refused(path, MODEL_FILE, f"stage {number} of {len(stages)} {fault}")


def _check_names(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise InputError where the tensors are not those that a network has."""
    for name in sorted({*expected} | {*tensors}):
        wanted, got = expected.get(name), tensors.get(name)
        if wanted is None:
            raise InputError(f"the weights hold '{excerpt(name)}', which the network has not")
        if got is None:
            raise InputError(f"'{name}' is missing")
        if got.shape != wanted.shape:
            raise InputError(f"'{name}' has the shape {tuple(got.shape)}, expected {tuple(wanted.shape)}")
        if got.dtype.is_floating_point != wanted.dtype.is_floating_point:
            raise InputError(f"'{name}' is of type {got.dtype}, expected {wanted.dtype}")


def unfit(path: str | os.PathLike[str], error: object) -> WeightsError:
    """Make the error for settings and weights that are not of this version."""
    return WeightsError(
        f"{excerpt(Path(path).name)}: settings and weights do not fit this version: {excerpt(error, 300)}: "
        "use a file that `crossalign train`, `train-fusion` or `pretrain` wrote, or train it again"
    )


def _json(settings: Any) -> Any:
    """Return settings as JSON holds them: entries by name, lists for tuples."""
    values = asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else settings
    return json.loads(json.dumps(values))
