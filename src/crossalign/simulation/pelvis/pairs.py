"""Pairs of a pelvis: MR as the fixed and ultrasound as the moving image."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from crossalign.geometry import Grid
from crossalign.simulation.deformation import Deformation, draw_deformation
from crossalign.simulation.ellipsoids import EllipsoidModel, memberships
from crossalign.simulation.pairs import Poses, SimulatedPairs, checked_grid, control_points, draw_poses, simulate
from crossalign.simulation.pelvis.anatomy import draw_anatomy, gland_membership
from crossalign.simulation.pelvis.mr import MRScan, draw_mr, render_mr
from crossalign.simulation.pelvis.probe import Sector, draw_sector
from crossalign.simulation.pelvis.ultrasound import (
    UltrasoundScan,
    beam_shape,
    draw_ultrasound,
    render_beams,
    scan_convert,
)
from crossalign.simulation.random_fields import from_control_points, unit_control_points
from crossalign.simulation.settings import SimulationSettings
from crossalign.types import Shape

DEFAULTS = SimulationSettings()


def simulate_pairs(
    count: int,
    generator: torch.Generator,
    settings: SimulationSettings = DEFAULTS,
    shape: Shape = (64, 64, 64),
    spacing_mm: float = 1.75,
    device: torch.device | str = "cpu",
) -> SimulatedPairs:
    """Draw pairs of MR and ultrasound, both on a grid of this shape (z, y, x) and spacing centred at the origin.

    The structure is the prostate; ultrasound is exactly 0 outside its sector. All randomness comes from the CPU
    `generator`: the same seed, count, grid and device give the same pairs. Glands that would not fit are shrunk, shifts
    likewise. Raises InputError for a grid under 64 mm or another generator.
    """
    grid = checked_grid("simulate_pairs", count, generator, shape, spacing_mm)
    draw = partial(_draw, settings=settings)
    return simulate(count, generator, grid, device, draw, (_render_mr, partial(_render_ultrasound, settings=settings)))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Everything that was drawn for a chunk of pairs: what rendering needs, and nothing random but the noise."""

    anatomy: EllipsoidModel
    deformation: Deformation
    poses: Poses
    mr: MRScan
    ultrasound: UltrasoundScan
    sector: Sector
    surface_mm: Tensor
    moving_surface_mm: Tensor


def _draw(count: int, half_mm: Tensor, generator: torch.Generator, settings: SimulationSettings) -> _Drawn:
    anatomy = draw_anatomy(count, 0.72 * float(half_mm.min()), settings.anatomy, generator)
    deformation = draw_deformation(anatomy.half_axes_mm, settings.deformation, generator)
    surface = anatomy.surface_mm()
    deformed = deformation.invert(surface)
    poses = draw_poses(surface, deformed, half_mm, settings.pose, generator)
    mr = draw_mr(anatomy, poses.patient_to_fixed.translation_mm, settings.mr, generator)
    on_moving = poses.patient_to_moving.apply(deformed)
    sector = draw_sector(on_moving, poses, settings.ultrasound, generator)
    ultrasound = draw_ultrasound(anatomy, sector, poses.header_rotation.rotation, settings.ultrasound, generator)
    return _Drawn(anatomy, deformation, poses, mr, ultrasound, sector, poses.patient_to_fixed.apply(surface), on_moving)


def _render_mr(drawn: _Drawn, grid: Grid, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    points = drawn.poses.patient_to_fixed.inverse().apply(control_points(grid, drawn.surface_mm))
    membership, gland = _memberships(drawn.anatomy, points, grid.shape)
    label = (gland > 0.5).view(-1, 1, *grid.shape)
    return render_mr(membership, grid.shape, grid.spacing_mm[0], drawn.mr, noise), label


def _render_ultrasound(
    drawn: _Drawn, grid: Grid, noise: torch.Generator, settings: SimulationSettings
) -> tuple[Tensor, Tensor]:
    anatomy, sector, scan = drawn.anatomy, drawn.sector, drawn.ultrasound
    device, beams = anatomy.coefficients.device, beam_shape(grid.shape)
    points = _to_fixed_patient(sector.beam_to_moving(unit_control_points().to(device)), drawn)
    membership, _ = _memberships(anatomy, points, beams)
    echoes = render_beams(membership, beams, sector, scan, noise)
    grid_mm = grid.points_mm().to(device, torch.float32).expand(len(echoes), *grid.shape, 3)
    image = scan_convert(echoes, grid_mm, grid.spacing_mm[0], sector, scan, settings.ultrasound)
    points = anatomy.shape.apply(_to_fixed_patient(control_points(grid, anatomy.coefficients), drawn))
    gland = gland_membership(anatomy.shape, from_control_points(points.mT, grid.shape).flatten(2))
    return image, (gland > 0.5).view(-1, 1, *grid.shape)


def _memberships(anatomy: EllipsoidModel, control_mm: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Return all memberships before clamping (b, k, n), and the gland's (b, n), from control points in the patient."""
    points = from_control_points(anatomy.shape.apply(control_mm).mT, shape).flatten(2)
    membership, gland = memberships(anatomy.coefficients, points), len(anatomy.outer_names)
    membership[:, gland] = gland_membership(anatomy.shape, points)
    return membership, membership[:, gland]


def _to_fixed_patient(points_mm: Tensor, drawn: _Drawn) -> Tensor:
    """Map points (b, n, 3) of the moving scan to the fixed scan's patient."""
    return drawn.deformation.apply(drawn.poses.patient_to_moving.inverse().apply(points_mm))
