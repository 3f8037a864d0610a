"""Registration of a structure's two surfaces: rigid, robust, beside what anatomy says of the rotation."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid
from crossalign.registration.frame import normalised
from crossalign.registration.iterative.method_settings import SurfaceSettings
from crossalign.registration.iterative.surface_fit import RotationTerm, Side, fit_surfaces
from crossalign.registration.iterative.surface_verdict import SurfaceEvidence, expectation_of, gather_surface_evidence
from crossalign.registration.pose_prior import ExpectedRotation, expected_rotation
from crossalign.registration.problem import Method, Problem, Solution, Step


@dataclass(frozen=True)
class SurfaceRegistration(Method):
    """Fits the surfaces of `fixed_mask` and `moving_mask`, the rotation held to the problem's prior.

    The answer is the maximum a posteriori estimate; of the initial transform only the rotation counts, since the
    surfaces say where the structure is. Without a prior, or where the initial transform does not agree with it, the
    surfaces alone decide, from the initial rotation.
    """

    run: SurfaceSettings = field(default_factory=SurfaceSettings)

    @property
    def name(self) -> str:
        """Short name."""
        return "surface"

    @property
    def uses_moving_mask(self) -> bool:
        """It does."""
        return True

    def settings(self) -> dict[str, str]:
        """Every setting, as text."""
        return {key: str(value) for key, value in asdict(self.run).items()}

    def with_run(self, run: SurfaceSettings) -> SurfaceRegistration:
        """Return the same method with other settings."""
        return replace(self, run=run)

    @torch.no_grad()
    def solve(self, problem: Problem) -> Solution:
        """Register; raises InputError where one of the masks is missing."""
        began = time.perf_counter()
        _check_masks(problem)
        working, frame = normalised(problem)
        fixed, moving = (Side.of(mask, self.run.points) for mask in (working.fixed_mask, working.moving_mask) if mask)
        expected, warnings = _expected(working)
        term = None if expected is None else rotation_term(expected, working.patient_rotation, self.run)
        start = working.initial.rotation.double() if expected is None else expected.rotation
        fit = fit_surfaces(fixed, moving, start, term, self.run)
        if not fit.converged:
            warnings += (f"the fit of the surfaces had not converged after {self.run.iterations} iterations",)
        found = fit.fixed_to_moving
        if expected is not None:
            shift = working.patient_rotation.mT @ torch.tensor(self.run.outline_shift_mm, dtype=torch.float64)
            found = found @ Rigid.from_translation(shift)
        evidence: SurfaceEvidence = gather_surface_evidence(
            fixed, moving, fit, self.run, working, frame.vectors_to_world()
        )
        step = Step(self.name, frame.to_world(found), time.perf_counter() - began)
        notes = () if expected is None or problem.prior is None else (f"rotation prior of {problem.prior.text()}",)
        return Solution((step,), warnings, expectation_of(evidence, problem.extent_mm), notes)


def rotation_term(expected: ExpectedRotation, patient_rotation: Tensor, settings: SurfaceSettings) -> RotationTerm:
    """Weigh a prior beside the mean square distance of two surfaces, by the noise about the patient's axes."""
    noise = torch.diag(torch.tensor(settings.noise_mm, dtype=torch.float64))
    noise = patient_rotation.mT @ noise @ patient_rotation
    return RotationTerm(expected.rotation, noise @ expected.precision @ noise)


def _check_masks(problem: Problem) -> None:
    missing = [
        f"the {which} mask (--{which}-mask)"
        for which, mask in (("fixed", problem.fixed_mask), ("moving", problem.moving_mask))
        if mask is None
    ]
    if missing:
        raise InputError(
            f"the method surface fits the structure's outlines in both scans, and got no {' and no '.join(missing)}: "
            "give both masks, or use another method (--method)"
        )


def _expected(problem: Problem) -> tuple[ExpectedRotation | None, tuple[str, ...]]:
    """Return what the prior says of the rotation, and a warning where the initial transform contradicts it."""
    if problem.prior is None:
        return None, ()
    axes = problem.patient_rotation
    found = expected_rotation(problem.prior, problem.moving.grid, problem.initial, axes, headers=False)
    if found is not None:
        return found, ()
    warning = (
        f"the initial transform's rotation is far from any that is expected ({problem.prior.source}), so nothing was "
        "assumed of the rotation: check the initialisation (--initial) and the orientation of both scans"
    )
    return None, (warning,)
