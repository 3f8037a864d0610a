"""The method that leaves the start as it is: what every table is measured against."""

from dataclasses import dataclass

from crossalign.registration.problem import Method, Problem, Solution, Step


@dataclass(frozen=True)
class Identity(Method):
    """Answers with the start."""

    @property
    def name(self) -> str:
        """Short name."""
        return "identity"

    def settings(self) -> dict[str, str]:
        """Nothing to set."""
        return {}

    def solve(self, problem: Problem) -> Solution:
        """Return the start, in no time."""
        return Solution((Step(self.name, problem.initial, 0.0),))
