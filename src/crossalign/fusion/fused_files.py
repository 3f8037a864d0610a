"""The files of a fusion: the volume, and beside it a JSON file with what brings its values back to each input's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from crossalign.errors import InputError
from crossalign.fusion.result import FusionResult
from crossalign.fusion.scaling import Scaling
from crossalign.images import check_image_output
from crossalign.images.files.images import WRITTEN_SUFFIXES, to_sitk
from crossalign.images.files.writing import write_sitk
from crossalign.input import excerpt, read_json
from crossalign.output import check_output, whole_files, write_text

FORMAT = "crossalign fusion 1"
NOTE_LENGTH = 79  # of a NIfTI header's `descrip`
MEANING = (
    "an input counts as (value - low) / (high - low), clipped to 0..1, and its padding as 0; "
    "back again: low + scaled * (high - low)"
)


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """Name the JSON file beside a fused volume: `fused.nii.gz` has `fused.json`."""
    path = Path(path)
    suffix = next((s for s in WRITTEN_SUFFIXES if path.name.endswith(s)), path.suffix)
    return path.with_name(path.name.removesuffix(suffix) + ".json")


def check_fusion_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise OutputError where the volume or its JSON file cannot be written; for use before a long computation."""
    check_image_output(path, overwrite)
    check_output(sidecar_path(path), overwrite)


def write_fusion(result: FusionResult, path: str | os.PathLike[str], overwrite: bool = False) -> tuple[Path, Path]:
    """Write the fused volume (float32) and its JSON file: both, or neither. Raises OutputError."""
    check_fusion_output(path, overwrite)
    paths = (Path(path), sidecar_path(path))
    with whole_files(paths, overwrite) as (volume, sidecar):
        stage_fusion(result, volume, sidecar)
    return paths


def stage_fusion(result: FusionResult, volume: Path, sidecar: Path) -> None:
    """Write both files where they are told; no path of the user's and no file name goes into them."""
    image = to_sitk(result.fused.voxels.numpy(), result.fused.grid)
    image.SetMetaData("ITK_FileNotes", _note(result))
    write_sitk(image, volume)
    write_text(json.dumps(_sidecar(result), indent=2) + "\n", sidecar)


def read_scalings(path: str | os.PathLike[str]) -> tuple[Scaling, Scaling]:
    """Read the scalings of the structural and the functional input from a fused volume's JSON file.

    `path` may be the volume's or the JSON file's. Raises InputError where it is not one.
    """
    path = Path(path)
    path = path if path.suffix == ".json" else sidecar_path(path)
    record = read_json(path)
    name = excerpt(path.name)
    inputs = record.get("inputs") if isinstance(record, dict) else None
    if not isinstance(inputs, dict):
        raise InputError(
            f"{name}: not the JSON file of a fusion: it has no 'inputs': name the file that crossalign fuse wrote"
        )
    return _scaling(inputs, "mri", name), _scaling(inputs, "pet", name)


def _scaling(inputs: dict[str, Any], which: str, name: str) -> Scaling:
    record = inputs.get(which)
    if not isinstance(record, dict):
        raise InputError(f"{name}: not the JSON file of a fusion: 'inputs' has no '{which}'")
    low, high, clipped = (_number(record, key, f"{name}: '{which}'") for key in ("low", "high", "clipped_share"))
    padding = None if record.get("padding") is None else _number(record, "padding", f"{name}: '{which}'")
    unit = record.get("unit")
    if not isinstance(unit, str):
        raise InputError(f"{name}: '{which}': 'unit' is {excerpt(unit, 40)}, expected a text")
    if not high > low:
        raise InputError(f"{name}: '{which}': 'high' is {high:g}, expected more than 'low', {low:g}")
    return Scaling(low, high, unit, clipped, padding)


def _number(record: dict[str, Any], key: str, where: str) -> float:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: '{key}' is {excerpt(value, 40)}, expected a number")
    return float(value)


def _note(result: FusionResult) -> str:
    """Say the scalings in the 79 characters of a NIfTI header."""
    a, b = result.a_scaling, result.b_scaling
    return f"{result.method}; MRI {a.low:.6g}..{a.high:.6g}; PET {b.low:.6g}..{b.high:.6g}"[:NOTE_LENGTH]


def _sidecar(result: FusionResult) -> dict[str, Any]:
    def record(scaling: Scaling) -> dict[str, Any]:
        return {
            "low": scaling.low,
            "high": scaling.high,
            "unit": scaling.unit,
            "clipped_share": scaling.clipped_share,
            "padding": scaling.padding,
        }

    return {
        "format": FORMAT,
        "method": result.method,
        "trusted": result.trusted,
        "doubts": _nameless(result, result.reasons),
        "warnings": _nameless(result, result.warnings),
        "notes": _nameless(result, result.notes),
        "settings": dict(result.settings),
        "inputs": {"mri": record(result.a_scaling), "pet": record(result.b_scaling)},
        "scaling": MEANING,
        "note": "Research software, not a medical device.",
    }


def _nameless(result: FusionResult, texts: tuple[str, ...]) -> list[str]:
    """Put plain words in place of the names of both files."""
    names = {excerpt(image.name): word for image, word in ((result.b, "the PET"), (result.a, "the MRI"))}
    names |= {result.b.name: "the PET", result.a.name: "the MRI"}
    for name in sorted(names, key=len, reverse=True):
        if name:
            texts = tuple(text.replace(name, names[name]) for text in texts)
    return list(texts)
