"""What a registration is given, what a method does with it, and what the method hands back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap
from crossalign.types import Vector


@dataclass(frozen=True, eq=False)
class Problem:
    """Two scans, where to start, and (optionally) the structure of the fixed scan that matters, on the fixed grid.

    `initial` maps fixed points to moving points, as every answer does; mm, LPS.
    """

    fixed: Image
    moving: Image
    initial: Rigid
    fixed_mask: LabelMap | None = None

    def center_mm(self) -> Vector:
        """Centre of the fixed mask, or of the fixed grid without one, (3,), float64: what rotations are told about."""
        if self.fixed_mask is None:
            return self.fixed.grid.center_mm()
        return self.fixed_mask.centroid_mm()


@dataclass(frozen=True, eq=False)
class Step:
    """Where one stage of a method arrived, from the fixed to the moving image, and the seconds that it took."""

    name: str
    fixed_to_moving: Rigid
    seconds: float


@dataclass(frozen=True)
class Expectation:
    """How far off a method expects its answer to be; None where it cannot tell.

    `dispersion_mm` is how far the answers from several starts lie from their mean over the gland's surface,
    `network_sre_mm` what the network itself expects. `expected_sre_mm` is the two calibrated (the network's own where
    there is no calibration), `trusted` whether it is within the calibration's threshold and nothing else speaks against
    the result. `doubts` are the reasons not to trust it, each a sentence that ends in what to try next; `evidence` is
    what an iterative method judged itself by (registration.verdict).
    """

    expected_sre_mm: float | None = None
    trusted: bool | None = None
    dispersion_mm: float | None = None
    network_sre_mm: float | None = None
    reasons: tuple[str, ...] = ()
    evidence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Solution:
    """The stages of one run, in order (none: the start is the answer), and what the user should be told."""

    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    expectation: Expectation = field(default_factory=Expectation)


class Method(ABC):
    """A way to register: a small object that carries its settings. One file, and one line in `named.py`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, as the command line spells it."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Everything that decides the outcome, as text, for reports."""

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """Register one pair. The same problem gives the same solution; nothing is kept between two calls."""


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
