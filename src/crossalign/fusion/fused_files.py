"""The files of a fusion: the volume, and beside it a JSON file with what maps its values back to each input's."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from crossalign.errors import InputError
from crossalign.fields import settings_of
from crossalign.fusion.result import FusionResult
from crossalign.fusion.scaling import Scaling
from crossalign.images import check_image_output
from crossalign.images.files.images import WRITTEN_SUFFIXES, to_sitk
from crossalign.images.files.writing import NOTES, write_sitk
from crossalign.input import excerpt, read_json
from crossalign.output import check_output, whole_file, whole_files, write_text
from crossalign.registration.result import VERDICT

FORMAT = "crossalign fusion 1"
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


def write_fusion(result: FusionResult, volume: Path, sidecar: Path) -> None:
    """Write the fused volume (float32) and its JSON file to temporary paths of `whole_files`; without file names."""
    image = to_sitk(result.fused.voxels.numpy(), result.fused.grid)
    image.SetMetaData(NOTES, _note(result))
    write_sitk(image, volume)
    write_text(json.dumps(fusion_record(result), indent=2) + "\n", sidecar)


def save_fusion(result: FusionResult, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write the volume and its JSON file, or of a path that ends in .json the record; whole or not at all.

    Raises OutputError.
    """
    path = Path(path)
    if path.suffix == ".json":
        with whole_file(path, overwrite) as partial:
            write_text(json.dumps(fusion_record(result), indent=2) + "\n", partial)
        return
    check_fusion_output(path, overwrite)
    with whole_files((path, sidecar_path(path)), overwrite) as (volume, sidecar):
        write_fusion(result, volume, sidecar)


def fusion_html(result: FusionResult) -> str:
    """Return a small table of a fusion, for notebooks."""
    rows = {"method": result.method}
    for name, one in (("MRI", result.a_scaling), ("PET", result.b_scaling)):
        rows[name] = f"{one.low:g} to {one.high:g} {one.unit}".rstrip() + " became 0 to 1"
    rows["size"] = " x ".join(str(size) for size in result.fused.grid.shape[::-1]) + " voxels, on the grid of the MRI"
    rows["seconds"] = f"{result.seconds:.2f}"
    if result.reasons:
        rows["trusted"] = VERDICT
    for word, texts in (("reason", result.reasons), ("warning", result.warnings), ("note", result.notes)):
        named = enumerate(_without_names(result, texts), start=1)
        rows |= {f"{word} {number}": text for number, text in named}
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    return f"<table><caption>Fusion of an MRI and a PET, values 0 to 1</caption>{cells}</table>"


def read_scalings(path: str | os.PathLike[str]) -> tuple[Scaling, Scaling]:
    """Read the scalings of the structural and the functional input from a fused volume's JSON file.

    `path` may be the volume's or the JSON file's. Raises InputError where it is not one.
    """
    path = Path(path)
    path = path if path.suffix == ".json" else sidecar_path(path)
    record, name = read_json(path), excerpt(path.name)
    inputs = record.get("inputs") if isinstance(record, dict) else None
    if not isinstance(inputs, dict):
        raise InputError(
            f"{name}: not the JSON file of a fusion: it has no 'inputs': name the file that crossalign fuse wrote"
        )
    try:
        return settings_of(Scaling, inputs.get("mri"), "mri."), settings_of(Scaling, inputs.get("pet"), "pet.")
    except InputError as error:
        raise InputError(f"{name}: not the JSON file of a fusion: {error}") from error


def _note(result: FusionResult) -> str:
    """Name the method and both scalings, for the header."""
    a, b = result.a_scaling, result.b_scaling
    return f"{result.method}; MRI {a.low:.6g}..{a.high:.6g}; PET {b.low:.6g}..{b.high:.6g}"


def fusion_record(result: FusionResult) -> dict[str, Any]:
    """Return the record of a fusion as plain values, without names of files."""
    return {
        "format": FORMAT,
        "method": result.method,
        "trusted": result.trusted,
        "reasons": _without_names(result, result.reasons),
        "warnings": _without_names(result, result.warnings),
        "notes": _without_names(result, result.notes),
        "settings": dict(result.settings),
        "inputs": {"mri": asdict(result.a_scaling), "pet": asdict(result.b_scaling)},
        "scaling": MEANING,
        "note": "Research software, not a medical device.",
    }


def _without_names(result: FusionResult, texts: tuple[str, ...]) -> list[str]:
    """Replace the names of both files by `the MRI` and `the PET`."""
    names = {excerpt(image.name): word for image, word in ((result.b, "the PET"), (result.a, "the MRI"))}
    names |= {result.b.name: "the PET", result.a.name: "the MRI"}
    for name in sorted(names, key=len, reverse=True):
        if name:
            texts = tuple(text.replace(name, names[name]) for text in texts)
    return list(texts)
