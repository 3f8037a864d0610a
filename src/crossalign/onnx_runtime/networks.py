"""The exported networks of a model: their files, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossalign.errors import InputError, WeightsError
from crossalign.fields import settings_of
from crossalign.models.calibration import Calibration
from crossalign.models.run_settings import RunSettings
from crossalign.models.stage_settings import StageSettings
from crossalign.onnx_runtime.description import Description, description_of
from crossalign.onnx_runtime.motions import Array
from crossalign.onnx_runtime.session import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MOST_ENSEMBLE = 3


@dataclass(frozen=True, eq=False)
class Answer:
    """What a network answers to one pair of crops: parameters (6,), and of one that matches all else by name."""

    parameters: Array
    outputs: dict[str, Array]

    @property
    def expected_sre_mm(self) -> float | None:
        """The SRE, mm, that the network expects; None where it expects nothing."""
        return float(self.outputs["expected_sre_mm"][0]) if "expected_sre_mm" in self.outputs else None


@dataclass(frozen=True, eq=False)
class Network:
    """An open network file with the settings of its crops."""

    session: InferenceSession
    description: Description
    settings: StageSettings

    @property
    def matches(self) -> bool:
        """Whether it matches tokens: then a rotation prior can be added, and it gives evidence of its error."""
        return "attraction_mm2" in self.description.sizes

    def answer(self, fixed: Array, moving: Array, attraction_mm2: Array | None = None) -> Answer:
        """Run it on two crops (z, y, x); `attraction_mm2` (3, 3) is the identity where there is no prior."""
        inputs = {"fixed": fixed[None, None], "moving": moving[None, None]}
        if self.matches:
            inputs["attraction_mm2"] = (np.eye(3) if attraction_mm2 is None else attraction_mm2)[None]
        values = {name: np.ascontiguousarray(value, np.float32) for name, value in inputs.items()}
        names = [one.name for one in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(names, values), strict=True))
        return Answer(outputs["parameters"][0].astype(np.float64), outputs)


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """The networks of a model, as parts that run one after another, each one network or several that are averaged."""

    parts: tuple[tuple[Network, ...], ...]
    run: RunSettings
    calibration: Calibration | None
    name: str

    @property
    def networks(self) -> tuple[Network, ...]:
        """Every network."""
        return tuple(one for part in self.parts for one in part)


def load_exported(paths: Sequence[Path], threads: int = 0) -> ExportedModel:
    """Open all networks of a model, given in any order.

    Raises WeightsError for a file that is none, a network that is missing, or networks of several models; InputError
    for a model that is run in a way that is not supported here.
    """
    if not paths:
        raise InputError("name the exported networks of a model: net-1.onnx net-2.onnx")
    opened = [_opened(path, threads) for path in paths]
    first = opened[0].description
    for path, one in zip(paths, opened, strict=True):
        if one.description.sha256 != first.sha256 or one.description.run != first.run:
            raise WeightsError(f"{path.name}: is of another model than {paths[0].name}: give the networks of one model")
    by_stage = {one.description.stage: one for one in opened}
    missing = [str(number) for number in range(1, first.stages + 1) if number not in by_stage]
    if missing or len(by_stage) < len(opened):
        given = ", ".join(str(one.description.stage) for one in opened)
        raise WeightsError(f"{first.name} has {first.stages} networks, got {given}: give each of them once")
    parts = _parts(first.arrangement, by_stage)
    if len(parts[-1]) > MOST_ENSEMBLE:
        raise InputError(f"{first.name} averages more than {MOST_ENSEMBLE} networks: that is not supported here")
    return ExportedModel(parts, _run(first), first.calibrated(), first.name)


def _opened(path: Path, threads: int) -> Network:
    session = open_session(path, threads)
    description = description_of(session.get_modelmeta().custom_metadata_map, path.name)
    if description.task != "registration":
        raise WeightsError(f"{path.name}: holds a network for {description.task}, expected one for registration")
    try:
        return Network(session, description, settings_of(StageSettings, description.settings))
    except InputError as error:
        raise WeightsError(f"{path.name}: {error}: export the network again") from error


def _parts(layout: Any, by_stage: dict[int, Network]) -> tuple[tuple[Network, ...], ...]:
    """Return the parts of a cascade, or the one part of another arrangement. Raises InputError for deeper nesting."""
    in_turn = layout["cascade"] if isinstance(layout, dict) and "cascade" in layout else [layout]
    parts = []
    for part in in_turn:
        numbers = part["ensemble"] if isinstance(part, dict) and "ensemble" in part else [part]
        if not all(type(number) is int and number in by_stage for number in numbers):
            raise InputError("an ensemble of cascades is not supported here: use `crossalign register`")
        parts.append(tuple(by_stage[number] for number in numbers))
    return tuple(parts)


def _run(description: Description) -> RunSettings:
    """Return the model's run settings. Raises InputError where they ask for what is not supported here."""
    run = description.run_settings()
    if run.initialisations > 1 or run.search or run.orientation_correction == "auto":
        raise InputError(
            f"{description.name} is run with several initialisations, a search, or an orientation that it finds, which "
            "is not supported here: use `crossalign register`"
        )
    return run
