"""`crossalign prepare-fusion`: pairs as a scanner made them in; pairs as the paper's network saw them out."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from crossalign.cli.options import Outcome
from crossalign.errors import InputError, OutputError
from crossalign.evaluation.fusion_preparation import Prepared, prepare_pair, write_prepared
from crossalign.fusion.pairs import FusionPair, read_fusion_manifest
from crossalign.images import read_image, whole_file


@dataclass(frozen=True)
class PrepareRequest:
    """The options of `crossalign prepare-fusion`: a manifest alone, or an MRI and a PET."""

    first: Path
    pet: Path | None
    output: Path
    size: int = 128
    affine: bool = False


def run_prepare_fusion(request: PrepareRequest) -> Outcome:
    """Prepare every pair into a folder of its own, with a manifest of them all. Raises CrossalignError."""
    pairs = _pairs(request)
    _make_folder(request.output)
    lines: list[str] = []
    warnings: list[str] = []
    for pair in pairs:
        prepared = prepare_pair(read_image(pair.mri), read_image(pair.pet), request.size, request.affine)
        write_prepared(prepared, request.output / pair.name)
        lines.append(_line(pair.name, prepared))
        warnings += [f"{pair.name}: {text}" for text in prepared.warnings]
    manifest = request.output / "pairs.csv"
    _write_manifest(manifest, pairs)
    return Outcome((*lines, f"wrote    {manifest} ({len(pairs)} pairs)"), tuple(warnings))


def _pairs(request: PrepareRequest) -> tuple[FusionPair, ...]:
    if request.pet is not None:
        return (FusionPair("pair", request.first, request.pet, patient="pair"),)
    if request.first.suffix != ".csv":
        raise InputError(f"{request.first.name}: give a manifest (.csv), or an MRI and then a PET")
    pairs = read_fusion_manifest(request.first)
    for pair in pairs:
        if Path(pair.name).name != pair.name or pair.name.startswith("."):
            raise InputError(f"the case '{pair.name}' cannot be the name of a folder: rename it")
    return pairs


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise OutputError(f"{folder}: exists already: name a folder that does not") from error
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error


def _write_manifest(path: Path, pairs: tuple[FusionPair, ...]) -> None:
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "mri", "pet", "split", "patient"])
        for pair in pairs:
            writer.writerow([pair.name, f"{pair.name}/mri.nii.gz", f"{pair.name}/pet.nii.gz", pair.split, pair.patient])


def _line(name: str, prepared: Prepared) -> str:
    to_pet, to_template = prepared.mri_to_pet, prepared.template_to_mri
    stretch = ""
    if prepared.stretched is not None:
        largest, *_, smallest = prepared.stretched.stretches()
        stretch = f", stretched by {1 / largest:.2f} to {1 / smallest:.2f}"
    return (
        f"{name}: PET moved {to_pet.shift_mm():.1f} mm and {to_pet.angle_deg():.1f} degrees, "
        f"MRI {to_template.shift_mm():.1f} mm and {to_template.angle_deg():.1f} degrees{stretch}"
    )
