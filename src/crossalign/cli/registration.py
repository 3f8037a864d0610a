"""`crossalign register`: two files and an initialisation in; a transform, an image and a report out. And the demo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from crossalign.cli.checks import check_apart, collected, pick_device, weight_files
from crossalign.cli.dicom_output import check_dicom_out, dicom_files_of, dicom_folder, moved_series
from crossalign.cli.initialisation import (
    LandmarkFiles,
    read_fixed_mask,
    read_initialisation,
    read_moving_mask,
    transform_file,
)
from crossalign.cli.methods import chosen_method, configured
from crossalign.cli.orientation import PRIORS, Scans, found_orientation
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.registration import RegisterRequest
from crossalign.cli.results.registration import ReferenceErrors, RegisterResult
from crossalign.errors import InputError
from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.images import (
    Image,
    LabelMap,
    check_image_output,
    check_transform_output,
    empty_value,
    looks_like_labels,
    read_image,
    read_transform,
    surface_points,
    write_image,
    write_transform,
)
from crossalign.images.files.dicom.output import DicomOutput
from crossalign.images.files.stored import public_name
from crossalign.output import check_output, whole_files
from crossalign.registration import Initialisation, Method, RegistrationResult, register
from crossalign.registration.methods import named_method
from crossalign.registration.patient_axes import motion_text
from crossalign.registration.record import registration_record, write_record
from crossalign.registration.result import VERDICT

UNTRUSTED_STATUS = 3
BEFORE, AFTER = "before", "after"


def input_files(request: RegisterRequest) -> tuple[Path, ...]:
    """Every file that is read."""
    transform, landmarks = transform_file(request.initial), landmark_files(request).paths()
    given = (request.fixed, request.moving, request.fixed_mask, request.moving_mask, request.reference)
    return (*(path for path in (*given, transform, *landmarks) if path is not None), *weight_files(request.method))


def output_files(request: RegisterRequest) -> tuple[Path, ...]:
    """Every file that is written."""
    paths = (request.output_transform, request.moved, request.report, request.record)
    return tuple(path for path in paths if path is not None)


def file_names(request: RegisterRequest) -> dict[str, str | None]:
    """Name the inputs by their part, without folders; the label of the mask with it."""
    named = {"fixed": request.fixed, "moving": request.moving, "initial": transform_file(request.initial)}
    named |= {"fixed_mask": request.fixed_mask, "moving_mask": request.moving_mask}
    named |= {"fixed_landmarks": request.fixed_landmarks, "moving_landmarks": request.moving_landmarks}
    names = {part: None if path is None else public_name(path) for part, path in named.items()}
    return names | {"mask_label": request.mask_label, "moving_mask_label": request.moving_mask_label}


def landmark_files(request: RegisterRequest) -> LandmarkFiles:
    """Return the files of landmarks."""
    return LandmarkFiles(request.fixed_landmarks, request.moving_landmarks)


@dataclass(frozen=True, eq=False)
class Pair:
    """What was read for one registration."""

    fixed: Image
    moving: Image
    initial: Initialisation
    fixed_mask: LabelMap | None
    moving_mask: LabelMap | None = None
    reference: Rigid | None = None


@dataclass(frozen=True, eq=False)
class Registered:
    """A registration and what is known of its error, before and after, where a reference was given."""

    pair: Pair
    result: RegistrationResult
    errors_mm: Mapping[str, float]
    dicom: DicomOutput | None = None


def run_register(request: RegisterRequest) -> Outcome[RegisterResult]:
    """Register one pair of files and write what was asked for: all of it, or nothing. Raises CrossalignError."""
    check_outputs(request)
    registered = register_case(request, requested_method(request))
    result = registered.result
    untrusted = bool(result.reasons)
    return Outcome(
        tuple(_lines(request, registered)),
        result_warnings(result),
        UNTRUSTED_STATUS if request.strict and untrusted else 0,
        register_result(request, registered),
        (*output_files(request), *dicom_files_of(request.dicom_out)),
    )


def register_result(request: RegisterRequest, registered: Registered) -> RegisterResult:
    """Return a registration as `--json` prints it: its record, and the errors against a reference."""
    record = registration_record(registered.result, registered.pair.initial, file_names(request))
    entries = {field.name: record[field.name] for field in fields(RegisterResult) if field.name in record}
    return RegisterResult(**entries, errors=_reference_errors(registered.errors_mm))


def _reference_errors(errors_mm: Mapping[str, float]) -> ReferenceErrors | None:
    if not errors_mm:
        return None
    keys = [f"{key} {when}" for key in ("SRE", "Centre", "Angle_deg") for when in (BEFORE, AFTER)]
    return ReferenceErrors(*(errors_mm[key] for key in keys))


def requested_method(request: RegisterRequest) -> Method:
    """Load the method that a request names or leaves to the default, with its settings. Raises CrossalignError."""
    method = named_method(chosen_method(request)[0], pick_device(request.device))
    return configured([method], request.run, request.mi, request.mind, request.surface)[0]


def register_case(request: RegisterRequest, method: Method) -> Registered:
    """Read one pair, register it and write what was asked for: `register` does it once, `batch` for each case.

    `method` is that of `requested_method`, which cases of one process share. Raises CrossalignError.
    """
    with collected() as input_warnings:
        pair = read_pair(request)
        scans = Scans(pair.fixed, pair.moving, pair.fixed_mask, pair.moving_mask)
        orientation, initial = found_orientation(request, method, scans, pair.initial)
        pair = replace(pair, initial=initial)
        result = register(
            pair.fixed,
            pair.moving,
            method,
            pair.initial.fixed_to_moving,
            pair.fixed_mask,
            pair.moving_mask,
            prior=PRIORS[request.rotation_prior],
            orientation=orientation,
        )
    dicom = moved_series(request, result)
    notes = (*_moved_warnings(request, pair), *(() if dicom is None else dicom.notes))
    result = replace(result, warnings=(*input_warnings, *notes, *result.warnings))
    registered = Registered(pair, result, _errors_mm(pair, result), dicom)
    _write(request, registered)
    return registered


def check_outputs(request: RegisterRequest) -> None:
    """Raise OutputError where an output could not be written, and InputError where the request cannot be met."""
    check_transform_output(request.output_transform, request.overwrite)
    if request.moved is not None:
        check_image_output(request.moved, request.overwrite)
    for path in (request.report, request.record):
        if path is not None:
            check_output(path, request.overwrite)
    check_dicom_out(request.dicom_out, request.dicom_identity, input_files(request))
    check_apart(output_files(request), input_files(request))
    if request.reference is not None and request.fixed_mask is None:
        raise InputError("--reference needs --fixed-mask: the error is measured on the surface of the fixed structure")


def read_pair(request: RegisterRequest) -> Pair:
    """Read every input; raises ImageError or TransformError."""
    fixed = read_image(request.fixed, series=request.fixed_series)
    moving = read_image(request.moving, series=request.moving_series)
    mask = read_fixed_mask(request.fixed_mask, request.mask_label, fixed)
    moving_mask = read_moving_mask(request.moving_mask, request.moving_mask_label, moving)
    return Pair(
        fixed=fixed,
        moving=moving,
        initial=read_initialisation(request.initial, (fixed, moving), mask, moving_mask, landmark_files(request)),
        fixed_mask=mask,
        moving_mask=moving_mask,
        reference=None if request.reference is None else read_transform(request.reference),
    )


def _errors_mm(pair: Pair, result: RegistrationResult) -> dict[str, float]:
    """Measure SRE, the centre's distance (mm) and the angle of the rotation (degrees) against the reference."""
    if pair.reference is None or pair.fixed_mask is None:
        return {}
    from crossalign.evaluation.error_parts import parts_between

    points, axes = surface_points(pair.fixed_mask), torch.eye(3, dtype=torch.float64)
    errors: dict[str, float] = {}
    for when, transform in ((BEFORE, result.initial), (AFTER, result.fixed_to_moving)):
        parts = parts_between(transform, pair.reference, result.center_mm, axes)
        errors[f"SRE {when}"] = float(mean_displacement_mm(transform, pair.reference, points))
        errors[f"Centre {when}"] = parts.distance_mm
        errors[f"Angle_deg {when}"] = parts.angle_deg
    return errors


def _moved_warnings(request: RegisterRequest, pair: Pair) -> tuple[str, ...]:
    if (request.moved is None and request.dicom_out is None) or not looks_like_labels(pair.moving.voxels):
        return ()
    text = "its integers look like labels, and they are interpolated: use crossalign apply --label for label maps"
    return (f"{pair.moving.name}: {text}",)


def _write(request: RegisterRequest, registered: Registered) -> None:
    pair, result = registered.pair, registered.result
    files = output_files(request)
    with whole_files(files, request.overwrite) as partials, dicom_folder(request.dicom_out) as folder:
        places = dict(zip(files, partials, strict=True))
        write_transform(result.fixed_to_moving, places[request.output_transform], overwrite=True)
        if request.moved is not None or registered.dicom is not None:
            moved = pair.moving.resampled(pair.fixed.grid, result.fixed_to_moving)
            if request.moved is not None:
                write_image(moved, places[request.moved], True)
            if registered.dicom is not None and folder is not None:
                registered.dicom.write(moved, folder)
        if request.report is not None:
            from crossalign.report.pages.registration import write_report  # slow to import

            write_report(
                places[request.report],
                fixed=pair.fixed,
                moving=pair.moving,
                result=result,
                fixed_mask=pair.fixed_mask,
                moving_mask=pair.moving_mask,
                errors_mm=registered.errors_mm,
                landmarks=None if pair.initial.landmarks is None else pair.initial.landmarks.pairs,
                title=request.title,
                reduced=request.report_detail == "reduced",
                overwrite=True,
            )
        if request.record is not None:
            record = registration_record(result, pair.initial, file_names(request))
            write_record(record, places[request.record], overwrite=True)


def _lines(request: RegisterRequest, registered: Registered) -> list[str]:
    result, pair = registered.result, registered.pair
    found = result_lines(result, pair.initial, registered.errors_mm)
    reason = chosen_method(request)[1]
    found[0] += f" ({reason})" if reason else ""
    lines = [*verdict_lines(result), *found]
    lines.append(f"wrote    {request.output_transform} (fixed points to moving points, LPS mm)")
    what = f"(the moving image on the fixed grid; outside it is {empty_value(pair.moving.voxels):g})"
    lines += [f"wrote    {path} {what}" for path in (request.moved, request.dicom_out) if path is not None]
    lines += [f"wrote    {path}" for path in (request.report, request.record) if path is not None]
    return lines


def verdict_lines(result: RegistrationResult) -> list[str]:
    """Give one line for each reason not to trust the result; none where nothing speaks against it."""
    return [f"{VERDICT}: {reason}" for reason in result.reasons]


def result_lines(result: RegistrationResult, initial: Initialisation, errors_mm: Mapping[str, float]) -> list[str]:
    """Give the method, the initialisation, the motion, the seconds, and what is known of the error."""
    landmarks = () if initial.landmarks is None else initial.landmarks.rows()
    steps = ", ".join(f"{step.name} {step.seconds:.2f}" for step in result.steps)
    lines = [
        f"method   {result.method}",
        f"initial  {initial.name}" + (f" ({initial.reason})" if initial.reason else ""),
        *(f"         {name} {residual:.2f} mm" for name, residual in landmarks),
        *([] if result.orientation is None else [f"axes     {result.orientation.text()}"]),
        *(f"assumed  {note}" for note in result.notes),
        f"motion   {motion_text(result)}",
        f"seconds  {result.seconds:.2f}" + (f" ({steps})" if len(result.steps) > 1 else ""),
    ]
    if result.expected_sre_mm is not None:
        lines.append(f"expected SRE {result.expected_sre_mm:.1f} mm{result.expectation.bound_text()}{_trust(result)}")
    if errors_mm:
        for name, key, unit in (("SRE", "SRE", "mm"), ("centre", "Centre", "mm"), ("angle", "Angle_deg", "degrees")):
            before, after = (errors_mm[f"{key} {when}"] for when in (BEFORE, AFTER))
            lines.append(f"{name:<8} {before:.3f} {unit} before, {after:.3f} {unit} after")
    return lines


def result_warnings(result: RegistrationResult) -> tuple[str, ...]:
    """Return what goes to standard error: a result that is not to be trusted says so there too, in short."""
    reasons = result.reasons
    short = (f"{VERDICT} ({len(reasons)} reason{'s' if len(reasons) > 1 else ''} in the output)",) if reasons else ()
    return (*short, *result.warnings)


def _trust(result: RegistrationResult) -> str:
    if result.reasons:
        return " (do not trust this)"
    return " (the network's own, not calibrated)" if result.trusted is None else ""
