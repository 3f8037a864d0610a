"""What `crossalign register` says of a registration: in lines, warnings, and the document of `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from crossalign.cli.methods import chosen_method
from crossalign.cli.registration.inputs import Pair, file_names
from crossalign.cli.requests.registration import RegisterRequest
from crossalign.cli.results.registration import ReferenceErrors, RegisterResult
from crossalign.images import empty_value
from crossalign.images.files.dicom.output import DicomOutput
from crossalign.registration import Initialisation, RegistrationResult
from crossalign.registration.patient_axes import motion_text
from crossalign.registration.record import registration_record
from crossalign.registration.result import VERDICT

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True, eq=False)
class Registered:
    """A registration and what is known of its error, before and after, where a reference was given."""

    pair: Pair
    result: RegistrationResult
    errors_mm: Mapping[str, float]
    dicom: DicomOutput | None = None


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


def answer_lines(request: RegisterRequest, registered: Registered) -> list[str]:
    """Return what is printed: why not to trust the result, what was found, and the files that were written."""
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
