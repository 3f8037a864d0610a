"""What `crossalign register` prints: first whether the result is to be trusted, then what was found and written."""

from __future__ import annotations

from collections.abc import Mapping

from crossalign.registration import Initialisation, RegistrationResult
from crossalign.registration.result import VERDICT

BEFORE, AFTER = "SRE before", "SRE after"


def verdict_lines(result: RegistrationResult) -> list[str]:
    """Give one line for each reason not to trust the result; none where nothing speaks against it."""
    return [f"{VERDICT}: {reason}" for reason in result.reasons]


def result_lines(result: RegistrationResult, start: Initialisation, errors_mm: Mapping[str, float]) -> list[str]:
    """Tell the method, the start, the motion, the seconds, and what is known of the error."""
    x, y, z, *_ = result.motion().tolist()
    shift = f"{result.shift_mm():.2f} mm (L {x:+.2f}, P {y:+.2f}, S {z:+.2f})"
    steps = ", ".join(f"{step.name} {step.seconds:.2f}" for step in result.steps)
    lines = [
        f"method   {result.method}",
        f"start    {start.name}" + (f" ({start.reason})" if start.reason else ""),
        f"motion   {shift} and {result.angle_deg():.2f} degrees",
        f"seconds  {result.seconds:.2f}" + (f" ({steps})" if len(result.steps) > 1 else ""),
    ]
    if result.expected_sre_mm is not None:
        lines.append(f"expected SRE {result.expected_sre_mm:.1f} mm{_trust(result)}")
    if errors_mm:
        lines.append(f"SRE      {errors_mm[BEFORE]:.3f} mm before, {errors_mm[AFTER]:.3f} mm after")
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
