"""Alignment of a PET to an MRI, or of an MRI to a template, rigid and affine, without a given initialisation."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace

import SimpleITK as sitk
import torch
from torch import Tensor

from crossalign.errors import InputError, TransformError
from crossalign.fusion.metrics.information import mutual_information_score
from crossalign.geometry import Grid, Rigid, grid_overlap, inside_fraction, mean_displacement_mm
from crossalign.images import Image, LabelMap, check_transform_output, scale_intensity
from crossalign.images.files.images import to_sitk
from crossalign.images.files.writing import write_affine_text
from crossalign.output import whole_file
from crossalign.registration import MutualInformation, RegistrationResult, center_initialisation, register
from crossalign.registration.overlap import fixed_points_mm
from crossalign.registration.problem import Problem
from crossalign.types import Points

LARGEST_STRETCH = 1.5  # no two adult heads differ by more, or by less than its inverse: the optimiser has failed
BINS, SAMPLES, SEED = 32, 60_000, 1
# Smoothing blurs both images by the same mm, though one of them is stretched: at the last level it would make every
# stretch come out too small (1.139 for 1.15 at 2 mm).
SHRINK, SMOOTHING_MM = (2, 1), (4.0, 0.0)
ITERATIONS, RELAXATION = 200, 0.8  # with 100 and a half it did not reach the optimum


@dataclass(frozen=True, eq=False)
class AffineTransform:
    """An affine transform p -> matrix p + shift of points in mm (LPS), float64, named by its direction."""

    matrix: Tensor
    shift_mm: Tensor

    @staticmethod
    def of(rigid: Rigid) -> AffineTransform:
        """Convert a rigid transform."""
        return AffineTransform(rigid.rotation.double(), rigid.translation_mm.double())

    def apply(self, points_mm: Points) -> Points:
        """Map points (n, 3), mm."""
        return points_mm.double() @ self.matrix.T + self.shift_mm

    def after(self, first: AffineTransform) -> AffineTransform:
        """Compose: `first` is applied first, then this one."""
        return AffineTransform(self.matrix @ first.matrix, self.matrix @ first.shift_mm + self.shift_mm)

    def stretches(self) -> tuple[float, ...]:
        """Return the three factors by which it stretches, largest first."""
        return tuple(float(value) for value in torch.linalg.svdvals(self.matrix))


def refine_affine(
    fixed: Image, moving: Image, fixed_to_moving: Rigid, fixed_mask: LabelMap | None = None
) -> AffineTransform:
    """Maximise Mattes mutual information over twelve parameters, from a rigid transform: fixed to moving points.

    One thread and a fixed seed: the same images give the same answer. Raises TransformError where the images do not
    overlap, and where the answer stretches by more than 1.5 or shrinks by as much.
    """
    # The rigid transform is applied to the moving image's header: composed with the affine one, a distant origin would
    # make ITK's scales of the matrix grow with the distance.
    grids = (fixed.grid, _in_fixed_world(moving.grid, fixed_to_moving))
    images = [
        to_sitk(scale_intensity(image).voxels.numpy(), grid) for image, grid in zip((fixed, moving), grids, strict=True)
    ]
    affine = sitk.AffineTransform(3)
    affine.SetCenter(fixed.grid.center_mm().tolist())
    registration = _registration(fixed, fixed_mask)
    registration.SetInitialTransform(affine, inPlace=True)
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # filters within ignore the registration's own setting
    try:
        registration.Execute(*images)
    except RuntimeError as error:
        raise TransformError(f"{moving.name}: no affine transform to {fixed.name} was found: {error}") from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    found = AffineTransform.of(fixed_to_moving).after(_linear(affine))
    largest, *_, smallest = found.stretches()
    if largest > LARGEST_STRETCH or smallest < 1 / LARGEST_STRETCH:
        raise TransformError(
            f"{moving.name}: the affine transform to {fixed.name} stretches by {smallest:.2f} to {largest:.2f}, "
            f"expected {1 / LARGEST_STRETCH:.2f} to {LARGEST_STRETCH:.2f}: leave --affine out, or look at the images"
        )
    return found


def resampled_affine(image: Image, grid: Grid, grid_to_image: AffineTransform) -> Image:
    """Resample an image onto a grid (trilinear) through a transform of grid to image points; beyond: its minimum."""
    voxels, direction = image.voxels.numpy(), [value for row in grid.direction for value in row]
    geometry = grid.origin_mm, grid.spacing_mm, direction
    source, transform = to_sitk(voxels, image.grid), _itk(grid_to_image)
    moved = sitk.Resample(source, grid.shape[::-1], transform, sitk.sitkLinear, *geometry, float(voxels.min()))
    return Image(torch.from_numpy(sitk.GetArrayFromImage(moved)), grid, image.name)


def write_affine(affine: AffineTransform, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write it as an ITK `AffineTransform` text file (.tfm or .txt). Raises OutputError."""
    check_transform_output(path, overwrite)
    if not bool(affine.matrix.isfinite().all() & affine.shift_mm.isfinite().all()):
        raise InputError("expected a finite transform")
    with whole_file(path, overwrite) as partial:
        write_affine_text(_itk(affine), partial)


def _in_fixed_world(grid: Grid, fixed_to_moving: Rigid) -> Grid:
    """Return a moving image's grid in the fixed image's world."""
    back = fixed_to_moving.to("cpu", torch.float64).inverse()
    a, b, c = (back.rotation @ torch.tensor(grid.direction, dtype=torch.float64)).tolist()
    x, y, z = back.apply(torch.tensor([grid.origin_mm], dtype=torch.float64))[0].tolist()
    return Grid(grid.shape, grid.spacing_mm, (x, y, z), (tuple(a), tuple(b), tuple(c)))


def _registration(fixed: Image, fixed_mask: LabelMap | None) -> sitk.ImageRegistrationMethod:
    registration = sitk.ImageRegistrationMethod()
    registration.SetNumberOfThreads(1)
    registration.SetMetricAsMattesMutualInformation(BINS)
    registration.SetMetricSamplingStrategy(registration.RANDOM)
    if fixed_mask is not None:
        registration.SetMetricFixedMask(to_sitk(fixed_mask.labels.numpy().astype("uint8"), fixed_mask.grid))
    sizes = [max(1.0, fixed.voxels.numel() / factor**3) for factor in SHRINK]
    registration.SetMetricSamplingPercentagePerLevel([min(1.0, SAMPLES / size) for size in sizes], SEED)
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=0.01, numberOfIterations=ITERATIONS, relaxationFactor=RELAXATION
    )
    registration.SetOptimizerScalesFromPhysicalShift()
    registration.SetShrinkFactorsPerLevel(SHRINK)
    registration.SetSmoothingSigmasPerLevel(SMOOTHING_MM)
    registration.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return registration


def _itk(affine: AffineTransform) -> sitk.AffineTransform:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(affine.matrix.flatten().tolist())
    transform.SetTranslation(affine.shift_mm.tolist())
    return transform


def _linear(transform: sitk.AffineTransform) -> AffineTransform:
    matrix = torch.tensor(transform.GetMatrix(), dtype=torch.float64).reshape(3, 3)
    center, shift = (
        torch.tensor(values, dtype=torch.float64) for values in (transform.GetCenter(), transform.GetTranslation())
    )
    return AffineTransform(matrix, center - matrix @ center + shift)


SCORE_STEPS = 45  # points of the score along the structure's extent: 4 mm in a head
SCORE_POINTS = 2_000_000
USABLE_HEADER = 0.25
# Fractions of the structure's extent: 1 mm and 9 mm in a head.
SAME_INITIAL, SAME_ANSWER = 0.005, 0.05
COMPARABLE = 0.8  # an answer with a smaller fraction of the best one's mutual information is ignored


def align(fixed: Image, moving: Image, fixed_mask: LabelMap | None = None) -> RegistrationResult:
    """Register rigidly with mutual information, without a given initialisation: fixed points to moving points.

    Two initialisations are tried: the centres of both grids on one another, and the headers as they are where these put
    a quarter of either grid, or of the fixed structure, into the other. The answer with more mutual information over
    the fixed grid is returned. Where both have about as much and differ, the result is not trusted. Raises what
    `register` raises.
    """
    problem = Problem(fixed, moving, Rigid.identity(), fixed_mask)
    extent = problem.extent_mm
    initials = [center_initialisation(fixed, moving)]
    apart_mm = float(mean_displacement_mm(initials[0], Rigid.identity(), problem.structure_mm))
    if apart_mm > SAME_INITIAL * extent and _header_is_usable(problem):
        initials.append(Rigid.identity())
    results = [register(fixed, moving, MutualInformation(), initial, fixed_mask) for initial in initials]
    scores = [grid_mutual_information_bits(fixed, moving, one.fixed_to_moving, extent) for one in results]
    best, *others = sorted(range(len(results)), key=lambda index: -scores[index])
    comparable = [results[index] for index in others if scores[index] >= COMPARABLE * scores[best]]
    return _compared(results[best], comparable, problem)


def grid_mutual_information_bits(fixed: Image, moving: Image, fixed_to_moving: Rigid, extent_mm: float) -> float:
    """Mutual information of both on a coarse grid along the fixed image's axes, bits; `extent_mm` of the structure."""
    grid = _score_grid(fixed.grid, extent_mm)
    return mutual_information_score(
        scale_intensity(fixed).resampled(grid, fill=0.0).voxels,
        scale_intensity(moving).resampled(grid, fixed_to_moving, fill=0.0).voxels,
    )


def _score_grid(grid: Grid, extent_mm: float) -> Grid:
    """Cover a grid along its own axes, about as finely as shows the structure, wherever it lies in the world."""
    sides = [size * step for size, step in zip(grid.shape[::-1], grid.spacing_mm, strict=True)]
    spacing = max(extent_mm / SCORE_STEPS, (math.prod(sides) / SCORE_POINTS) ** (1 / 3))
    width, height, depth = (max(2, math.ceil(side / spacing)) for side in sides)
    x, y, z = (side / count for side, count in zip(sides, (width, height, depth), strict=True))
    first = [(new / old - 1) / 2 for new, old in zip((x, y, z), grid.spacing_mm, strict=True)]
    left, back, low = grid.to_physical(torch.tensor([first], dtype=torch.float64))[0].tolist()
    return Grid((depth, height, width), (x, y, z), (left, back, low), grid.direction)


def _header_is_usable(problem: Problem) -> bool:
    if inside_fraction(fixed_points_mm(problem), problem.moving.grid) >= USABLE_HEADER:
        return True
    return problem.fixed_mask is None and grid_overlap(problem.fixed.grid, problem.moving.grid) >= USABLE_HEADER


def _compared(result: RegistrationResult, others: list[RegistrationResult], problem: Problem) -> RegistrationResult:
    """Add a reason not to trust a result where another initialisation led to a different answer that is as good."""
    points = problem.structure_mm
    apart = [float(mean_displacement_mm(result.fixed_to_moving, one.fixed_to_moving, points)) for one in others]
    if max(apart, default=0.0) <= SAME_ANSWER * problem.extent_mm:
        return result
    reason = (
        f"the answers from the centres of the grids and from the headers are {max(apart):.3g} mm apart: look at the "
        "overlay, and where it is wrong register with crossalign register --initial INITIAL.tfm --moved, then fuse that"
    )
    return replace(result, expectation=result.expectation.untrusted(reason))
