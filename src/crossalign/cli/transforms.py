"""`crossalign transform`: transform files of other programs, their inverses, and several in one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from crossalign.cli.checks import check_apart
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.transforms import ComposeRequest, ConvertRequest, InvertRequest
from crossalign.cli.results.transforms import TransformResult
from crossalign.errors import InputError, OutputError, TransformError
from crossalign.geometry import Grid
from crossalign.images import LINEAR_FORMATS, Ends, read_linear, recognised_format, stored_grid, write_linear
from crossalign.images.files.linear_transforms import FIXED_TO_MOVING, MOVING_TO_FIXED
from crossalign.images.files.transform_formats.nearly_rigid import rigid_fault
from crossalign.input import excerpt
from crossalign.output import check_output, whole_file
from crossalign.types import Matrix4

BARE = "a bare matrix, which does not say what it maps: name it with --from matrix-lps, --from matrix-ras or --from fsl"
DICOM = "dicom"
FORMAT_OF = {".tfm": "itk", ".txt": "itk", ".h5": "itk", ".lta": "lta", ".dcm": DICOM}
OTHER_WAY = {FIXED_TO_MOVING: MOVING_TO_FIXED, MOVING_TO_FIXED: FIXED_TO_MOVING}
GRID_FORMATS = ("fsl", "lta")


@dataclass(frozen=True, eq=False)
class _Read:
    """A transform as read: its matrix (4, 4), LPS mm, its format, and which points it maps to which."""

    matrix: Matrix4
    format: str
    direction: str


@dataclass(frozen=True)
class _Pair:
    """The grids of the two images; None where an image was not named."""

    fixed: Grid | None
    moving: Grid | None

    @staticmethod
    def of(fixed: Path | None, moving: Path | None) -> _Pair:
        return _Pair(*(None if path is None else stored_grid(path) for path in (fixed, moving)))

    def ends(self, direction: str) -> Ends:
        """Put the images in the order of a direction."""
        return Ends(self.fixed, self.moving) if direction == FIXED_TO_MOVING else Ends(self.moving, self.fixed)


def run_convert(request: ConvertRequest) -> Outcome[TransformResult]:
    """Convert one file. Raises CrossalignError."""
    target = _output_format(request.output, request.output_format)
    _check(request.output, request.overwrite, (request.source, request.fixed, request.moving))
    _check_needs(request, target)
    _check_series(request, target)
    pair = _Pair.of(request.fixed, request.moving)
    read = _read(request.source, request.source_format, request.direction, pair)
    if target == DICOM:
        return _written_as_dicom(request, read)
    direction = request.output_direction or LINEAR_FORMATS[target].direction or FIXED_TO_MOVING
    matrix = read.matrix if direction == read.direction else torch.linalg.inv(read.matrix)
    return _written(request, read, matrix, target, direction, pair)


def run_invert(request: InvertRequest) -> Outcome[TransformResult]:
    """Invert one file. Raises CrossalignError."""
    target = _output_format(request.output, request.output_format)
    _check(request.output, request.overwrite, (request.source, request.fixed, request.moving))
    _check_needs(request, target)
    pair = _Pair.of(request.fixed, request.moving)
    read = _read(request.source, request.source_format, request.direction, pair)
    return _written(request, read, torch.linalg.inv(read.matrix), target, OTHER_WAY[read.direction], pair)


def run_compose(request: ComposeRequest) -> Outcome[TransformResult]:
    """Compose files, the first of which maps points first. Raises CrossalignError."""
    if len(request.transforms) < 2:
        raise InputError("compose needs two transforms or more, in the order in which points go through them")
    _check_suffix(request.output, request.output_format)
    _check(request.output, request.overwrite, request.transforms)
    matrix = torch.eye(4, dtype=torch.float64)
    lines, formats = [], []
    for path in request.transforms:
        kind = recognised_format(path)
        name = request.source_format if kind is None else kind.format
        if name is None or name in GRID_FORMATS:
            what = "a bare matrix (pass --from)" if name is None else f"{name}, which goes with two images"
            raise TransformError(f"{path.name}: is {what}: 'crossalign transform convert' makes a .tfm of it")
        one = read_linear(path, name)
        matrix = one @ matrix
        formats.append(name)
        lines.append(f"read     {path} ({name}, {_shape(one)})")
    with whole_file(request.output, request.overwrite) as partial:
        write_linear(matrix, partial, request.output_format)
    first, last = request.transforms[0].name, request.transforms[-1].name
    what = f"points that {first} maps, to where {last} maps them; {request.output_format}, {_shape(matrix)}"
    result = _result(formats, request.output_format, None, matrix)
    return Outcome((*lines, f"wrote    {request.output} ({what})"), result=result, outputs=(request.output,))


def _result(formats: Iterable[str], written: str, direction: str | None, matrix: Matrix4) -> TransformResult:
    rows = tuple(tuple(row) for row in matrix.tolist())
    return TransformResult(tuple(formats), written, direction, rows, rigid_fault(matrix.numpy()) == "")


def _read(path: Path, named: str | None, direction: str | None, pair: _Pair) -> _Read:
    kind = recognised_format(path)
    if kind is None and named is None:
        raise TransformError(f"{path.name}: {BARE}")
    if kind is not None and named not in (None, kind.format):
        raise TransformError(f"{path.name}: is of the format {kind.format}, but --from says {named}: leave --from out")
    if kind is None and named in ("itk", "minc", "lta"):
        raise TransformError(f"{path.name}: is a bare matrix, not a file of {named}: {BARE}")
    name = named if kind is None else kind.format
    assert name is not None
    stated = "" if kind is None else kind.direction
    if stated and direction not in (None, stated):
        raise TransformError(f"{path.name}: says that it maps {stated}, but --direction says {direction}: leave it out")
    found = direction or stated or LINEAR_FORMATS[name].direction
    if not found:
        raise TransformError(
            f"{path.name}: a matrix does not say which way it maps: pass --direction fixed-to-moving or "
            "--direction moving-to-fixed"
        )
    return _Read(read_linear(path, name, pair.ends(found)), name, found)


def _written(
    request: ConvertRequest | InvertRequest, read: _Read, matrix: Matrix4, target: str, direction: str, pair: _Pair
) -> Outcome[TransformResult]:
    with whole_file(request.output, request.overwrite) as partial:
        write_linear(matrix, partial, target, pair.ends(direction), direction)
    return Outcome(
        (
            _read_line(request, read),
            f"wrote    {request.output} ({target}, maps {_words(direction)})",
        ),
        result=_result([read.format], target, direction, matrix),
        outputs=(request.output,),
    )


def _written_as_dicom(request: ConvertRequest, read: _Read) -> Outcome[TransformResult]:
    from crossalign.images.files.dicom.series import image_series
    from crossalign.images.files.dicom.spatial_registration import write_spatial_registration

    assert request.fixed_series is not None
    assert request.moving_series is not None
    fixed, moving = image_series(request.fixed_series), image_series(request.moving_series)
    matrix = read.matrix if read.direction == FIXED_TO_MOVING else torch.linalg.inv(read.matrix)
    with whole_file(request.output, request.overwrite) as partial:
        notes = write_spatial_registration(matrix.numpy(), partial, fixed, moving)
    what = f"dicom, maps {_words(MOVING_TO_FIXED)}; filed under the fixed series' patient and study"
    result = _result([read.format], DICOM, MOVING_TO_FIXED, torch.linalg.inv(matrix))
    lines = (_read_line(request, read), f"wrote    {request.output} ({what})")
    return Outcome(lines, notes, 0, result, (request.output,))


def _check_series(request: ConvertRequest, target: str) -> None:
    """Raise InputError where a DICOM object is asked for and a series is missing, or the other way round."""
    given = {side: getattr(request, f"{side}_series") for side in ("fixed", "moving")}
    missing = [f"--{side}-series" for side, path in given.items() if path is None]
    if target == DICOM and missing:
        raise InputError(
            f"a DICOM object refers to both images' series: name their folders with {' and '.join(missing)}"
        )
    if target == DICOM and request.output_direction is not None:
        raise InputError("--output-direction: a DICOM object always maps moving points to fixed points: leave it out")
    if target != DICOM and len(missing) < 2:
        raise InputError("--fixed-series and --moving-series are for DICOM objects (.dcm): leave them out")


def _read_line(request: ConvertRequest | InvertRequest, read: _Read) -> str:
    return f"read     {request.source} ({read.format}, maps {_words(read.direction)}; {_shape(read.matrix)})"


def _output_format(path: Path, named: str | None) -> str:
    """Return the format to write; raises OutputError where neither the name nor --to says it."""
    name = named or FORMAT_OF.get(path.suffix)
    if name is None:
        choices = "--to itk or --to fsl" if path.suffix == ".mat" else "--to, or end it in .tfm, .h5, .lta or .dcm"
        raise OutputError(f"{path.name}: the name does not say which format to write: pass {choices}")
    _check_suffix(path, name)
    return name


def _check_suffix(path: Path, name: str) -> None:
    suffixes = (".dcm",) if name == DICOM else LINEAR_FORMATS[name].suffixes
    if path.suffix not in suffixes:
        raise OutputError(f"{path.name}: a transform of the format {name} ends in {' or '.join(suffixes)}")


def _check(output: Path, overwrite: bool, inputs: Iterable[Path | None]) -> None:
    check_output(output, overwrite)
    check_apart((output,), (path for path in inputs if path is not None))


def _check_needs(request: ConvertRequest | InvertRequest, target: str) -> None:
    """Raise InputError where a format refers to grids of images that are not named."""
    if target in GRID_FORMATS or request.source_format == "fsl":
        missing = [f"--{side}" for side in ("fixed", "moving") if getattr(request, side) is None]
        if missing:
            name = target if target in GRID_FORMATS else "fsl"
            raise InputError(f"{name} refers to the grids of both images: name them with {' and '.join(missing)}")


def _words(direction: str) -> str:
    source, target = direction.split("-to-")
    return f"{source} points to {target} points"


def _shape(matrix: Matrix4) -> str:
    fault = rigid_fault(matrix.numpy())
    return f"affine: {excerpt(fault)}" if fault else "rigid"
