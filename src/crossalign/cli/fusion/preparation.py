"""`crossalign prepare-fusion`: pairs as a scanner made them in; pairs as the paper's network saw them out."""

from __future__ import annotations

from pathlib import Path

from crossalign.cells import STARTS, csv_text
from crossalign.cli.checks import files_in
from crossalign.cli.console import Progress
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.fusion import PrepareFusionRequest
from crossalign.cli.results.fusion import PreparedEntry, PrepareFusionResult
from crossalign.errors import InputError
from crossalign.fusion.manifest import FusionPair, read_fusion_manifest
from crossalign.fusion.preparation import PreparedPair, prepare_pair, write_prepared_pair
from crossalign.images import read_grid, read_image
from crossalign.output import check_new_folder, whole_file, whole_folder, write_text


def run_prepare_fusion(request: PrepareFusionRequest) -> Outcome[PrepareFusionResult]:
    """Prepare every pair into a folder of its own, with a manifest: all of it, or nothing. Raises CrossalignError."""
    check_new_folder(request.output)
    pairs = _pairs(request)
    for pair in pairs:
        read_grid(pair.mri, series=request.mri_series)
        read_grid(pair.pet, series=request.pet_series)  # a bad file is an error before the minutes of work
    lines: list[str] = []
    warnings: list[str] = []
    entries: list[PreparedEntry] = []
    with whole_folder(request.output) as folder, Progress(len(pairs), "pair") as progress:
        for pair in pairs:
            mri = read_image(pair.mri, series=request.mri_series)
            pet = read_image(pair.pet, series=request.pet_series)
            prepared = prepare_pair(mri, pet, request.size, request.affine)
            write_prepared_pair(prepared, folder / pair.name)
            lines.append(_line(pair.name, prepared))
            entries.append(_entry(pair.name, prepared))
            warnings += [f"{pair.name}: {text}" for text in prepared.warnings]
            progress.advance(pair.name)
        _write_manifest(folder / "pairs.csv", pairs)
    manifest = request.output / "pairs.csv"
    result = PrepareFusionResult(request.output, manifest, tuple(entries))
    lines.append(f"wrote    {manifest} ({len(pairs)} pairs)")
    return Outcome(tuple(lines), tuple(warnings), 0, result, files_in(request.output))


def _entry(name: str, prepared: PreparedPair) -> PreparedEntry:
    to_pet, to_template = prepared.mri_to_pet, prepared.template_to_mri
    moved = (to_pet.shift_mm(), to_pet.angle_deg(), to_template.shift_mm(), to_template.angle_deg())
    return PreparedEntry(name, *moved, prepared.reasons)


def _pairs(request: PrepareFusionRequest) -> tuple[FusionPair, ...]:
    if request.pet is not None:
        return (FusionPair("pair", request.first, request.pet, patient="pair"),)
    if request.first.suffix != ".csv":
        raise InputError(f"{request.first.name}: give a manifest (.csv), or an MRI and then a PET")
    pairs = read_fusion_manifest(request.first)
    for pair in pairs:
        if Path(pair.name).name != pair.name or pair.name.startswith((".", *STARTS)):
            raise InputError(f"the case '{pair.name}' cannot be the name of a folder: rename it")
    return pairs


def _write_manifest(path: Path, pairs: tuple[FusionPair, ...]) -> None:
    rows = [["case", "mri", "pet", "split", "patient"]]
    rows += [[p.name, f"{p.name}/mri.nii.gz", f"{p.name}/pet.nii.gz", p.split, p.patient] for p in pairs]
    with whole_file(path) as partial:
        write_text(csv_text(rows), partial)


def _line(name: str, prepared: PreparedPair) -> str:
    to_pet, to_template = prepared.mri_to_pet, prepared.template_to_mri
    stretch = ""
    if prepared.affine is not None:
        largest, *_, smallest = prepared.affine.stretches()
        stretch = f", stretched by {1 / largest:.2f} to {1 / smallest:.2f}"
    return (
        f"{name}: PET moved {to_pet.shift_mm():.1f} mm and {to_pet.angle_deg():.1f} degrees, "
        f"MRI {to_template.shift_mm():.1f} mm and {to_template.angle_deg():.1f} degrees{stretch}"
    )
