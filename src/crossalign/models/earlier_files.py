"""Weight files of earlier versions: one network each, a cascade's settings in the notes of its last stage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from crossalign.errors import InputError, WeightsError
from crossalign.input import excerpt, parse_json
from crossalign.models.model_file import MODEL_FILE, MOST_STAGES, ModelContents, StageContents
from crossalign.models.tensor_files import SEAL, TensorHeader, read_tensors, refused

FORMATS = {
    "crossalign-stage-1": "registration",
    "crossalign-fusion-1": "fusion",
    "crossalign-extractors-1": "extractors",
}
CASCADE = "cascade"  # the note that holds the settings of a cascade
RUN_NAMES = {
    "starts": "initialisations",
    "spread_mm": "perturbation_mm",
    "later_share": "refinement_step",
    "later_share_z": "refinement_step_z",
}
TENSOR_NAMES = (
    (re.compile(r"^(fixed|moving)_rounds\."), r"\1_layers."),
    (re.compile(r"^(\w+_layers\.\d+)\.cross\."), r"\1.cross_attention."),
    (re.compile(r"^(\w+_layers\.\d+)\.near\."), r"\1.convolution."),
    (re.compile(r"^(\w+_layers\.\d+)\.think\."), r"\1.mlp."),
    (re.compile(r"^place\."), "position."),
    (re.compile(r"^(fixed|moving)_gland\."), r"\1_structure."),
    (re.compile(r"^doubt\."), "error_head."),
)


def current_tensor_name(name: str) -> str:
    """Return today's name of a tensor of a registration network that an earlier version may have written."""
    for pattern, replacement in TENSOR_NAMES:
        name = pattern.sub(replacement, name)
    return name


def read_earlier_file(path: Path, header: TensorHeader) -> ModelContents:
    """Read a weight file of an earlier version; raises WeightsError, or what does not fit leads to."""
    if odd := sorted(set(header.metadata) - {"format", "settings", "notes", SEAL}):
        raise refused(path, MODEL_FILE, f"its metadata holds '{excerpt(odd[0])}', which crossalign does not write")
    settings = dict(parse_json(header.metadata["settings"], "settings"))
    notes = parse_json(header.metadata.get("notes", "{}"), "notes")
    notes = {str(name): str(value) for name, value in notes.items()}
    run = _run(path, notes.pop(CASCADE)) if CASCADE in notes else {}
    stage = StageContents(read_tensors(path, MODEL_FILE, header), settings, notes)
    return ModelContents(FORMATS[header.metadata["format"]], [stage], path=path, **run)


def _run(path: Path, text: str) -> dict[str, Any]:
    """Return how a cascade is run, as fields of ModelContents."""
    try:
        values = parse_json(text, "they")
        count = values.pop("stages", None) if isinstance(values, dict) else None
        if type(count) is not int or not 1 <= count <= MOST_STAGES:
            raise InputError(f"'stages' must be a whole number in 1..{MOST_STAGES}, got {excerpt(repr(count))}")
        together = values.pop("together", False)
        if type(together) is not bool:
            raise InputError(f"'together' must be true or false, got {excerpt(repr(together))}")
        layout = {"ensemble" if together else "cascade": list(range(1, count + 1))}
        calibration = values.pop("calibration", None)
        return {"arrangement": layout, "run": _current(values), "calibration": calibration, "made_for": count}
    except InputError as error:
        raise WeightsError(
            f"{excerpt(path.name)}: the cascade's settings do not fit this version: {excerpt(error, 300)}: "
            "write them again with `crossalign calibrate`"
        ) from error


def _current(values: dict[str, Any]) -> dict[str, Any]:
    """Convert settings of a run to today's names and form: the search flat, the orientations one value or `auto`."""
    search, orientations = values.pop("search", None), values.pop("header_turns_deg", [0])
    if search is not None and not isinstance(search, dict):
        raise InputError(f"'search': expected entries by name, got {excerpt(search)}")
    if not isinstance(orientations, list) or not orientations:
        raise InputError(f"'header_turns_deg' must be a list, got {excerpt(repr(orientations))}")
    run = {RUN_NAMES.get(name, name): value for name, value in values.items()}
    run["orientation_correction"] = orientations[0] if len(orientations) == 1 else "auto"
    if search is not None:
        names = {"shift_mm": "search_shift_mm", "turn_deg": "search_rotation_deg"}
        run |= {"search": True} | {names.get(name, f"search.{name}"): value for name, value in search.items()}
    return run
