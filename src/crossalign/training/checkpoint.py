"""Checkpoints: one safetensors file with all that a run needs to go on as if it had never stopped."""

import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossalign.errors import InputError, InputWarning, WeightsError
from crossalign.input import excerpt, parse_json
from crossalign.models.tensor_files import GIB, SEAL, FileKind, read_tensor_header, read_tensors, refused, save_tensors
from crossalign.output import whole_file
from crossalign.training.run_folder import LAST, PREVIOUS

UNUSABLE = (LookupError, TypeError, ValueError, RuntimeError)
KIND = FileKind("not a checkpoint of this run", WeightsError, 16 * GIB)
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # what AdamW keeps of each parameter
FIELDS = {"step", "best_measure", "seconds", "settings"}
LATER = {"best_step", "data"}  # which earlier versions did not write
OLD_NAMES = {"best_sre_mm": "best_measure"}  # of fields in files of earlier versions


@dataclass(frozen=True)
class RunProgress:
    """Where a run stands: steps done, the best measure so far and its step, seconds trained, settings and data.

    `best_measure` is infinite ahead of the first validation. Settings and data are JSON; earlier versions wrote the
    settings alone.
    """

    step: int
    best_measure: float
    seconds: float
    settings: str
    best_step: int = 0
    data: str = ""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint as it was read: whole, its digest right."""

    path: Path
    progress: RunProgress
    tensors: dict[str, Tensor]

    def settings(self) -> Mapping[str, object]:
        """Return the settings that the run was begun with."""
        return self._values(self.progress.settings)

    def data(self) -> Mapping[str, object] | None:
        """Return the record of the data that it was begun with; None for a run of an earlier version."""
        return self._values(self.progress.data) if self.progress.data else None

    def _values(self, text: str) -> Mapping[str, object]:
        try:
            values = parse_json(text, "what it was begun with")
        except InputError as error:
            raise _refusal(self.path, error) from error
        if not isinstance(values, dict):
            raise _refusal(self.path, ValueError("it does not say what the run was begun with"))
        return values

    def restore(
        self,
        model: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
        rename: Callable[[str], str] = str,
    ) -> None:
        """Put it into the three; raises WeightsError where it is of another network.

        `rename` gives weights of an earlier version today's names.
        """
        try:
            for prefix, network in (("model/", model), ("average/", average)):
                weights = _under(prefix, self.tensors)
                network.load_state_dict({rename(name): value for name, value in weights.items()})
            _load_optimizer(_under("optimizer/", self.tensors), optimizer)
        except UNUSABLE as error:
            raise _refusal(self.path, error) from error


def save_checkpoint(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, progress: RunProgress
) -> None:
    """Write network, averaged weights, optimizer state and progress; each step has its own seed, so no random state.

    The checkpoint before it is kept as PREVIOUS beside it.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, module in (("model", model), ("average", average)):
        tensors |= {f"{prefix}/{name}": value for name, value in module.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    if path.is_file():
        with whole_file(path.with_name(PREVIOUS), overwrite=True) as partial:
            shutil.copyfile(path, partial)
    save_tensors(tensors, {"progress": _text(progress)}, path, overwrite=True)


def find_checkpoint(folder: Path, steps: int) -> Checkpoint | None:
    """Read the last checkpoint of a run of so many steps, or the one before it where that is gone; None: there is none.

    Raises WeightsError where it is damaged.
    """
    for name in (LAST, PREVIOUS):
        if os.path.lexists(folder / name):
            return read_checkpoint(folder / name, steps)
    return None


def read_checkpoint(path: Path, steps: int | None = None) -> Checkpoint:
    """Read a checkpoint of a run of so many steps (None: of any).

    Raises WeightsError where anything in it is not as it was written. One of an earlier version has no digest: it is
    read with an InputWarning.
    """
    try:
        header = read_tensor_header(path, KIND)
        if odd := sorted(set(header.metadata) - {"progress", SEAL}):
            raise refused(path, KIND, f"its metadata holds '{excerpt(odd[0])}'")
        progress = _progress(header.metadata["progress"], SEAL in header.metadata)
        if steps is not None and progress.step > steps:
            raise ValueError(f"'step' is {progress.step}, the run has {steps}")
        tensors = read_tensors(path, KIND, header)
    except UNUSABLE as error:
        raise _refusal(path, error) from error
    if SEAL not in header.metadata:
        warnings.warn(
            f"{path}: was written by an earlier version, without a digest: damage to it would not be found",
            InputWarning,
            stacklevel=2,
        )
    return Checkpoint(path, progress, tensors)


def _text(progress: RunProgress) -> str:
    best = progress.best_measure
    return json.dumps({**vars(progress), "best_measure": best if math.isfinite(best) else None})


def _progress(text: str, sealed: bool) -> RunProgress:
    """Read what `_text` wrote, each value of its type and within its range; raises ValueError."""
    values = parse_json(_todays(text, sealed), "'progress'")
    names = set(values) if isinstance(values, dict) else set()
    if not FIELDS <= names <= FIELDS | LATER:
        raise ValueError(f"its progress has {excerpt(sorted(names))}, expected {sorted(FIELDS | LATER)}")
    for name in ("step", "best_step"):
        if type(values.get(name, 0)) is not int or values.get(name, 0) < 0:
            raise ValueError(f"'{name}' must be a whole number, 0 or more, got {excerpt(values[name])}")
    best = math.inf if values["best_measure"] is None else values["best_measure"]
    for name, value in (("best_measure", best), ("seconds", values["seconds"])):
        if type(value) not in (int, float) or not value >= 0:
            raise ValueError(f"'{name}' must be a number, 0 or more, got {excerpt(value)}")
    for name in ("settings", "data"):
        if not isinstance(values.get(name, ""), str):
            raise ValueError(f"'{name}' must be text, got {excerpt(values[name])}")
    if values.get("best_step", 0) > values["step"]:
        raise ValueError(f"'best_step' is {values['best_step']}, after 'step' {values['step']}")
    return RunProgress(**{**values, "best_measure": float(best)})


def _todays(text: str, sealed: bool) -> str:
    """Rewrite the progress that an earlier version wrote: other names, and without a seal what is no number of JSON."""
    for old, new in OLD_NAMES.items():
        text = text.replace(f'"{old}":', f'"{new}":')
    return text if sealed else text.replace('"best_measure": Infinity', '"best_measure": null')


def _load_optimizer(tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, leaf = name.partition("/")
        if not number.isdecimal() or int(number) >= len(parameters) or leaf not in MOMENTS:
            raise ValueError(f"optimizer state '{excerpt(name)}' is none of this network's")
        like = parameters[int(number)]
        if value.shape != (() if leaf == "step" else like.shape):
            raise ValueError(f"optimizer state {name} is {tuple(value.shape)}, expected {tuple(like.shape)}")
        # Moments take their parameter's layout in memory, as they had it: kernels may round by layout.
        state.setdefault(int(number), {})[leaf] = torch.empty_like(like).copy_(value) if value.dim() else value
    if len(state) != len(parameters) or any(set(one) != MOMENTS for one in state.values()):
        raise ValueError(f"it holds the optimizer's state of {len(state)} tensors, expected {len(parameters)}")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _refusal(path: Path, error: Exception) -> WeightsError:
    """Say what is wrong with a checkpoint, and what to do."""
    said = str(error) if isinstance(error, InputError) and KIND.refusal in str(error) else ""
    fault = said or f"{path.name}: {KIND.refusal}: {excerpt(error, 300)}"
    other = path.with_name(PREVIOUS)
    if path.name == LAST and other.is_file():
        return WeightsError(
            f"{path.parent}: {fault}: delete it, and the run goes on from {PREVIOUS}, the one before it"
        )
    return WeightsError(f"{path.parent}: {fault}: delete it, and the run begins again, or name another folder")


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
