"""How a cascade runs its stages, and how far its own doubts are to be believed: stored beside weights as JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol, runtime_checkable

from crossalign.errors import InputError, WeightsError
from crossalign.input import excerpt, parse_json
from crossalign.models.saved_settings import settings_of
from crossalign.models.stage import Stage, save_stage
from crossalign.types import Distances, Parameters, Volume

HEADER_TURNS = (0, 90, 180, 270)
MOST_STARTS, MOST_PASSES, MOST_STAGES = 10_000, 1000, 100
MOST_SEED = 2**63 - 1
MOST_MM = 1e6  # of a calibration's numbers
NOTE = "cascade"  # the note of a stage file that holds them


@runtime_checkable
class ExpectsError(Protocol):
    """A network that also says how far off it expects to be."""

    def forward_with_error(self, fixed: Volume, moving: Volume) -> tuple[Parameters, Distances]:
        """Return what `forward` returns, (b, 6), and the SRE (b,) in mm that the network expects of it."""
        ...


@dataclass(frozen=True)
class Calibration:
    """The SRE to expect, mm: base_mm + per_dispersion * dispersion + per_network * the network's own expectation.

    Neither slope is negative: more doubt never means a smaller expected error. A result whose expected SRE is over
    `threshold_mm` is not to be trusted. `crossalign calibrate` fits them on cases whose answer is known.
    """

    base_mm: float
    per_dispersion: float
    per_network: float
    threshold_mm: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in vars(self).values()):
            raise InputError(f"a calibration needs finite numbers, got {vars(self)}")
        if min(self.per_dispersion, self.per_network) < 0 or self.threshold_mm <= 0:
            raise InputError(f"a calibration's slopes must be 0 or more and its threshold over 0 mm, got {vars(self)}")
        if max(abs(value) for value in vars(self).values()) > MOST_MM:
            raise InputError(f"a calibration's numbers must be within {MOST_MM:g}, got {vars(self)}")

    def expected_sre_mm(self, dispersion_mm: float | None, network_mm: float | None) -> float | None:
        """Return the SRE to expect, mm, 0 or more; None where one of the values that it needs is missing."""
        expected = self.base_mm
        for slope, value in ((self.per_dispersion, dispersion_mm), (self.per_network, network_mm)):
            if slope > 0:
                if value is None:
                    return None
                expected += slope * value
        return expected if math.isnan(expected) else max(0.0, expected)


@dataclass(frozen=True)
class GridSearch:
    """A coarse search ahead of the first stage: 27 shifts, each unturned and turned both ways about each axis.

    Shifts are -shift_mm, 0 or shift_mm along each axis; turns are of turn_deg (0: none, so 27 starts, not 189).
    """

    shift_mm: float = 15.0
    turn_deg: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.shift_mm < math.inf or not 0 <= self.turn_deg <= 90:
            raise InputError(
                f"a search needs shifts over 0 mm and turns of 0 to 90 degrees, got {self.shift_mm} and {self.turn_deg}"
            )


@dataclass(frozen=True)
class CascadeSettings:
    """How a cascade runs each stage.

    `starts` perturbed starts (the unperturbed one included), each moving the gland by `spread_mm`, go through a stage
    as one batch, and their answers are averaged. The stage is repeated until it moves the gland by less than
    `tolerance_mm`, at most `max_passes` times. `search` looks for a start ahead of the first stage.
    A stage that goes over its own answer again undoes the caution that it learned: after the first pass `later_share`
    of the correction is taken, and of its shift along the body `later_share_z`.

    With `together` all stages see the same start, and their answers are averaged (an ensemble); how far they lie apart
    is then part of the dispersion. Otherwise each goes on from where the one before it arrived.
    `header_turns_deg` are the turns about the z axis, both scans alike, that may bring the headers' axes to the
    patient's (0: the headers are right). Of several, the first stage takes the one in which it doubts itself least:
    files whose headers are a quarter turn off are common.
    """

    starts: int = 1
    spread_mm: float = 10.0
    seed: int = 0
    max_passes: int = 1
    tolerance_mm: float = 0.1
    search: GridSearch | None = None
    calibration: Calibration | None = None
    header_turns_deg: tuple[int, ...] = (0,)
    together: bool = False
    later_share: float = 1.0
    later_share_z: float = 1.0

    def __post_init__(self) -> None:
        turns = self.header_turns_deg
        if not turns or not set(turns) <= set(HEADER_TURNS) or len(set(turns)) < len(turns):
            raise InputError(f"'header_turns_deg' takes each of {HEADER_TURNS} at most once, got {turns}")
        if self.starts < 1 or self.max_passes < 1:
            raise InputError(f"'starts' and 'max_passes' must be 1 or more, got {self.starts} and {self.max_passes}")
        if self.starts > MOST_STARTS or self.max_passes > MOST_PASSES:
            raise InputError(
                f"'starts' must be {MOST_STARTS} or less and 'max_passes' {MOST_PASSES} or less, "
                f"got {self.starts} and {self.max_passes}"
            )
        if not 0 <= self.seed <= MOST_SEED:
            raise InputError(f"'seed' must lie in 0..{MOST_SEED}, got {self.seed}")
        if not 0 < self.spread_mm <= 100 or not 0 < self.tolerance_mm < math.inf:
            raise InputError(
                "'spread_mm' must be over 0 and at most 100 and 'tolerance_mm' over 0, "
                f"got {self.spread_mm} and {self.tolerance_mm}"
            )
        if not 0 < self.later_share <= 1 or not 0 <= self.later_share_z <= 1:
            raise InputError(
                "'later_share' must be over 0 and at most 1 and 'later_share_z' lie in 0..1, "
                f"got {self.later_share} and {self.later_share_z}"
            )

    def text(self) -> str:
        """Say what differs from running each stage once."""
        parts = ["all stages together"] if self.together else []
        parts += [f"{self.starts} starts within {self.spread_mm:g} mm (seed {self.seed})"] if self.starts > 1 else []
        if self.max_passes > 1:
            parts.append(f"up to {self.max_passes} passes, until one moves under {self.tolerance_mm:g} mm")
            if (self.later_share, self.later_share_z) != (1, 1):
                shares = f"{self.later_share:.0%} of the correction, {self.later_share_z:.0%} along the body"
                parts.append(f"after the first pass {shares}")
        if self.search is not None:
            parts.append(f"search of {self.search.shift_mm:g} mm and {self.search.turn_deg:g} degrees")
        if self.header_turns_deg != (0,):
            turns = " or ".join(str(turn) for turn in self.header_turns_deg)
            parts.append(f"headers turned by {turns} degrees about z")
        return ", ".join(parts) or "each stage once"


def settings_to_json(settings: CascadeSettings, stages: int) -> str:
    """Write settings of a cascade of so many stages."""
    return json.dumps({"stages": stages, **asdict(settings)})


def settings_from_json(text: str) -> tuple[CascadeSettings, int]:
    """Read what `settings_to_json` wrote: the settings and the number of stages. Raises WeightsError."""
    try:
        values = parse_json(text, "the cascade's settings", WeightsError)
        stages = values.pop("stages") if isinstance(values, dict) and "stages" in values else None
        if type(stages) is not int or not 1 <= stages <= MOST_STAGES:
            raise InputError(f"'stages' must be a whole number in 1..{MOST_STAGES}, got {excerpt(repr(stages))}")
        return settings_of(CascadeSettings, values), stages
    except InputError as error:
        raise WeightsError(
            f"the cascade's settings do not fit this version: {excerpt(error, 300)}: "
            "write them again with `crossalign calibrate`"
        ) from error


def stored_settings(stages: Sequence[Stage]) -> CascadeSettings:
    """Return the settings that the last stage's notes hold, or the defaults.

    Those of a cascade of another length do not count: they were measured on something else. Raises WeightsError where
    they cannot be read.
    """
    text = stages[-1].notes.get(NOTE) if stages else None
    if text is None:
        return CascadeSettings()
    settings, count = settings_from_json(text)
    return settings if count == len(stages) else CascadeSettings()


def store_settings(
    last: Stage, settings: CascadeSettings, stages: int, path: str | os.PathLike[str], overwrite: bool = False
) -> None:
    """Write the last stage of a cascade of so many stages with the cascade's settings in it. Raises OutputError."""
    notes = last.notes | {NOTE: settings_to_json(settings, stages)}
    save_stage(replace(last, notes=notes), path, overwrite)
