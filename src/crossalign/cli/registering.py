"""`crossalign register`: two files and a start in; a transform, and on request an image and a report, out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from crossalign.cli.options import Outcome, check_apart, collected, pick_device, weight_files
from crossalign.cli.register_lines import AFTER, BEFORE, result_lines, result_warnings, verdict_lines
from crossalign.cli.running import with_run
from crossalign.cli.starting import read_fixed_mask, read_initialisation, start_file
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
    read_mask,
    read_transform,
    surface_points,
    write_image,
    write_transform,
)
from crossalign.output import check_output, whole_files
from crossalign.registration import Initialisation, RegistrationResult, register
from crossalign.registration.methods import default_method_name, named_method
from crossalign.registration.record import registration_record, write_record

UNTRUSTED_STATUS = 3


@dataclass(frozen=True)
class RegisterRequest:
    """The options of `crossalign register`; `method` None is the default method.

    `initial` is a word or a transform file; None chooses. `mask_label` picks the structure in the fixed mask. `starts`,
    `search` and `header_turn` None leave it to the weights how they are run. `strict` makes the exit status 3 where the
    result is not to be trusted.
    """

    fixed: Path
    moving: Path
    initial: str | None
    output_transform: Path
    fixed_mask: Path | None = None
    mask_label: str | None = None
    moving_mask: Path | None = None
    method: str | None = None
    moved: Path | None = None
    report: Path | None = None
    record: Path | None = None
    reference: Path | None = None
    starts: int | None = None
    search: bool | None = None
    header_turn: str | None = None
    device: str = "auto"
    strict: bool = False
    overwrite: bool = False

    def run_text(self) -> str:
        """How networks are to be run, as `parse_run` reads it."""
        parts = [] if self.starts is None else [f"initialisations={self.starts}"]
        if self.search is not None:
            parts.append(f"search={'on' if self.search else 'off'}")
        if self.header_turn is not None:
            parts.append(f"orientation_correction={self.header_turn}")
        return ",".join(parts)

    def inputs(self) -> tuple[Path, ...]:
        """Every file that is read."""
        start = start_file(self.initial)
        paths = (self.fixed, self.moving, self.fixed_mask, self.moving_mask, self.reference, start)
        return (*(path for path in paths if path is not None), *weight_files(self.method))

    def outputs(self) -> tuple[Path, ...]:
        """Every file that is written."""
        paths = (self.output_transform, self.moved, self.report, self.record)
        return tuple(path for path in paths if path is not None)

    def file_names(self) -> dict[str, str | None]:
        """Name the inputs by their part, without folders; the label of the mask with it."""
        start = start_file(self.initial)
        named = {"fixed": self.fixed, "moving": self.moving, "fixed_mask": self.fixed_mask, "initial": start}
        names = {part: None if path is None else path.name for part, path in named.items()}
        return names | {"mask_label": self.mask_label}


@dataclass(frozen=True, eq=False)
class Pair:
    """What was read for one registration."""

    fixed: Image
    moving: Image
    start: Initialisation
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
    with collected() as told:
        pair = read_pair(request)
        result = register(pair.fixed, pair.moving, method, pair.start.fixed_to_moving, pair.fixed_mask)
    result = replace(result, warnings=(*told, *_moved_warnings(request, pair), *result.warnings))
    registered = Registered(pair, result, _errors_mm(pair, result))
    _write(request, registered)
    untrusted = bool(result.reasons)
    return Outcome(
        tuple(_lines(request, registered)),
        result_warnings(result),
        UNTRUSTED_STATUS if request.strict and untrusted else 0,
    )


def check_outputs(request: RegisterRequest) -> None:
    """Raise OutputError where an output could not be written, and InputError where the request cannot be met."""
    check_transform_output(request.output_transform, request.overwrite)
    if request.moved is not None:
        check_image_output(request.moved, request.overwrite)
    for path in (request.report, request.record):
        if path is not None:
            check_output(path, request.overwrite)
    check_apart(request.outputs(), request.inputs())
    if request.reference is not None and request.fixed_mask is None:
        raise InputError("--reference needs --fixed-mask: the error is measured on the surface of the fixed structure")


def read_pair(request: RegisterRequest) -> Pair:
    """Read every input; raises ImageError or TransformError."""
    fixed, moving = read_image(request.fixed), read_image(request.moving)
    mask = read_fixed_mask(request.fixed_mask, request.mask_label, fixed)
    return Pair(
        fixed=fixed,
        moving=moving,
        start=read_initialisation(request.initial, fixed, moving, mask),
        fixed_mask=mask,
        moving_mask=None if request.moving_mask is None else read_mask(request.moving_mask),
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


def _moved_warnings(request: RegisterRequest, pair: Pair) -> tuple[str, ...]:
    if request.moved is None or not looks_like_labels(pair.moving.voxels):
        return ()
    told = "its integers look like labels, and --moved interpolates them: use crossalign apply --label for label maps"
    return (f"{pair.moving.name}: {told}",)


def _write(request: RegisterRequest, registered: Registered) -> None:
    pair, result = registered.pair, registered.result
    with whole_files(request.outputs(), request.overwrite) as partials:
        places = dict(zip(request.outputs(), partials, strict=True))
        write_transform(result.fixed_to_moving, places[request.output_transform], overwrite=True)
        if request.moved is not None:
            write_image(pair.moving.resampled(pair.fixed.grid, result.fixed_to_moving), places[request.moved], True)
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
                overwrite=True,
            )
        if request.record is not None:
            record = registration_record(result, pair.start, request.file_names())
            write_record(record, places[request.record], overwrite=True)


def _lines(request: RegisterRequest, registered: Registered) -> list[str]:
    result, pair = registered.result, registered.pair
    lines = [*verdict_lines(result), *result_lines(result, pair.start, registered.errors_mm)]
    lines.append(f"wrote    {request.output_transform} (fixed points to moving points, LPS mm)")
    if request.moved is not None:
        fill = empty_value(pair.moving.voxels)
        lines.append(f"wrote    {request.moved} (the moving image on the fixed grid; outside it is {fill:g})")
    lines += [f"wrote    {path}" for path in (request.report, request.record) if path is not None]
    return lines
