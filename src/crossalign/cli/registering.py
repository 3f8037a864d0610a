"""`crossalign register`: two files and a start in; a transform, and on request an image and a report, out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossalign.cases import surface_points
from crossalign.cli.options import Outcome, check_apart, pick_device, read_start
from crossalign.cli.running import with_run
from crossalign.errors import InputError
from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.images import (
    Image,
    LabelMap,
    check_image_output,
    check_output,
    check_transform_output,
    read_image,
    read_label_map,
    read_transform,
    whole_files,
    write_image,
    write_transform,
)
from crossalign.registration import RegistrationResult, register
from crossalign.registration.named import default_method_name, named_method

BEFORE, AFTER = "SRE before", "SRE after"


@dataclass(frozen=True)
class RegisterRequest:
    """The options of `crossalign register`; `method` None is the default method.

    `starts`, `search` and `header_turn` None leave it to the weights how they are run.
    """

    fixed: Path
    moving: Path
    initial: str
    output_transform: Path
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    method: str | None = None
    moved: Path | None = None
    report: Path | None = None
    reference: Path | None = None
    starts: int | None = None
    search: bool | None = None
    header_turn: str | None = None
    device: str = "auto"
    overwrite: bool = False

    def run_text(self) -> str:
        """How networks are to be run, as `parse_run` reads it."""
        parts = [] if self.starts is None else [f"starts={self.starts}"]
        if self.search is not None:
            parts.append(f"search={'on' if self.search else 'off'}")
        if self.header_turn is not None:
            parts.append(f"header_turn={self.header_turn}")
        return ",".join(parts)

    def inputs(self) -> tuple[Path, ...]:
        """Every file that is read."""
        start = None if self.initial in ("center", "mask-center") else Path(self.initial)
        paths = (self.fixed, self.moving, self.fixed_mask, self.moving_mask, self.reference, start)
        return tuple(path for path in paths if path is not None)

    def outputs(self) -> tuple[Path, ...]:
        """Every file that is written."""
        return tuple(path for path in (self.output_transform, self.moved, self.report) if path is not None)


@dataclass(frozen=True, eq=False)
class Pair:
    """What was read for one registration."""

    fixed: Image
    moving: Image
    initial: Rigid
    fixed_mask: LabelMap | None
    moving_mask: LabelMap | None = None
    reference: Rigid | None = None


@dataclass(frozen=True, eq=False)
class Registered:
    """A registration and what is known of its error: SRE before and after, mm, where a reference was given."""

    pair: Pair
    result: RegistrationResult
    errors_mm: Mapping[str, float] = field(default_factory=dict)


def run_register(request: RegisterRequest) -> Outcome:
    """Register one pair of files and write what was asked for: all of it, or nothing. Raises CrossalignError."""
    check_outputs(request)
    method = named_method(request.method or default_method_name(), pick_device(request.device))
    method = with_run(method, request.run_text())
    pair = read_pair(request)
    result = register(pair.fixed, pair.moving, method, pair.initial, pair.fixed_mask)
    registered = Registered(pair, result, _errors_mm(pair, result))
    _write(request, registered)
    return Outcome(tuple(_lines(request, registered)), result.warnings)


def check_outputs(request: RegisterRequest) -> None:
    """Raise OutputError where an output could not be written, and InputError where the request cannot be met."""
    check_transform_output(request.output_transform, request.overwrite)
    if request.moved is not None:
        check_image_output(request.moved, request.overwrite)
    if request.report is not None:
        check_output(request.report, request.overwrite)
    check_apart(request.outputs(), request.inputs())
    if request.reference is not None and request.fixed_mask is None:
        raise InputError("--reference needs --fixed-mask: the error is measured on the surface of the fixed structure")


def read_pair(request: RegisterRequest) -> Pair:
    """Read every input; raises ImageError or TransformError."""
    fixed, moving = read_image(request.fixed), read_image(request.moving)
    mask = None if request.fixed_mask is None else read_label_map(request.fixed_mask)
    return Pair(
        fixed=fixed,
        moving=moving,
        initial=read_start(request.initial, fixed, moving, mask),
        fixed_mask=mask,
        moving_mask=None if request.moving_mask is None else read_label_map(request.moving_mask),
        reference=None if request.reference is None else read_transform(request.reference),
    )


def _errors_mm(pair: Pair, result: RegistrationResult) -> dict[str, float]:
    if pair.reference is None or pair.fixed_mask is None:
        return {}
    points = surface_points(pair.fixed_mask)
    return {
        BEFORE: float(mean_displacement_mm(result.initial, pair.reference, points)),
        AFTER: float(mean_displacement_mm(result.fixed_to_moving, pair.reference, points)),
    }


def _write(request: RegisterRequest, registered: Registered) -> None:
    pair, result = registered.pair, registered.result
    with whole_files(request.outputs(), request.overwrite) as partials:
        places = dict(zip(request.outputs(), partials, strict=True))
        write_transform(result.fixed_to_moving, places[request.output_transform], overwrite=True)
        if request.moved is not None:
            write_image(pair.moving.resampled(pair.fixed.grid, result.fixed_to_moving), places[request.moved], True)
        if request.report is not None:
            from crossalign.report import write_report  # slow to import

            write_report(
                places[request.report],
                fixed=pair.fixed,
                moving=pair.moving,
                result=result,
                fixed_mask=pair.fixed_mask,
                moving_mask=pair.moving_mask,
                errors_mm=registered.errors_mm,
                overwrite=True,
            )


def _lines(request: RegisterRequest, registered: Registered) -> list[str]:
    result, errors = registered.result, registered.errors_mm
    x, y, z, *_ = result.motion().tolist()
    shift = f"{result.shift_mm():.2f} mm (L {x:+.2f}, P {y:+.2f}, S {z:+.2f})"
    steps = ", ".join(f"{step.name} {step.seconds:.2f}" for step in result.steps)
    lines = [
        f"method   {result.method}",
        f"motion   {shift} and {result.angle_deg():.2f} degrees",
        f"seconds  {result.seconds:.2f}" + (f" ({steps})" if len(result.steps) > 1 else ""),
    ]
    if result.expected_sre_mm is not None:
        lines.append(f"expected SRE {result.expected_sre_mm:.1f} mm{_verdict(result)}")
    if errors:
        lines.append(f"SRE      {errors[BEFORE]:.3f} mm before, {errors[AFTER]:.3f} mm after")
    lines.append(f"wrote    {request.output_transform} (fixed points to moving points, LPS mm)")
    if request.moved is not None:
        lines.append(f"wrote    {request.moved} (the moving image on the fixed grid)")
    if request.report is not None:
        lines.append(f"wrote    {request.report}")
    return lines


def _verdict(result: RegistrationResult) -> str:
    if result.trusted is None:
        return " (the network's own, not calibrated)"
    return "" if result.trusted else " (do not trust this)"
