"""Checkpoints: one safetensors file with all that a run needs to go on as if it had never stopped."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from crossalign.errors import WeightsError
from crossalign.output import whole_file

UNUSABLE = (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, the best validation SRE so far (mm), seconds trained, the settings' text."""

    step: int
    best_sre_mm: float
    seconds: float
    settings: str


def save_checkpoint(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write model, running mean, optimizer state and progress; each step has its own seed, so no random state."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in (("model", model), ("average", average)):
        tensors |= {f"{prefix}/{name}": value for name, value in module.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with whole_file(path, overwrite=True) as partial:
        save_file(tensors, partial, {"progress": json.dumps(vars(progress))})


def read_progress(path: Path) -> Progress:
    """Read where a run stands without its tensors; raises WeightsError."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return Progress(**json.loads((file.metadata() or {})["progress"]))
    except UNUSABLE as error:
        raise _refusal(path, error) from error


def load_checkpoint(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore what `save_checkpoint` wrote into the three; raises WeightsError."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        model.load_state_dict(_under("model/", tensors))
        average.load_state_dict(_under("average/", tensors))
        _load_optimizer(_under("optimizer/", tensors), optimizer)
    except UNUSABLE as error:
        raise _refusal(path, error) from error


def _load_optimizer(tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, leaf = name.partition("/")
        like = parameters[int(number)]
        if value.dim() and value.shape != like.shape:
            raise ValueError(f"optimizer state {name} is {tuple(value.shape)}, expected {tuple(like.shape)}")
        # Moments take their parameter's layout in memory, as they had it: kernels may round by layout.
        state.setdefault(int(number), {})[leaf] = torch.empty_like(like).copy_(value) if value.dim() else value
    if len(state) != len(parameters):
        raise ValueError(f"it holds the optimizer's state of {len(state)} tensors, expected {len(parameters)}")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _refusal(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path}: not a checkpoint of this run: {' '.join(str(error).split())[:300]}")


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
