"""What a run trains: the network, its loss, what is validated, and for how long."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.training.processes import Part


@dataclass(frozen=True)
class Plan:
    """How long and how fast a task trains.

    `rate` gives the learning rate at a fraction of the steps, `measure` is the name of what is validated, and
    `ema_decay` the decay of the exponential moving average of the weights.
    """

    steps: int
    batch: int
    weight_decay: float
    val_every: int
    ema_decay: float
    rate: Callable[[float], float]
    measure: str


class TrainingTask(ABC):
    """What a run trains. The measure is better when lower; it must not depend on the run's progress."""

    @abstractmethod
    def plan(self) -> Plan:
        """Return how to train it."""

    @abstractmethod
    def settings(self) -> Mapping[str, object]:
        """Return what is saved beside the weights; a run goes on only with the same."""

    def renamed(self, saved: Mapping[str, object]) -> Mapping[str, object]:
        """Return settings that an earlier version saved, by today's names."""
        return saved

    def renamed_tensor(self, saved: str) -> str:
        """Return today's name of a weight that an earlier version saved under this name."""
        return saved

    def data(self) -> Mapping[str, object]:
        """Return a record of what it trains on (`data_record`); a run goes on only with the same."""
        return {}

    def is_trained(self) -> bool:
        """Tell whether the network is of use before the first step: its weights are then the best until others are."""
        return False

    def baseline(self) -> float:
        """Return the measure without a trained network; infinite where there is none."""
        return math.inf

    @abstractmethod
    def fresh_model(self) -> nn.Module:
        """Make the network on its device, as it is before the first step."""

    @abstractmethod
    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of a step; its randomness comes from the settings' seed and the step's number alone."""

    def loss_of_part(self, model: nn.Module, step: int, part: Part) -> Tensor:  # noqa: ARG002
        """Return the loss of a part of a step's batch, times the part's weight; raises InputError where there is none.

        The mean over all parts is `loss`.
        """
        raise InputError(f"{type(self).__name__}: trains in one process only")

    @abstractmethod
    def validate(self, model: nn.Module) -> float:
        """Measure a network in eval mode."""

    @abstractmethod
    def save_best(self, model: nn.Module, path: Path, notes: dict[str, str]) -> None:
        """Write the weights that are used."""
