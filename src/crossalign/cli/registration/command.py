"""Registers one pair of files, for `register`, `demo` and each case of `batch`, and writes what was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from crossalign.cli.checks import check_apart, collected, pick_device
from crossalign.cli.dicom_output import check_dicom_out, dicom_files_of, dicom_folder, moved_series
from crossalign.cli.methods import chosen_method, configured
from crossalign.cli.orientation import PRIORS, Scans, found_orientation
from crossalign.cli.registration.answer import (
    AFTER,
    BEFORE,
    Registered,
    answer_lines,
    register_result,
    result_warnings,
)
from crossalign.cli.registration.inputs import Pair, file_names, input_files, read_pair
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.registration import RegisterRequest
from crossalign.cli.results.registration import RegisterResult
from crossalign.errors import InputError
from crossalign.geometry import mean_displacement_mm
from crossalign.images import (
    check_image_output,
    check_transform_output,
    looks_like_labels,
    surface_points,
    write_image,
    write_transform,
)
from crossalign.output import check_output, whole_files
from crossalign.registration import Method, RegistrationResult, register
from crossalign.registration.methods import named_method
from crossalign.registration.record import registration_record, write_record

UNTRUSTED_STATUS = 3


def output_files(request: RegisterRequest) -> tuple[Path, ...]:
    """Every file that is written."""
    paths = (request.output_transform, request.moved, request.report, request.record)
    return tuple(path for path in paths if path is not None)


def run_register(request: RegisterRequest) -> Outcome[RegisterResult]:
    """Register one pair of files and write what was asked for: all of it, or nothing. Raises CrossalignError."""
    check_outputs(request)
    registered = register_case(request, requested_method(request))
    result = registered.result
    untrusted = bool(result.reasons)
    return Outcome(
        tuple(answer_lines(request, registered)),
        result_warnings(result),
        UNTRUSTED_STATUS if request.strict and untrusted else 0,
        register_result(request, registered),
        (*output_files(request), *dicom_files_of(request.dicom_out)),
    )


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
    dicom = moved_series(request, result, pair.fixed_series, pair.moving_series)
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
