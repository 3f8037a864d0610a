"""The processes that share a training: one, or several that each take a part of every batch.

With several, each draws every batch whole, from the same generator, and computes the loss of its own part. Gradients
are averaged, so that each takes the same step; the first alone validates and writes files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from crossalign.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """The samples of a batch of `size` that one of `processes` takes: from `first` up to `last`, which is not in it."""

    first: int
    last: int
    size: int
    processes: int

    @staticmethod
    def of(size: int, rank: int, processes: int) -> Part:
        """Divide a batch as evenly as it goes; raises InputError where a process has nothing to do."""
        if size < processes:
            raise InputError(
                f"a batch of {size} for {processes} processes: take a batch of {processes} or more, or fewer processes"
            )
        return Part(size * rank // processes, size * (rank + 1) // processes, size, processes)

    def weight(self) -> float:
        """Return the factor of a mean over the part, so that the processes' mean is the mean over the batch."""
        return (self.last - self.first) * self.processes / self.size

    def samples(self) -> slice:
        """Return which samples they are."""
        return slice(self.first, self.last)


class Processes(ABC):
    """The processes that train together, as one of them sees them."""

    @abstractmethod
    def is_first(self) -> bool:
        """Tell whether this is the one that validates and writes files."""

    @abstractmethod
    def part(self, size: int) -> Part | None:
        """Return what this process takes of a batch (None: all); raises InputError for a batch that is too small."""

    @abstractmethod
    def prepare(self, model: nn.Module) -> None:
        """Let the model's batch normalisation take its statistics over all processes; weights keep their names."""

    @abstractmethod
    def wrap(self, loss: nn.Module) -> Callable[[int], Tensor]:
        """Return what computes a step's loss and, going backward, averages the gradients over the processes."""

    @abstractmethod
    def mean(self, value: Tensor) -> Tensor:
        """Average a number over the processes."""

    @abstractmethod
    def from_first(self, work: Callable[[], T]) -> T:
        """Do something in the first process alone, and return its result in each."""


class _Alone(Processes):
    """One process."""

    def is_first(self) -> bool:
        """Return that it is."""
        return True

    def part(self, size: int) -> None:
        """Take all."""

    def prepare(self, model: nn.Module) -> None:
        """Leave it as it is."""

    def wrap(self, loss: nn.Module) -> Callable[[int], Tensor]:
        """Return it."""
        return loss

    def mean(self, value: Tensor) -> Tensor:
        """Return it."""
        return value

    def from_first(self, work: Callable[[], T]) -> T:
        """Do it."""
        return work()


ALONE: Processes = _Alone()
