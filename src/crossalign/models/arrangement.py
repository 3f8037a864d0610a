"""Trained stages, and the two ways to combine them: a cascade runs them in turn, an ensemble averages their answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from crossalign.errors import InputError
from crossalign.geometry import Rigid
from crossalign.models.stage_settings import StageSettings
from crossalign.types import Distances


@dataclass(frozen=True, eq=False)
class StageAnswers:
    """What one stage answered from a batch of b initial transforms.

    `initial` and `answer` map fixed to moving points; `expected_sre_mm` (b,) is what the network expects of its answer,
    None where it expects nothing. `weight` is that of the answer in the mean of the ensembles around it.
    """

    stage: Stage
    initial: Rigid
    answer: Rigid
    expected_sre_mm: Distances | None = None
    weight: float = 1.0

    def in_mean_of(self, count: int) -> StageAnswers:
        """Return it as one of so many whose answers are averaged."""
        return replace(self, weight=self.weight / count)


@dataclass(frozen=True, eq=False)
class Answers:
    """Where an arrangement arrived from each of b initial transforms, the SRE (b,) to expect there, and how."""

    transforms: Rigid
    expected_sre_mm: Distances | None
    by_stage: tuple[StageAnswers, ...]


@runtime_checkable
class Runner(Protocol):
    """What runs a stage on a pair of images, and averages transforms."""

    def apply(self, stage: Stage, initial: Rigid) -> Answers:
        """Run a stage once from each of a batch of initial transforms."""
        ...

    def mean(self, transforms: Sequence[Rigid]) -> Rigid:
        """Average batches of b transforms, one by one: (b) of them."""
        ...


class Arrangement(ABC):
    """A stage, or several combined; arrangements nest."""

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """List the stages in the order in which they stand, each once."""

    @abstractmethod
    def answer(self, runner: Runner, initial: Rigid) -> Answers:
        """Run once from each of a batch of initial transforms."""

    @abstractmethod
    def layout(self, stages: Sequence[Stage]) -> object:
        """Describe the arrangement as JSON: a stage by its number (from 1), or the parts and how they combine."""

    @abstractmethod
    def title(self) -> str:
        """Return a short name for reports."""

    def in_turn(self) -> tuple[Arrangement, ...]:
        """Return the parts that run one after another; of all but a cascade, itself."""
        return (self,)

    def averaged(self) -> tuple[Arrangement, ...]:
        """Return the parts whose answers are averaged; of all but an ensemble, itself."""
        return (self,)


@dataclass(frozen=True, eq=False)
class Stage(Arrangement):
    """A network in eval mode with its settings; `notes` are free text from training (steps, data, validation SRE)."""

    network: nn.Module
    settings: StageSettings
    notes: dict[str, str]

    def stages(self) -> tuple[Stage, ...]:
        """Return itself."""
        return (self,)

    def answer(self, runner: Runner, initial: Rigid) -> Answers:
        """Run the network."""
        return runner.apply(self, initial)

    def layout(self, stages: Sequence[Stage]) -> object:
        """Return the stage's number."""
        return next(number for number, stage in enumerate(stages, start=1) if stage is self)

    def title(self) -> str:
        """Return the network's name."""
        return self.settings.network


@dataclass(frozen=True, eq=False)
class Cascade(Arrangement):
    """Parts that run one after another, each from the answer of the one before. A cascade in a cascade is one."""

    parts: tuple[Arrangement, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(one for part in self.parts for one in part.in_turn()))
        _check_parts(self.parts)

    def stages(self) -> tuple[Stage, ...]:
        """List the stages of the parts."""
        return _stages(self.parts)

    def in_turn(self) -> tuple[Arrangement, ...]:
        """Return the parts."""
        return self.parts

    def answer(self, runner: Runner, initial: Rigid) -> Answers:
        """Run the parts in turn; what the last one expects of its answer is what the cascade expects."""
        answers = Answers(initial, None, ())
        for part in self.parts:
            found = part.answer(runner, answers.transforms)
            answers = replace(found, by_stage=(*answers.by_stage, *found.by_stage))
        return answers

    def layout(self, stages: Sequence[Stage]) -> object:
        """Describe the parts."""
        return {"cascade": [part.layout(stages) for part in self.parts]}

    def title(self) -> str:
        """Say how many parts there are."""
        return f"cascade of {len(self.parts)}"


@dataclass(frozen=True, eq=False)
class Ensemble(Arrangement):
    """Parts that run from the same initial transform, and whose answers are averaged."""

    parts: tuple[Arrangement, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)

    def stages(self) -> tuple[Stage, ...]:
        """List the stages of the parts."""
        return _stages(self.parts)

    def averaged(self) -> tuple[Arrangement, ...]:
        """Return the parts."""
        return self.parts

    def answer(self, runner: Runner, initial: Rigid) -> Answers:
        """Average the parts' answers; there is an expected SRE where every part has one."""
        answers = [part.answer(runner, initial) for part in self.parts]
        expected = [one.expected_sre_mm for one in answers if one.expected_sre_mm is not None]
        return Answers(
            runner.mean([one.transforms for one in answers]),
            torch.stack(expected).mean(0) if len(expected) == len(answers) else None,
            tuple(stage.in_mean_of(len(answers)) for one in answers for stage in one.by_stage),
        )

    def layout(self, stages: Sequence[Stage]) -> object:
        """Describe the parts."""
        return {"ensemble": [part.layout(stages) for part in self.parts]}

    def title(self) -> str:
        """Say how many parts there are."""
        return f"ensemble of {len(self.parts)}"


def arrangement_of(layout: object, stages: Sequence[Stage]) -> Arrangement:
    """Build what `layout` describes; raises InputError where it does not describe all of these stages."""
    arrangement = _part(layout, stages)
    unused = [n for n, stage in enumerate(stages, start=1) if all(stage is not used for used in arrangement.stages())]
    if unused:
        raise InputError(f"the arrangement leaves out stage {', '.join(map(str, unused))} of {len(stages)}")
    return arrangement


def _part(layout: object, stages: Sequence[Stage]) -> Arrangement:
    if type(layout) is int:
        if not 1 <= layout <= len(stages):
            raise InputError(f"the arrangement names stage {layout}, there are {len(stages)}")
        return stages[layout - 1]
    kinds = {"cascade": Cascade, "ensemble": Ensemble}
    if isinstance(layout, dict) and len(layout) == 1:
        ((kind, parts),) = layout.items()
        if kind in kinds and isinstance(parts, list):
            return kinds[kind](tuple(_part(part, stages) for part in parts))
    raise InputError("the arrangement is no stage's number and no cascade or ensemble of parts")


def _stages(parts: Sequence[Arrangement]) -> tuple[Stage, ...]:
    return tuple({id(stage): stage for part in parts for stage in part.stages()}.values())


def _check_parts(parts: Sequence[Arrangement]) -> None:
    if not parts:
        raise InputError("a cascade or an ensemble needs one trained stage or more")
