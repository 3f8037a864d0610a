"""A method with the orientation of the images, for runs over many cases."""

from __future__ import annotations

from dataclasses import dataclass, replace

from crossalign.geometry import rotation_of_code
from crossalign.registration.orientation import HEADER
from crossalign.registration.problem import Method, Problem, Solution


@dataclass(frozen=True, eq=False)
class Oriented(Method):
    """A method on problems whose headers name the axes wrongly: the orientations say where they point.

    The moving images' is in the initial transforms already, and stands here for the settings alone.
    """

    method: Method
    fixed_orientation: str = HEADER
    moving_orientation: str = HEADER

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method.name

    @property
    def uses_moving_mask(self) -> bool:
        """As the method does."""
        return self.method.uses_moving_mask

    @property
    def weighs_orientation(self) -> bool:
        """As the method does."""
        return self.method.weighs_orientation

    def settings(self) -> dict[str, str]:
        """Return the method's, and the orientations that are not the headers'."""
        given = {"fixed orientation": self.fixed_orientation, "moving orientation": self.moving_orientation}
        return self.method.settings() | {name: text for name, text in given.items() if text != HEADER}

    def solve(self, problem: Problem) -> Solution:
        """Register along the patient's axes. Raises InputError for a code that would mirror the patient."""
        if self.fixed_orientation == HEADER:
            return self.method.solve(problem)
        rotation = rotation_of_code(self.fixed_orientation, problem.fixed.grid)
        return self.method.solve(replace(problem, fixed_to_patient=rotation))
