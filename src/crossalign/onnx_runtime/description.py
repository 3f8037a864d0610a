"""What an exported network says of itself, in the metadata of its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crossalign.errors import InputError, WeightsError
from crossalign.fields import settings_of
from crossalign.input import parse_json
from crossalign.models.calibration import Calibration
from crossalign.models.run_settings import RunSettings

FORMAT = "crossalign-onnx-1"
NOTE = "Research software, not a medical device."
MOST_STAGES = 100
UNITS = {
    "registration": "parameters: translation along x, y, z in mm, then static x-y-z Euler angles in degrees, about the "
    "crop's centre; lengths in mm; structures are logits",
    "recognition": "scores are log-odds",
    "fusion": "volumes from 0 to 1",
}
DIRECTION = "fixed_to_moving: fixed_to_moving = initial @ correction, LPS mm; the correction maps fixed to fixed points"


@dataclass(frozen=True)
class Description:
    """A network in a file: what it is for, its settings, and the model that it is a stage of.

    `settings` are those of its crops, by name (of `models.stage_settings` for registration). `sizes` are the sizes of
    inputs and outputs by name, as text. `arrangement` says how the model combines its `stages` networks, of which this
    is number `stage` (from 1), `run` and `calibration` how they are run and what is to be expected of the answer.
    `sha256` are the digests of weights and settings of all stages.
    """

    name: str
    task: str
    network: str
    licence: str
    settings: Mapping[str, Any]
    sizes: Mapping[str, str]
    sha256: tuple[str, ...]
    stage: int = 1
    arrangement: Any = 1
    run: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None

    @property
    def stages(self) -> int:
        """How many networks the model has."""
        return len(self.sha256)

    def run_settings(self) -> RunSettings:
        """Return how the model is run. Raises InputError."""
        return settings_of(RunSettings, self.run)

    def calibrated(self) -> Calibration | None:
        """Return the calibration of the model's expected error, if it has one. Raises InputError."""
        return None if self.calibration is None else settings_of(Calibration, self.calibration, "calibration.")

    def metadata(self) -> dict[str, str]:
        """Return it as the metadata of an ONNX file: texts by name."""
        texts = {
            "format": FORMAT,
            "name": self.name,
            "task": self.task,
            "network": self.network,
            "licence": self.licence,
            "stage": f"{self.stage} of {self.stages}",
            "shapes": json.dumps(self.sizes),
            "units": UNITS[self.task],
            "sha256": self.sha256[self.stage - 1],
            "settings": json.dumps(self.settings),
            "note": NOTE,
        }
        if "crop_spacing_mm" in self.settings:
            texts["spacing_mm"] = f"{self.settings['crop_spacing_mm']:g}"
        if self.task == "registration":
            texts["direction"] = DIRECTION
        model = {
            "arrangement": self.arrangement,
            "run": self.run,
            "calibration": self.calibration,
            "sha256": list(self.sha256),
        }
        return texts | {"model": json.dumps(model)}


def description_of(metadata: Mapping[str, str], file: str) -> Description:
    """Read the metadata of a file. Raises WeightsError where it is none that crossalign wrote."""
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{file}: holds no network that `crossalign export` wrote")
    try:
        model = parse_json(metadata["model"], "its model")
        digests = tuple(str(one) for one in model["sha256"])
        stage = int(metadata["stage"].partition(" ")[0])
        if not 1 <= stage <= len(digests) <= MOST_STAGES:
            raise InputError(f"stage {stage} of {len(digests)}")
        found = Description(
            name=metadata["name"],
            task=metadata["task"],
            network=metadata["network"],
            licence=metadata["licence"],
            settings=dict(parse_json(metadata["settings"], "its settings")),
            sizes=dict(parse_json(metadata["shapes"], "its shapes")),
            sha256=digests,
            stage=stage,
            arrangement=model["arrangement"],
            run=dict(model["run"]),
            calibration=None if model["calibration"] is None else dict(model["calibration"]),
        )
        found.run_settings()
        found.calibrated()
    except (LookupError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{file}: its metadata does not fit this version: {error}: export the network again"
        ) from error
    return found
