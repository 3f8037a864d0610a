"""A method with the orientation of the fixed images, for runs over many cases."""

from __future__ import annotations

from dataclasses import dataclass, replace

from crossalign.geometry import rotation_of_code
from crossalign.registration.problem import Method, Problem, Solution


@dataclass(frozen=True, eq=False)
class Oriented(Method):
    """A method on problems whose fixed header names the axes wrongly: `fixed_orientation` says where they point."""

    method: Method
    fixed_orientation: str

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method.name

    @property
    def uses_moving_mask(self) -> bool:
        """As the method does."""
        return self.method.uses_moving_mask

    def settings(self) -> dict[str, str]:
        """Return the method's, and the orientation."""
        return self.method.settings() | {"fixed orientation": self.fixed_orientation}

    def solve(self, problem: Problem) -> Solution:
        """Register along the patient's axes. Raises InputError for a code that would mirror the patient."""
        rotation = rotation_of_code(self.fixed_orientation, problem.fixed.grid)
        return self.method.solve(replace(problem, fixed_to_patient=rotation))
