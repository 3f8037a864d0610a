"""`crossalign register-onnx`: a registration without torch, which nothing here imports."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from crossalign.cli.reply import Outcome
from crossalign.cli.requests.onnx_registration import RegisterOnnxRequest
from crossalign.cli.results.onnx_registration import RegisterOnnxResult
from crossalign.errors import OutputError
from crossalign.images.files.writing import write_sitk
from crossalign.onnx_runtime.axes import quarter_turn
from crossalign.onnx_runtime.initialisation import read_initial
from crossalign.onnx_runtime.motions import Motion
from crossalign.onnx_runtime.networks import ExportedModel, load_exported
from crossalign.onnx_runtime.problem import Pair
from crossalign.onnx_runtime.registration import UNCHECKED, ExportedResult, register_exported
from crossalign.onnx_runtime.scans import empty_value, read_mask, read_scan, to_sitk
from crossalign.onnx_runtime.transform_files import check_transform_output, motion_text
from crossalign.output import check_output, whole_files, write_text

UNTRUSTED_STATUS = 3
VERDICT = "do not trust this result"
IMAGES = (".nii.gz", ".nii", ".nrrd", ".mha")


def run_register_onnx(request: RegisterOnnxRequest) -> Outcome[RegisterOnnxResult]:
    """Register one pair and write what was asked for, all of it or nothing. Raises CrossalignError."""
    outputs = _checked_outputs(request)
    model = _model(request)
    pair = _pair(request, model)
    began = time.perf_counter()
    result = register_exported(pair, model)
    seconds = time.perf_counter() - began
    _write(request, outputs, pair, result)
    return Outcome(
        tuple(_lines(request, model, result, seconds)),
        (*([VERDICT] if result.reasons else []), *result.warnings),
        UNTRUSTED_STATUS if request.strict and result.reasons else 0,
        _result(model, result, seconds),
        outputs,
    )


def _checked_outputs(request: RegisterOnnxRequest) -> tuple[Path, ...]:
    """Return the files to write. Raises OutputError where one cannot be written, or is an input."""
    check_transform_output(request.output_transform, request.overwrite)
    outputs = [request.output_transform]
    if request.moved is not None:
        if not request.moved.name.endswith(IMAGES):
            raise OutputError(f"{request.moved.name}: cannot tell the format: end it in {', '.join(IMAGES)}")
        check_output(request.moved, request.overwrite)
        outputs.append(request.moved)
    read = [request.fixed, request.moving, Path(request.initial), *request.network]
    read += [] if request.fixed_mask is None else [request.fixed_mask]
    for output in outputs:
        if output.exists() and any(path.exists() and output.samefile(path) for path in read):
            raise OutputError(f"{output}: is an input of this run: write to another file")
    return tuple(outputs)


def _model(request: RegisterOnnxRequest) -> ExportedModel:
    model = load_exported(request.network, request.threads)
    if request.orientation_correction is None:
        return model
    return replace(model, run=replace(model.run, orientation_correction=request.orientation_correction))


def _pair(request: RegisterOnnxRequest, model: ExportedModel) -> Pair:
    fixed, moving = read_scan(request.fixed), read_scan(request.moving)
    mask = None if request.fixed_mask is None else read_mask(request.fixed_mask, fixed)
    initial = read_initial(request.initial, fixed, moving, mask)
    correction = model.run.orientations_deg()[0]
    return Pair(fixed, moving, initial, mask, correction, request.rotation_prior != "none")


def _write(request: RegisterOnnxRequest, outputs: Sequence[Path], pair: Pair, result: ExportedResult) -> None:
    with whole_files(outputs, request.overwrite) as partials:
        write_text(motion_text(result.fixed_to_moving), partials[0])
        if request.moved is not None:
            fill = empty_value(pair.moving.voxels)
            moved = pair.moving.resampled(pair.fixed.lattice, result.fixed_to_moving, fill)
            write_sitk(to_sitk(moved.voxels, moved.lattice), partials[1])


def _lines(request: RegisterOnnxRequest, model: ExportedModel, result: ExportedResult, seconds: float) -> list[str]:
    motion = result.correction()
    x, y, z = (quarter_turn(model.run.orientations_deg()[0]) @ motion.translation_mm).tolist()  # the patient's axes
    shift = f"{float(np.linalg.norm(motion.translation_mm)):.2f} mm (L {x:+.2f}, P {y:+.2f}, S {z:+.2f})"
    lines = [
        *(f"{VERDICT}: {reason}" for reason in result.reasons),
        f"method   {model.name}, exported",
        f"initial  {request.initial if not Path(request.initial).exists() else Path(request.initial).name}",
        *(f"assumed  {note}" for note in result.notes),
        f"motion   {shift} and {motion.angle_deg():.2f} degrees",
        f"seconds  {seconds:.2f}",
    ]
    if result.expected_sre_mm is not None:
        bound = ""
        if result.bound_mm is not None:
            bound = f", under {result.bound_mm:.1f} mm with {result.bound_probability:.0%}"
        doubt = " (do not trust this)" if result.reasons else ", if the scans are what the model was made for"
        lines.append(f"expected SRE {result.expected_sre_mm:.1f} mm{bound}{doubt}")
    lines.append(f"unchecked {UNCHECKED}")
    lines.append(f"wrote    {request.output_transform} (fixed points to moving points, LPS mm)")
    return lines + ([] if request.moved is None else [f"wrote    {request.moved} (the moving image on the fixed grid)"])


def _result(model: ExportedModel, result: ExportedResult, seconds: float) -> RegisterOnnxResult:
    bound = None
    if result.bound_mm is not None and result.bound_probability is not None:
        bound = {"sre_mm": result.bound_mm, "probability": result.bound_probability}
    own = {"dispersion_mm": result.dispersion_mm, "network_sre_mm": result.network_sre_mm}
    return RegisterOnnxResult(
        model=model.name,
        fixed_to_moving=_matrix(result.fixed_to_moving),
        initial=_matrix(result.initial),
        expected_sre_mm=result.expected_sre_mm,
        bound=bound,
        trusted=result.trusted,
        reasons=list(result.reasons),
        unchecked=UNCHECKED,
        assumed=list(result.notes),
        evidence=own | dict(result.evidence),
        seconds=seconds,
    )


def _matrix(motion: Motion) -> list[list[float]]:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = motion.rotation, motion.translation_mm
    return [[float(value) for value in row] for row in matrix]
