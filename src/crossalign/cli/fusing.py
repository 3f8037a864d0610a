"""`crossalign fuse`: an MRI and a PET in; one volume, and on request a transform, pictures and a report, out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from crossalign.cli.options import Outcome, check_apart, collected, pick_device, weight_files
from crossalign.errors import InputError, OutputError
from crossalign.fusion import FusionResult, fuse
from crossalign.fusion.fused_files import check_fusion_output, sidecar_path, stage_fusion
from crossalign.fusion.methods import default_fusion_method_name, named_fusion_method
from crossalign.images import check_transform_output, read_image, write_transform
from crossalign.output import check_output, whole_files
from crossalign.registration import RegistrationResult
from crossalign.registration.result import VERDICT


@dataclass(frozen=True)
class FuseRequest:
    """The options of `crossalign fuse`; `method` None is the default method, `emphasis` None the method's own."""

    mri: Path
    pet: Path
    output: Path
    method: str | None = None
    emphasis: str | None = None
    register: bool = False
    output_transform: Path | None = None
    report: Path | None = None
    colour: Path | None = None
    unit: str = ""
    device: str = "auto"
    overwrite: bool = False

    def outputs(self) -> tuple[Path, ...]:
        """Every file that is written, the volume and its JSON file first."""
        extra = (self.output_transform, self.report, self.colour)
        return (self.output, sidecar_path(self.output), *(path for path in extra if path is not None))


def run_fuse(request: FuseRequest) -> Outcome:
    """Fuse one pair of files and write what was asked for: all of it, or nothing. Raises CrossalignError."""
    check_outputs(request)
    name = default_fusion_method_name() if request.method is None else request.method
    method = named_fusion_method(name, request.emphasis, pick_device(request.device))
    with collected() as told:
        mri, pet = read_image(request.mri), read_image(request.pet)
    moved = None
    if request.register:
        from crossalign.fusion.alignment import align

        moved = align(mri, pet)
    result = fuse(mri, pet, method, None if moved is None else moved.fixed_to_moving, request.unit)
    del mri, pet  # a fifth of the memory, while the result is written
    result = _with_verdict(result, told, moved)
    _write(request, result, moved)
    short = (f"{VERDICT}: the PET may not lie on the MRI (reasons in the output)",) if result.reasons else ()
    return Outcome(tuple(_lines(request, result, moved)), (*short, *result.warnings))


def _with_verdict(result: FusionResult, told: list[str], moved: RegistrationResult | None) -> FusionResult:
    """Add what the readers warned of, and what the registration thinks of itself."""
    if moved is None:
        return replace(result, warnings=(*told, *result.warnings))
    reasons = moved.reasons
    warnings = (*told, *moved.warnings, *result.warnings)
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
    check_apart(request.outputs(), (request.mri, request.pet, *weight_files(request.method)))


def _write(request: FuseRequest, result: FusionResult, moved: RegistrationResult | None) -> None:
    with whole_files(request.outputs(), request.overwrite) as partials:
        places = dict(zip(request.outputs(), partials, strict=True))
        stage_fusion(result, places[request.output], places[sidecar_path(request.output)])
        if request.output_transform is not None and moved is not None:
            write_transform(moved.fixed_to_moving, places[request.output_transform], overwrite=True)
        if request.report is not None:
            from crossalign.report.pages.fusion import write_fusion_report  # slow to import

            write_fusion_report(places[request.report], result, moved, overwrite=True)
        if request.colour is not None:
            from crossalign.report.figures import write_fusion_planes

            write_fusion_planes(places[request.colour], result, overwrite=True)


def _lines(request: FuseRequest, result: FusionResult, moved: RegistrationResult | None) -> list[str]:
    lines = [f"{VERDICT}: {doubt}" for doubt in result.reasons]
    lines.append(f"method   {result.method}")
    if moved is not None:
        x, y, z, *_ = moved.motion().tolist()
        shift = f"{moved.shift_mm():.2f} mm (L {x:+.2f}, P {y:+.2f}, S {z:+.2f})"
        lines.append(f"motion   {shift} and {moved.angle_deg():.2f} degrees, MRI to PET: check the overlay")
    for name, scaling in (("MRI", result.a_scaling), ("PET", result.b_scaling)):
        lines.append(f"{name}      {scaling.low:g} to {scaling.high:g} {scaling.unit}".rstrip() + " became 0 to 1")
    lines += [f"note     {text}" for text in result.notes]
    lines.append(f"seconds  {result.seconds:.2f}")
    lines.append(f"wrote    {request.output} (on the grid of the MRI; scaling in {sidecar_path(request.output).name})")
    return lines + [f"wrote    {path}" for path in request.outputs()[2:]]
