"""What a registration hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crossalign.geometry import Rigid
from crossalign.registration.problem import Expectation, Step
from crossalign.types import Parameters, Vector


@dataclass(frozen=True, eq=False)
class RegistrationResult:
    """The transform found, the start it came from, and how it came about.

    Both transforms map fixed points to moving points (LPS, mm), float64 on the CPU. `center_mm` (3,) is the centre of
    the fixed mask, or of the fixed grid where there was none: `motion` is told about it. `settings` names everything
    that decided the outcome; `seconds` is the method's time, without reading files. `expectation` says how far off the
    method expects the transform to be, where it can tell.
    """

    fixed_to_moving: Rigid
    initial: Rigid
    center_mm: Vector
    method: str
    steps: tuple[Step, ...] = ()
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    expectation: Expectation = field(default_factory=Expectation)

    @property
    def expected_sre_mm(self) -> float | None:
        """SRE that the method expects, mm; None where it cannot tell."""
        return self.expectation.expected_sre_mm

    @property
    def trusted(self) -> bool | None:
        """Whether the expected SRE is within the threshold that came with the weights; None where there is none."""
        return self.expectation.trusted

    def correction(self) -> Rigid:
        """Motion of the fixed points that the registration added ahead of the start: result = start @ correction."""
        return self.initial.inverse() @ self.fixed_to_moving

    def motion(self) -> Parameters:
        """Six parameters (mm, degrees) of the correction about `center_mm`: how far the structure was moved."""
        return self.correction().to_parameters(self.center_mm)

    def shift_mm(self) -> float:
        """How far the correction moves `center_mm`."""
        return float(self.motion()[:3].norm())

    def angle_deg(self) -> float:
        """Angle of the correction about its own axis."""
        return float(self.correction().angle_deg())
