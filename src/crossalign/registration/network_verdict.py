"""Whether the answer of networks is to be trusted: their calibrated expected error, and reasons in words."""

from __future__ import annotations

from collections.abc import Mapping

from crossalign.models.calibration import Calibration
from crossalign.registration.causes import reasons_against
from crossalign.registration.problem import Expectation
from crossalign.registration.refinement import Refinement


def network_expectation(
    last: Refinement, calibration: Calibration | None, evidence: Mapping[str, float]
) -> tuple[Expectation, tuple[str, ...]]:
    """Calibrate what the last part knows of its error, and its evidence; also return what to warn the user of."""
    dispersion, network = last.dispersion_mm, last.network_sre_mm
    if calibration is None:
        return Expectation(network, None, dispersion, network, evidence=evidence), ()
    expected = calibration.expected_sre_mm(dispersion, network, evidence)
    if expected is None:
        warning = "no expected SRE: the calibration of this model needs several initialisations (--initialisations 2)"
        return Expectation(None, None, dispersion, network, evidence=evidence), (warning,)
    reasons = reasons_against(calibration, expected, evidence)
    expectation = Expectation(expected, not reasons, dispersion, network, evidence=evidence)
    if reasons:
        return expectation.untrusted(*reasons), ()
    return expectation.bounded(calibration.bound_mm(expected), calibration.bound_probability), ()
