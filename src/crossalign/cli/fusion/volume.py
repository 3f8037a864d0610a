"""`crossalign fuse`: an MRI and a PET in; one volume, and on request a transform, pictures and a report, out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crossalign.cli.checks import check_apart, collected, pick_device, weight_files
from crossalign.cli.dicom_output import check_dicom_out, dicom_files_of, dicom_folder
from crossalign.cli.fusion.dicom_output import FUSED, OVERLAY, FusedSeries, fused_series
from crossalign.cli.fusion.overlay import check_overlay, overlay_files, overlay_of, overlay_settings, write_overlay
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.fusion import FuseRequest
from crossalign.cli.results.fusion import AlignmentResult, FuseResult, ScalingResult
from crossalign.errors import InputError, OutputError
from crossalign.fusion import FusionResult, fuse
from crossalign.fusion.fused_files import check_fusion_output, sidecar_path, write_fusion
from crossalign.fusion.methods import default_fusion_method_name, named_fusion_method
from crossalign.fusion.overlay import Overlay
from crossalign.fusion.scaling import GIVEN, Scaling
from crossalign.fusion.window_settings import WindowSettings
from crossalign.fusion.windows import BY_ORDER
from crossalign.images import check_transform_output, write_transform
from crossalign.images.files.images import scan_of
from crossalign.images.files.stored import opened
from crossalign.output import check_output, whole_files
from crossalign.registration import RegistrationResult
from crossalign.registration.patient_axes import motion_text
from crossalign.registration.result import VERDICT

UPTAKE = ("pet", "spect")


def output_files(request: FuseRequest) -> tuple[Path, ...]:
    """Every file that is written, the volume and its JSON file first."""
    extra = (request.output_transform, request.report, request.colour)
    given = (path for path in extra if path is not None)
    return (request.output, sidecar_path(request.output), *given, *overlay_files(request))


def run_fuse(request: FuseRequest) -> Outcome[FuseResult]:
    """Fuse one pair of files and write what was asked for: all of it, or nothing. Raises CrossalignError."""
    check_outputs(request)
    name = default_fusion_method_name() if request.method is None else request.method
    method = named_fusion_method(name, request.emphasis, pick_device(request.device))
    with collected() as input_warnings:
        mri_file = opened(request.mri, series=request.mri_series)
        mri = scan_of(mri_file)
        pet_file = opened(request.pet, series=request.pet_series)
        pet = scan_of(pet_file)
    moved = None
    if request.register:
        from crossalign.fusion.alignment import align

        moved = align(mri, pet)
    mri_to_pet = None if moved is None else moved.fixed_to_moving
    result = fuse(mri, pet, method, mri_to_pet, request.unit, request.windows.over(WindowSettings()))
    overlay = overlay_of(request, result, mri, pet, mri_to_pet)
    del mri, pet  # a fifth of the memory, while the result is written
    result = _with_verdict(result, [*input_warnings, *_order_warnings(result.a_scaling, result.b_scaling)], moved)
    series = fused_series(request, result, (mri_file.series, pet_file.series), overlay_settings(request))
    result = replace(result, warnings=(*result.warnings, *(() if series is None else series.notes)))
    _write(request, result, moved, (series, overlay))
    short = (f"{VERDICT}: the PET may not lie on the MRI (reasons in the output)",) if result.reasons else ()
    lines, found = tuple(_lines(request, result, moved)), _result(request, result, moved)
    outputs = (*output_files(request), *dicom_files_of(request.dicom_out))
    return Outcome(lines, (*short, *result.warnings), 0, found, outputs)


def _result(request: FuseRequest, result: FusionResult, moved: RegistrationResult | None) -> FuseResult:
    alignment = None
    if moved is not None:
        matrix = moved.fixed_to_moving.matrix().tolist()
        alignment = AlignmentResult(matrix, moved.shift_mm(), moved.angle_deg())
    return FuseResult(
        method=result.method,
        fused=request.output,
        trusted=result.trusted,
        reasons=result.reasons,
        alignment=alignment,
        mri_scaling=_scaling(result.a_scaling),
        pet_scaling=_scaling(result.b_scaling),
        notes=result.notes,
        settings=result.settings,
        seconds=result.seconds,
    )


def _scaling(one: Scaling) -> ScalingResult:
    return ScalingResult(
        low=one.low,
        high=one.high,
        unit=one.unit,
        modality=one.modality,
        source=one.source,
        saturated=one.saturated,
        saturated_fraction=one.saturated_fraction,
    )


def _order_warnings(first: Scaling, second: Scaling) -> tuple[str, ...]:
    """Warn where the images themselves say that they are named in the wrong order."""
    known_uptake = second.modality in UPTAKE and second.source != BY_ORDER
    if first.modality not in UPTAKE or known_uptake or GIVEN in (first.source, second.source):
        return ()
    return (f"the first image is a {first.modality.upper()} ({first.source}): name the MRI or CT, and then the PET",)


def _with_verdict(result: FusionResult, input_warnings: list[str], moved: RegistrationResult | None) -> FusionResult:
    """Add what the readers warned of, and what the registration thinks of itself."""
    if moved is None:
        return replace(result, warnings=(*input_warnings, *result.warnings))
    reasons = moved.reasons
    warnings = (*input_warnings, *moved.warnings, *result.warnings)
    return replace(result, warnings=warnings, trusted=False if reasons else moved.trusted, reasons=reasons)


def check_outputs(request: FuseRequest) -> None:
    """Raise OutputError where an output could not be written, and InputError where the request cannot be met."""
    check_fusion_output(request.output, request.overwrite)
    if request.output_transform is not None:
        if not request.register:
            raise InputError("--output-transform needs --register: without it no transform is made")
        check_transform_output(request.output_transform, request.overwrite)
    if request.report is not None:
        check_output(request.report, request.overwrite)
    if request.colour is not None:
        if request.colour.suffix != ".png":
            raise OutputError(f"{request.colour.name}: the pictures are written as PNG: end the name in .png")
        check_output(request.colour, request.overwrite)
    check_overlay(request)
    check_dicom_out(request.dicom_out, request.dicom_identity, (request.mri, request.pet))
    check_apart(output_files(request), (request.mri, request.pet, *weight_files(request.method)))


def _write(
    request: FuseRequest,
    result: FusionResult,
    moved: RegistrationResult | None,
    also: tuple[FusedSeries | None, Overlay | None],
) -> None:
    files, (series, overlay) = output_files(request), also
    with whole_files(files, request.overwrite) as partials, dicom_folder(request.dicom_out) as folder:
        places = dict(zip(files, partials, strict=True))
        if series is not None and folder is not None:
            series.write(result, folder)
        if overlay is not None:
            write_overlay(request, overlay, result, places)
        write_fusion(result, places[request.output], places[sidecar_path(request.output)])
        if request.output_transform is not None and moved is not None:
            write_transform(moved.fixed_to_moving, places[request.output_transform], overwrite=True)
        if request.report is not None:
            from crossalign.report.pages.fusion import write_fusion_report  # slow to import

            write_fusion_report(places[request.report], result, moved, request.title, overwrite=True)
        if request.colour is not None:
            from crossalign.report.figures import write_fusion_planes

            write_fusion_planes(places[request.colour], result, overwrite=True)


def _lines(request: FuseRequest, result: FusionResult, moved: RegistrationResult | None) -> list[str]:
    lines = [f"{VERDICT}: {reason}" for reason in result.reasons]
    lines.append(f"method   {result.method}")
    if moved is not None:
        lines.append(f"motion   {motion_text(moved)}, MRI to PET: check the overlay")
    for name, scaling in (("MRI", result.a_scaling), ("PET", result.b_scaling)):
        window = f"{scaling.low:g} to {scaling.high:g} {scaling.unit}".rstrip()
        lines.append(f"{name}      {window} became 0 to 1 ({scaling.modality}: {scaling.source})")
    lines += [f"note     {text}" for text in result.notes]
    lines.append(f"seconds  {result.seconds:.2f}")
    lines.append(f"wrote    {request.output} (on the grid of the MRI; scaling in {sidecar_path(request.output).name})")
    if request.dicom_out is not None:
        lines += [
            f"wrote    {request.dicom_out / part} (DICOM series, filed with the MRI)" for part in (FUSED, OVERLAY)
        ]
    return lines + [f"wrote    {path}" for path in output_files(request)[2:]]
