"""What a registration is given, what a method does with it, and what the method hands back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, foreground, marked_voxels
from crossalign.registration.pose_prior import RotationPrior
from crossalign.types import Mask, Points, Vector

STRUCTURE_POINTS = 500
BALL_DIAMETER = 8 / 3  # diameter of a ball over the mean distance of its points from the centre
_IDENTITY = torch.eye(3, dtype=torch.float64)
WHAT_TO_TRY = "look at the overlay, and try another initialisation (--initial) or another method (--method)"


@dataclass(frozen=True, eq=False)
class Problem:
    """Two scans, the transform to begin with, and (optionally) the structure that matters, on either scan's grid.

    `initial` maps fixed points to moving points, as every answer does; mm, LPS. `prior` is what anatomy says of the
    rotation; None where nothing is to be assumed. `fixed_to_patient` (3, 3) rotates the fixed image's axes, each
    taken for the one of L, P and S that it is nearest to (`frame.along_fixed_axes`), to the patient's; None where
    the fixed header is believed. `orientation_probability` is how likely it is that the scans' axes point where
    `initial` and `fixed_to_patient` say (`find_orientation`), None where nobody was asked. What follows from the
    scans is computed once, when it is first asked for.
    """

    fixed: Image
    moving: Image
    initial: Rigid
    fixed_mask: LabelMap | None = None
    moving_mask: LabelMap | None = None
    prior: RotationPrior | None = None
    fixed_to_patient: Float[Tensor, "3 3"] | None = None
    orientation_probability: float | None = None

    @cached_property
    def center_mm(self) -> Vector:
        """Centre of the fixed mask, or of the fixed grid without one, (3,), float64: the centre of rotations."""
        return self.fixed.grid.center_mm() if self.fixed_mask is None else self.fixed_mask.centroid_mm()

    @property
    def patient_rotation(self) -> Float[Tensor, "3 3"]:
        """The rotation from the fixed image's axes to the patient's, float64: `fixed_to_patient`, or the identity."""
        return _IDENTITY if self.fixed_to_patient is None else self.fixed_to_patient.double()

    @cached_property
    def fixed_foreground(self) -> Mask:
        """Voxels of the fixed scan that show something."""
        return foreground(self.fixed.voxels)

    @cached_property
    def moving_foreground(self) -> Mask:
        """Voxels of the moving scan that show something."""
        return foreground(self.moving.voxels)

    @cached_property
    def structure_mm(self) -> Points:
        """About 500 points (n, 3), mm, of the structure, or of the fixed foreground without a mask."""
        if self.fixed_mask is not None:
            return self.fixed_mask.points_mm(_every(self.fixed_mask.foreground_count()))
        voxels = marked_voxels(self.fixed_foreground, _every(int(torch.count_nonzero(self.fixed_foreground))))
        return self.fixed.grid.to_physical(voxels.flip(-1).double())

    @cached_property
    def extent_mm(self) -> float:
        """Size of the structure: the diameter of a ball whose points lie as far from its centre, on average."""
        points = self.structure_mm
        return BALL_DIAMETER * float((points - points.mean(0)).norm(dim=-1).mean())

    def on_grids(self, fixed: Grid, moving: Grid, initial: Rigid) -> Problem:
        """Return the same scans in worlds with other coordinates; their foregrounds are not computed again."""
        mask, moving_mask = self.fixed_mask, self.moving_mask
        other = replace(
            self,
            fixed=Image(self.fixed.voxels, fixed, self.fixed.name),
            moving=Image(self.moving.voxels, moving, self.moving.name),
            initial=initial,
            fixed_mask=None if mask is None else LabelMap(mask.labels, fixed, mask.name),
            moving_mask=None if moving_mask is None else LabelMap(moving_mask.labels, moving, moving_mask.name),
        )
        known = {name: value for name, value in vars(self).items() if name.endswith("_foreground")}
        vars(other).update(known)  # where `cached_property` keeps its value
        return other


def _every(count: int) -> torch.Tensor:
    return torch.arange(0, count, max(1, count // STRUCTURE_POINTS))


@dataclass(frozen=True, eq=False)
class Application:
    """One use of a network in a step: from which transform it was run, and what it answered.

    Both transforms map fixed to moving points, LPS mm. `stage_number` counts the model's stages and `pass_number` the
    refinement passes, from 1; `initialisation` 0 is the unperturbed one. `weight` is that of the answer in the step's
    mean. `orientation_deg` is the orientation correction, `expected_sre_mm` the error that the network expected.
    """

    stage_number: int
    pass_number: int
    initialisation: int
    initial: Rigid
    answer: Rigid
    weight: float
    orientation_deg: int = 0
    expected_sre_mm: float | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """Where one step of a method arrived, from the fixed to the moving image, and the seconds that it took.

    `applications` are the uses of networks that it is the mean of.
    """

    name: str
    fixed_to_moving: Rigid
    seconds: float
    applications: tuple[Application, ...] = ()


@dataclass(frozen=True)
class Expectation:
    """How far off a method expects its answer to be; None where it cannot tell.

    `dispersion_mm` is how far the answers from several initialisations lie from their mean over the structure's
    surface, `network_sre_mm` what the network itself expects. `expected_sre_mm` is the two calibrated (the network's
    own where there is no calibration), `trusted` whether it is within the calibration's threshold and nothing else
    speaks against the result. Of results that are trusted the fraction `bound_probability` has a true SRE under
    `bound_mm`. `reasons` say why it is not to be trusted, each with what to try next. `evidence` is what a method
    judged itself by (registration.evidence of networks, registration.iterative.verdict of the iterative methods).
    `covariance` (6, 6), where a method has one, is that of the motion D with truth = answer @ D about the structure's
    centre: translation (mm), then rotation (degrees), along the fixed world's axes.
    """

    expected_sre_mm: float | None = None
    trusted: bool | None = None
    dispersion_mm: float | None = None
    network_sre_mm: float | None = None
    reasons: tuple[str, ...] = ()
    evidence: Mapping[str, float] = field(default_factory=dict)
    bound_mm: float | None = None
    bound_probability: float | None = None
    covariance: tuple[tuple[float, ...], ...] = ()

    def untrusted(self, *reasons: str) -> Expectation:
        """Add reasons not to trust the answer; a bound holds for trusted ones only."""
        return replace(self, trusted=False, reasons=(*self.reasons, *reasons), bound_mm=None, bound_probability=None)

    def bounded(self, bound_mm: float | None, probability: float | None) -> Expectation:
        """Say under which error the true one lies, with which probability."""
        return replace(self, bound_mm=bound_mm, bound_probability=probability)

    def bound_text(self) -> str:
        """Say after the expected SRE under which error the true one lies, with its probability; empty without."""
        if self.bound_mm is None or self.bound_probability is None:
            return ""
        return f", under {self.bound_mm:.1f} mm with {self.bound_probability:.0%}"


@dataclass(frozen=True, eq=False)
class Solution:
    """The steps of a method, in order (none: the initial transform is the answer), and what the user should know.

    `warnings` are about the inputs and the run; reasons not to trust the answer belong to its `expectation`. `notes`
    say in words what was assumed beforehand and used, such as a rotation prior.
    """

    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    expectation: Expectation = field(default_factory=Expectation)
    notes: tuple[str, ...] = ()


class Method(ABC):
    """A way to register: a small object that carries its settings. One file, and one line in `methods.py`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, as the command line spells it."""

    @property
    def uses_moving_mask(self) -> bool:
        """Whether the problem's moving mask decides the outcome: an evaluation gives it to such methods alone."""
        return False

    @property
    def weighs_orientation(self) -> bool:
        """Whether the expected error accounts for `Problem.orientation_probability`."""
        return False

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Everything that decides the outcome, as text, for reports."""

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """Register one pair. The same problem gives the same solution; nothing is kept between two calls."""


@dataclass(frozen=True)
class Identity(Method):
    """Answers with the initial transform."""

    @property
    def name(self) -> str:
        """Short name."""
        return "identity"

    def settings(self) -> dict[str, str]:
        """Nothing to set."""
        return {}

    def solve(self, problem: Problem) -> Solution:
        """Return the initial transform, in no time."""
        return Solution((Step(self.name, problem.initial, 0.0),))
