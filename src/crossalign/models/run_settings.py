"""How a model's networks are run on a pair. Standard library only: the command line makes its options from these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from crossalign.errors import SettingError
from crossalign.fields import Bounds, check_bounds, check_choices, check_over_zero

OrientationCorrection: TypeAlias = Literal[0, 90, 180, 270, "auto"]
ORIENTATIONS_DEG = (0, 90, 180, 270)
MOST_SHIFT_MM = 20.0
RUN_BOUNDS: Bounds = {
    "initialisations": (1, 10_000),
    "max_passes": (1, 1000),
    "seed": (0, 2**63 - 1),
    "perturbation_mm": (0, 100),
    "refinement_step": (0, 1),
    "refinement_step_z": (0, 1),
    "search_rotation_deg": (0, 90),
    "match_variance_mm2": (0, 1e6),
}


@dataclass(frozen=True)
class RunSettings:
    """From how many initialisations networks answer, and how often they refine their answer."""

    initialisations: int = 1
    """Number of initialisations whose answers are averaged: the given one, and random perturbations of it."""

    perturbation_mm: float = 10.0
    """How far a perturbed initialisation moves the structure's surface on average, mm."""

    seed: int = 0
    """Seed of the perturbations."""

    max_passes: int = 1
    """Refinement passes: how often, at most, each stage of a cascade (or an ensemble as a whole) is run from its own
    answer."""

    tolerance_mm: float = 0.1
    """No further pass is made once a pass moves the structure's surface by less than this, mm."""

    refinement_step: float = 1.0
    """Step size of the passes after the first: the fraction of their correction that is applied."""

    refinement_step_z: float = 1.0
    """The same for the correction's shift along the body, the patient's z axis."""

    search: bool = False
    """Search a coarse grid for an initialisation first; the network must predict its own error."""

    search_shift_mm: float = 15.0
    """Shift between the points of the search grid along each axis, mm."""

    search_rotation_deg: float = 20.0
    """Rotation about each axis between the points of the search grid, degrees; 0 searches shifts alone."""

    match_variance_mm2: float = 0.0
    """How far a rotation prior counts beside a network's matches: the variance of their weighted mean, mm2; 0 leaves
    the prior out. For networks that match tokens."""

    network_shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Shift of the fixed structure, along the patient's axes, mm, that is added to the last answer: what networks leave
    on average, since they go by a structure's outlines, which differ between two kinds of scans. Not added where the
    rotation prior is not used."""

    orientation_correction: OrientationCorrection = 0
    """Rotation about the z axis that corrects wrong axes in both headers, degrees; `auto` takes the one at which the
    network predicts the smallest error."""

    def __post_init__(self) -> None:
        check_bounds(self, RUN_BOUNDS)
        check_over_zero(self, "perturbation_mm", "tolerance_mm", "search_shift_mm", "refinement_step")
        if not all(abs(value) <= MOST_SHIFT_MM for value in self.network_shift_mm):
            most = f"three lengths of {MOST_SHIFT_MM:g} mm at most"
            raise SettingError("network_shift_mm", f"needs {most}, got {self.network_shift_mm}")
        check_choices(self)

    def orientations_deg(self) -> tuple[int, ...]:
        """Return the orientation corrections to choose from, degrees."""
        return ORIENTATIONS_DEG if self.orientation_correction == "auto" else (self.orientation_correction,)

    def text(self) -> str:
        """Say what differs from running each stage once."""
        parts = []
        if self.initialisations > 1:
            parts.append(
                f"{self.initialisations} initialisations, perturbed by {self.perturbation_mm:g} mm (seed {self.seed})"
            )
        if self.max_passes > 1:
            parts.append(f"up to {self.max_passes} passes, until one moves under {self.tolerance_mm:g} mm")
            if (self.refinement_step, self.refinement_step_z) != (1, 1):
                steps = f"{self.refinement_step:.0%} of the correction, {self.refinement_step_z:.0%} along the body"
                parts.append(f"after the first pass {steps}")
        if self.search:
            parts.append(f"search of {self.search_shift_mm:g} mm and {self.search_rotation_deg:g} degrees")
        if self.match_variance_mm2 > 0:
            parts.append(f"a rotation prior beside matches of {self.match_variance_mm2:g} mm2")
        if any(self.network_shift_mm):
            x, y, z = self.network_shift_mm
            parts.append(f"shifted by {x:g}, {y:g} and {z:g} mm (L, P, S) with the prior")
        if self.orientation_correction != 0:
            parts.append(f"orientation correction {self.orientation_correction}")
        return ", ".join(parts) or "each stage once"
