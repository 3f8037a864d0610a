"""The files of a fusion: the volume, and beside it a JSON file with what brings its values back to each input's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from crossalign.errors import InputError
from crossalign.fusion.result import FusionResult
from crossalign.fusion.scaling import Scaling
from crossalign.images import check_image_output, whole_files
from crossalign.images.files import WRITTEN_SUFFIXES, to_sitk
from crossalign.images.writing import write_sitk
from crossalign.output import check_output, write_text

FORMAT = "crossalign fusion 1"
NOTE_LENGTH = 79  # of a NIfTI header's `descrip`
MEANING = "an input counts as (value - low) / (high - low), clipped to 0..1; back again: low + scaled * (high - low)"


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
    try:
        inputs = json.loads(path.read_text(encoding="utf-8"))["inputs"]
        return _scaling(inputs["mri"]), _scaling(inputs["pet"])
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path.name}: not the JSON file of a fusion: {error!r}") from error


def _scaling(record: dict[str, Any]) -> Scaling:
    return Scaling(float(record["low"]), float(record["high"]), str(record["unit"]), float(record["clipped_share"]))


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
        }

    return {
        "format": FORMAT,
        "method": result.method,
        "settings": dict(result.settings),
        "inputs": {"mri": record(result.a_scaling), "pet": record(result.b_scaling)},
        "scaling": MEANING,
        "note": "Research software, not a medical device.",
    }
