"""register: one pair, one method, one result."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from crossalign.arguments import checked
from crossalign.errors import ImageError, OverlapError, TransformError
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, on_grid_of, one_structure
from crossalign.images.conversion import ImageLike, MaskLike, as_image, as_mask
from crossalign.registration.odd_inputs import input_warnings
from crossalign.registration.orientation import Orientation
from crossalign.registration.overlap import LOW_OVERLAP, Overlap
from crossalign.registration.pose_prior import TRANSRECTAL, RotationPrior
from crossalign.registration.problem import WHAT_TO_TRY, Expectation, Method, Problem, Step
from crossalign.types import Parameters, Vector

VERDICT = "do not trust this result"


@dataclass(frozen=True, eq=False)
class RegistrationResult:
    """The transform found, the one it began with, and how it came about.

    Both transforms map fixed points to moving points (LPS, mm), float64 on the CPU. `center_mm` (3,) is the centre of
    the fixed mask, or of the fixed grid where there was none: `motion` is about it. `settings` names everything that
    decided the outcome; `seconds` is the method's time, without reading files. `expectation` says how far off the
    method expects the transform to be, where it can tell; `warnings` are about the inputs and the run. What is stored
    or read off is an attribute, what is computed is a method. `orientation` says where the axes of the scans were taken
    to point; `notes` say what was assumed beforehand and used.
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
    orientation: Orientation | None = None
    notes: tuple[str, ...] = ()

    @property
    def expected_sre_mm(self) -> float | None:
        """SRE that the method expects, mm; None where it cannot tell."""
        return self.expectation.expected_sre_mm

    @property
    def trusted(self) -> bool | None:
        """Whether nothing speaks against the result; None where the method cannot tell."""
        return False if self.expectation.reasons else self.expectation.trusted

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the result is not to be trusted, each with what to try next; () where nothing speaks against it."""
        if self.expectation.reasons or self.trusted is not False:
            return self.expectation.reasons
        expected = "" if self.expected_sre_mm is None else f" of {self.expected_sre_mm:.1f} mm"
        return (f"its expected SRE{expected} is over the limit that came with the weights: {WHAT_TO_TRY}",)

    def moved(self, moving: ImageLike, fixed: ImageLike | Grid) -> Image:
        """Return the moving image on the fixed image's grid, or on another one in its space. Raises as `as_image`."""
        grid = fixed if isinstance(fixed, Grid) else as_image(fixed, "fixed").grid
        return as_image(moving, "moving").resampled(grid, self.fixed_to_moving)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values, as `register --record` writes it; see registration.record."""
        from crossalign.registration.initialisation import Initialisation
        from crossalign.registration.record import registration_record

        return registration_record(self, Initialisation(self.initial, "given", ""))

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the transform (.tfm, .txt, .h5, .mat: of ITK) or the record (.json). Raises OutputError."""
        from crossalign.registration.saving import save_result

        save_result(self, path, overwrite)

    def _repr_html_(self) -> str:
        """Return what a notebook shows; `crossalign.show` shows the images too."""
        from crossalign.registration.saving import result_html

        return result_html(self)

    def correction(self) -> Rigid:
        """Motion of the fixed points that the registration added ahead: result = initial @ correction."""
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


@checked("method", "initial", "prior", "orientation")
def register(  # noqa: PLR0913 (the pair, its structure on either side, and what is known beforehand)
    fixed: ImageLike,
    moving: ImageLike,
    method: Method,
    initial: Rigid,
    fixed_mask: MaskLike | None = None,
    moving_mask: MaskLike | None = None,
    prior: RotationPrior | None = TRANSRECTAL,
    orientation: Orientation | None = None,
) -> RegistrationResult:
    """Find where the points of the fixed image lie in the moving image.

    Images and masks are crossalign's, paths, arrays with their geometry (`Voxels`), or images of SimpleITK, nibabel,
    MONAI or TorchIO (see `as_image`).
    `initial` and the result map fixed points to moving points (LPS, mm). `fixed_mask` marks the structure that matters
    (the prostate) on the fixed grid, `moving_mask` the same structure on the moving grid: methods that can use it do.
    `prior` is what is known of the rotation beforehand, which the networks and the method `surface` use where the
    initial transform agrees with it; None where nothing is to be assumed, as for another organ or probe.
    `orientation` says where the axes of the scans point (`find_orientation`), and its reasons become the result's;
    `initial` holds the moving image's already (`Orientation.rotated`).
    A mask on another grid of its image's space is resampled onto the image's, with an InputWarning.
    Raises TypeError for what is no image, ImageError for an empty mask and one that cannot be brought to the image,
    TransformError for an `initial` that is not one finite transform, OverlapError where it brings nothing of the fixed
    structure into the moving image, and what the method raises.
    """
    images = as_image(fixed, "fixed"), as_image(moving, "moving")
    masks = _fitted_mask(images[0], fixed_mask, "fixed mask"), _fitted_mask(images[1], moving_mask, "moving mask")
    known = (None, None) if orientation is None else (orientation.fixed_to_patient, orientation.probability)
    return _solved(Problem(*images, _checked(initial), *masks, prior, *known), method, orientation)


def _solved(problem: Problem, method: Method, orientation: Orientation | None) -> RegistrationResult:
    overlap = Overlap.of(problem)
    warnings = (*input_warnings(problem), *_initial_warnings(overlap))
    began = time.perf_counter()
    solution = method.solve(problem)
    seconds = time.perf_counter() - began
    found = _checked(solution.steps[-1].fixed_to_moving) if solution.steps else problem.initial
    doubts = _doubts(method, orientation, overlap, found)
    return RegistrationResult(
        fixed_to_moving=found,
        initial=problem.initial,
        center_mm=problem.center_mm,
        method=method.name,
        steps=tuple(replace(step, fixed_to_moving=_on_cpu(step.fixed_to_moving)) for step in solution.steps),
        seconds=seconds,
        warnings=tuple(dict.fromkeys((*warnings, *solution.warnings))),
        settings=dict(method.settings())
        | _masks_used(method, problem.fixed_mask, problem.moving_mask)
        | _assumed(orientation, solution.notes),
        expectation=solution.expectation.untrusted(*doubts) if doubts else solution.expectation,
        orientation=orientation,
        notes=solution.notes,
    )


def _doubts(method: Method, orientation: Orientation | None, overlap: Overlap, found: Rigid) -> tuple[str, ...]:
    """Return what speaks against the result besides what the method says."""
    doubts = () if orientation is None else orientation.reasons_beside(method.weighs_orientation)
    if (fraction := overlap.fraction(found)) >= LOW_OVERLAP:
        return doubts
    text = f"it brings only {fraction:.0%} of the fixed structure into the moving image"
    return (*doubts, f"{text}; begin closer (--initial), or give scans that show the same part of the body")


def _masks_used(method: Method, fixed_mask: LabelMap | None, moving_mask: LabelMap | None) -> dict[str, str]:
    """Say which masks decided the outcome, where there was a moving one."""
    if moving_mask is None:
        return {}
    if method.uses_moving_mask and fixed_mask is not None:
        return {"masks used": "fixed and moving"}
    return {"masks used": "none" if fixed_mask is None else "fixed; this method does not use the moving mask"}


def _assumed(orientation: Orientation | None, notes: tuple[str, ...]) -> dict[str, str]:
    """Name beside a method's settings what else decided the outcome."""
    found = {} if orientation is None else {"orientation": orientation.text()}
    return found | ({"assumed": "; ".join(notes)} if notes else {})


def _on_cpu(transform: Rigid) -> Rigid:
    return Rigid(transform.rotation.detach(), transform.translation_mm.detach()).to("cpu", torch.float64)


def _checked(transform: Rigid) -> Rigid:
    transform = _on_cpu(transform)
    matrix = transform.matrix()
    if matrix.shape != (4, 4):
        raise TransformError(f"got a batch {tuple(matrix.shape[:-2])} of transforms, expected one")
    if not bool(matrix.isfinite().all()):
        raise TransformError("the transform holds NaN or infinite values: check `initial` and the method's weights")
    return transform


def _fitted_mask(image: Image, given: MaskLike | None, name: str) -> LabelMap | None:
    """Check a mask, and bring it to its image's grid where it is on another one of the same space."""
    if given is None:
        return None
    mask = as_mask(given, name)
    if not bool((mask.labels != 0).any()):
        raise ImageError(f"{mask.name}: the mask is empty: give one whose structure has values other than 0")
    one_structure(mask, advice="choose it with crossalign.images.one_structure(mask, label)")
    return on_grid_of(mask, image)


def _initial_warnings(overlap: Overlap) -> tuple[str, ...]:
    problem = overlap.problem
    fraction = overlap.fraction(problem.initial)
    if fraction == 0:
        structure = problem.fixed.name if problem.fixed_mask is None else problem.fixed_mask.name
        raise OverlapError(
            f"the initial transform brings no point of {structure} into {problem.moving.name}: check that it maps "
            "fixed points to moving points in LPS mm (not the other way round), or begin with 'center' or "
            "'mask-center'"
        )
    if fraction < LOW_OVERLAP:
        return (
            f"the initial transform brings only {fraction:.0%} of the fixed structure into the moving image: check it",
        )
    return ()
