"""Training in several processes: torch's process group and DistributedDataParallel, by Accelerate.

Something must have started the processes and told each its place in the environment: `crossalign train --devices N`,
or torchrun, on one machine or several.
"""

import os
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from crossalign.errors import CrossalignError
from crossalign.extras import optional_module
from crossalign.training.global_batch_norm import synchronise_norms
from crossalign.training.processes import ALONE, Part, Processes

T = TypeVar("T")
PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LOST = ("gloo", "Connection closed", "Connection reset", "Broken pipe", "NCCL", "nccl", "TCPStore")


class ProcessLostError(CrossalignError, RuntimeError):
    """Another process of a training ended before it was done."""


def is_one_of_several() -> bool:
    """Tell whether this process was started as one of several (by torchrun, or `train --devices`)."""
    return all(name in os.environ for name in PLACE) and int(os.environ["WORLD_SIZE"]) > 1


def check_accelerate() -> None:
    """Raise InputError where Accelerate is not installed."""
    optional_module("accelerate", "training in several processes needs accelerate", "distributed")


def join_processes(device: torch.device | None = None) -> tuple[Processes, torch.device]:
    """Join the processes that this one was started with; return them and the device that is this one's.

    On a CPU they talk by gloo, on GPUs by NCCL. A process that was started by itself is alone. Raises InputError where
    Accelerate is not installed.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not is_one_of_several():
        return ALONE, device
    check_accelerate()
    joined = AcceleratedProcesses(cpu=device.type == "cpu")
    return joined, joined.device


class AcceleratedProcesses(Processes):
    """The processes of torch's default group.

    `find_unused_parameters` serves networks with parts that a loss does not train. It also keeps the order in which
    gradients are summed, so that a run goes on bit for bit in the same number of processes.
    """

    def __init__(self, cpu: bool) -> None:
        accelerate: Any = import_module("accelerate")
        self._accelerate: Any = accelerate
        kwargs = accelerate.DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
        self._accelerator = accelerate.Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[kwargs])
        self.rank: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes
        self.device: torch.device = self._accelerator.device

    def is_first(self) -> bool:
        """Tell whether this is rank 0."""
        return self.rank == 0

    def part(self, size: int) -> Part:
        """Return this process's part of a batch."""
        return Part.of(size, self.rank, self.count)

    def prepare(self, model: nn.Module) -> None:
        """Replace its batch normalisation."""
        synchronise_norms(model)

    def wrap(self, loss: nn.Module) -> Callable[[int], Tensor]:
        """Return it within DistributedDataParallel."""
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # as Accelerate sets it
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)  # 1 x 1 x 1
        wrapped: nn.Module = self._accelerator.prepare_model(loss)

        def compute(step: int) -> Tensor:
            with _says_who_was_lost():
                value: Tensor = wrapped(step)
                return value

        return compute

    def mean(self, value: Tensor) -> Tensor:
        """Average a number over the processes."""
        with _says_who_was_lost():
            mean: Tensor = self._accelerator.reduce(value, reduction="mean")
            return mean

    def from_first(self, work: Callable[[], T]) -> T:
        """Do something in rank 0, and send its result, which must be picklable, to the others."""
        found = [work() if self.is_first() else None]
        with _says_who_was_lost():
            self._accelerate.utils.broadcast_object_list(found, from_process=0)
        result: T = found[0]  # type: ignore[assignment]
        return result


class _says_who_was_lost:  # noqa: N801 (a context manager)
    """Turn the error of a broken connection into ProcessLostError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if is_lost_connection(error):
            raise ProcessLostError(
                "another process of this training has ended: see its own error; the same command goes on from the last "
                "checkpoint"
            ) from error


def is_lost_connection(error: BaseException | None) -> bool:
    """Tell whether an error is that of a connection to another process which has ended."""
    return (
        isinstance(error, RuntimeError)
        and not isinstance(error, CrossalignError)
        and any(word in str(error) for word in LOST)
    )
