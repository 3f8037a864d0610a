"""register_exported(pair, model): the registration by a model's networks, as `registration` does it with torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from crossalign.errors import OverlapError, TransformError
from crossalign.onnx_runtime.axes import PRIOR_TEXT
from crossalign.onnx_runtime.evidence import gather_evidence
from crossalign.onnx_runtime.motions import Array, Motion, mean_displacement_mm, mean_motion
from crossalign.onnx_runtime.networks import Answer, ExportedModel, Network
from crossalign.onnx_runtime.problem import Pair, Problem
from crossalign.onnx_runtime.scans import Scan, foreground
from crossalign.registration.causes import reasons_against

LOW_OVERLAP, OVERLAP_POINTS = 0.25, 20_000
CONVERGING = 3  # with more passes than these a model is meant to converge
# What `crossalign register` checks, and this does not: without it nothing here is called trusted.
UNCHECKED = (
    "nothing checked that these are the MR and the transrectal ultrasound of a prostate, nor how their axes point: "
    "look at the overlay"
)


@dataclass(frozen=True, eq=False)
class ExportedResult:
    """The transform found, fixed to moving points (LPS, mm), and what is known of its error.

    `expected_sre_mm` is the calibrated SRE to expect, None where the model has no calibration. `bound_mm` is that under
    which the true one lies with `bound_probability`, provided that the scans are what the model was made for. `trusted`
    is False where something speaks against the result (`reasons`), and None otherwise: it is never True, since nothing
    here recognises what the scans show. `evidence` is what the expected SRE is made of.
    """

    fixed_to_moving: Motion
    initial: Motion
    center_mm: Array
    expected_sre_mm: float | None
    bound_mm: float | None
    bound_probability: float | None
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    dispersion_mm: float | None = None
    network_sre_mm: float | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)

    @property
    def trusted(self) -> bool | None:
        """False where something speaks against the result; None where nothing does, which is no proof of it."""
        return False if self.reasons else None

    def correction(self) -> Motion:
        """Return the motion of fixed points about `center_mm` that was added to the initial transform."""
        motion = self.initial.inverse() @ self.fixed_to_moving
        return Motion(motion.rotation, motion.apply(self.center_mm) - self.center_mm)


@dataclass(frozen=True, eq=False)
class _Passes:
    """Where a part of a model arrived, its dispersion and expected SRE in the last pass, and whether it converged."""

    found: Motion
    dispersion_mm: float | None
    network_sre_mm: float | None
    warnings: tuple[str, ...]


def register_exported(pair: Pair, model: ExportedModel) -> ExportedResult:
    """Register a pair by the networks of a model.

    Raises InputError where a network needs a mask, OverlapError where the initial transform brings nothing of the fixed
    structure into the moving image, TransformError where a network's answer is not finite.
    """
    warnings = list(_initial_warnings(pair))
    problem = Problem.of(pair, model)
    current = problem.pair.initial
    last = _Passes(current, None, None, ())
    for number, part in enumerate(model.parts, start=1):
        last = _refined(problem, part, current, number)
        current = last.found
        warnings += last.warnings
    evidence = gather_evidence(problem, model.parts[-1], current)
    current = _shifted(problem, current)
    if not current.is_finite():
        raise TransformError("the networks answered NaN or infinite values: check the initial transform")
    return _judged(problem, current, last, evidence, warnings)


def _judged(
    problem: Problem, found: Motion, last: _Passes, evidence: dict[str, float], warnings: Sequence[str]
) -> ExportedResult:
    calibration = problem.model.calibration
    expected, bound, reasons = last.network_sre_mm, None, list[str]()
    if calibration is not None:
        expected = calibration.expected_sre_mm(last.dispersion_mm, last.network_sre_mm, evidence)
        if expected is not None:
            reasons += reasons_against(calibration, expected, evidence)
            bound = calibration.bound_mm(expected)
    fixed_to_moving = problem.to_world(found)
    fraction = _overlap(problem.pair, found)
    if fraction < LOW_OVERLAP:
        reasons.append(
            f"it brings only {fraction:.0%} of the fixed structure into the moving image; begin closer (--initial)"
        )
    return ExportedResult(
        fixed_to_moving=fixed_to_moving,
        initial=problem.to_world(problem.pair.initial),
        center_mm=problem.frame.inverse().apply(problem.center_mm),
        expected_sre_mm=expected,
        bound_mm=None if reasons else bound,
        bound_probability=None if reasons or calibration is None or bound is None else calibration.bound_probability,
        reasons=tuple(reasons),
        warnings=tuple(warnings),
        notes=_notes(problem),
        dispersion_mm=last.dispersion_mm,
        network_sre_mm=last.network_sre_mm,
        evidence=evidence,
    )


def _refined(problem: Problem, part: Sequence[Network], initial: Motion, number: int) -> _Passes:
    """Run a part until a pass moves the points by less than the tolerance, or the passes are used up."""
    run, points, current = problem.model.run, problem.points_mm, initial
    dispersion: float | None = None
    expected: float | None = None
    for count in range(1, run.max_passes + 1):
        answers = [problem.answer(network, current) for network in part]
        motions = [motion for motion, _ in answers]
        broken = next((motion for motion in motions if not motion.is_finite()), None)
        found = motions[0] if len(motions) == 1 else broken or mean_motion(motions, points)
        if len(motions) > 1 and broken is None:
            dispersion = float(np.mean([mean_displacement_mm(one, found, points) for one in motions]))
        expected = _mean_expected([said for _, said in answers])
        if count > 1:
            found = _damped(problem, current, found)
        moved_mm = mean_displacement_mm(current, found, points)
        current = found
        if run.max_passes > 1 and moved_mm < run.tolerance_mm:
            return _Passes(current, dispersion, expected, ())
    warnings: tuple[str, ...] = ()
    if run.max_passes > CONVERGING:
        warnings = (
            f"part {number} did not converge in {run.max_passes} passes: the last still moved {moved_mm:.2f} mm",
        )
    return _Passes(current, dispersion, expected, warnings)


def _mean_expected(answers: Sequence[Answer]) -> float | None:
    found = [one.expected_sre_mm for one in answers if one.expected_sre_mm is not None]
    return float(np.mean(found)) if len(found) == len(answers) else None


def _damped(problem: Problem, current: Motion, found: Motion) -> Motion:
    """Apply a fraction of a later pass's correction."""
    step, along = problem.model.run.refinement_step, problem.model.run.refinement_step_z
    if (step, along) == (1, 1):
        return found
    parameters = problem.to_crop(current.inverse() @ found).parameters()
    return current @ problem.from_crop(
        Motion.from_parameters(parameters * np.array([step, step, along, step, step, step]))
    )


def _shifted(problem: Problem, found: Motion) -> Motion:
    """Add the shift that networks leave on average, where the rotation prior is used."""
    shift = np.array(problem.model.run.network_shift_mm)
    if problem.expected_rotation is None or not shift.any():
        return found
    return found @ Motion(np.eye(3), problem.rotation.T @ shift)


def _notes(problem: Problem) -> tuple[str, ...]:
    if problem.model.run.match_variance_mm2 == 0:
        return ()
    if not problem.pair.prior:
        return ("no rotation prior, as was asked for",)
    if problem.expected_rotation is None:
        return (f"the initial transform turns too far from the rotation prior to use it ({PRIOR_TEXT})",)
    return (f"rotation prior used: {PRIOR_TEXT}",)


def _initial_warnings(pair: Pair) -> tuple[str, ...]:
    fraction = _overlap(pair, pair.initial)
    if fraction == 0:
        raise OverlapError(
            f"the initial transform brings no point of the fixed structure into {pair.moving.name}: check that it maps "
            "fixed points to moving points in LPS mm, or begin with 'center' or 'mask-center'"
        )
    warnings = []
    if fraction < LOW_OVERLAP:
        warnings.append(
            f"the initial transform brings only {fraction:.0%} of the fixed structure into the moving image"
        )
    if pair.fixed_mask is None:
        warnings.append("no fixed mask: the crop is centred on the fixed image's middle, not on the structure")
    return tuple(warnings)


def _overlap(pair: Pair, fixed_to_moving: Motion) -> float:
    """Return the larger of two fractions: of fixed points that fall into the moving image, and back."""
    fixed = _points(pair.fixed) if pair.fixed_mask is None else _points(pair.fixed_mask)
    forward = pair.moving.lattice.holds(fixed_to_moving.apply(fixed))
    back = fixed_to_moving.inverse().apply(_points(pair.moving))
    if pair.fixed_mask is None:
        return max(forward, pair.fixed.lattice.holds(back))
    index = np.floor(pair.fixed.lattice.to_voxel(back) + 0.5).astype(np.int64)
    known = np.all((index >= 0) & (index < np.array(pair.fixed.lattice.size)), axis=-1, keepdims=True)
    x, y, z = np.where(known, index, 0).T
    marked = pair.fixed_mask.voxels[z, y, x] != 0
    return max(forward, float(np.mean(known[:, 0] & marked)))


def _points(scan: Scan) -> Array:
    """Return about 20,000 points (n, 3), mm, of what a scan shows, or of a mask."""
    index = np.argwhere(foreground(scan.voxels))
    index = index[:: max(1, len(index) // OVERLAP_POINTS)]
    return scan.lattice.to_physical(index[:, ::-1].astype(np.float64))
