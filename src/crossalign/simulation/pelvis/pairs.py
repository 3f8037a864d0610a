"""A pair: one pelvis, two scans of it, and the rigid answer."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Grid, Rigid
from crossalign.geometry.fit import fit_rigid
from crossalign.simulation.deformation import Deformation, draw_deformation
from crossalign.simulation.ellipsoids import memberships
from crossalign.simulation.fields import from_nodes, node_positions, noise_generator
from crossalign.simulation.pelvis.anatomy import Anatomy, draw_anatomy, gland_level, gland_surface
from crossalign.simulation.pelvis.mr import MRScan, draw_mr, render_mr
from crossalign.simulation.pelvis.probe import Poses, Sector, draw_poses, draw_sector
from crossalign.simulation.pelvis.ultrasound import (
    UltrasoundScan,
    beam_shape,
    draw_ultrasound,
    render_beams,
    scan_convert,
)
from crossalign.simulation.settings import SimulationSettings
from crossalign.simulation.tissues import to_device
from crossalign.types import Distances, Points, Shape, Volume

CHUNK_GPU = 32
# On a CPU larger chunks fall out of the cache and smaller ones spend their time on the draws (measured, 32^3 to 64^3).
CHUNK_CPU_VOXELS, CHUNK_CPU_LEAST, CHUNK_CPU_MOST = 2**18, 2, 8
SMALLEST_MM = 64.0
DEFAULTS = SimulationSettings()


@dataclass(frozen=True, eq=False)
class SimulatedPairs:
    """Pairs (b): `fixed` is MR-like, `moving` ultrasound-like with exact 0 outside its sector; both in [0, 1], float32.

    `fixed_to_moving` is the least-squares rigid over `surface_mm` (256 points of the fixed gland's surface) under the
    true map, which deforms; `residual_mm` is the mean distance that it leaves there.
    The glands are bool, (b, 1, z, y, x). The grids are LPS, one for all fixed and one for all moving volumes.
    """

    fixed: Volume
    moving: Volume
    fixed_gland: Tensor
    moving_gland: Tensor
    fixed_grid: Grid
    moving_grid: Grid
    fixed_to_moving: Rigid
    surface_mm: Points
    residual_mm: Distances


def simulate_pairs(
    count: int,
    generator: torch.Generator,
    settings: SimulationSettings = DEFAULTS,
    shape: Shape = (64, 64, 64),
    spacing_mm: float = 1.75,
    device: torch.device | str = "cpu",
) -> SimulatedPairs:
    """Draw pairs, both on a lattice of this shape (z, y, x) and spacing centred at the origin.

    All randomness comes from the CPU `generator`: the same seed, count, lattice and device give the same pairs. Glands
    that would not fit are shrunk, shifts likewise. Raises InputError for a lattice under 64 mm or another generator.
    """
    grid = checked_grid("simulate_pairs", count, generator, shape, spacing_mm)
    device = torch.device(device)
    size = chunk_size(grid, device)
    sizes = [min(size, count - first) for first in range(0, count, size)]
    with torch.no_grad():
        return join_pairs([_simulate_chunk(size, generator, settings, grid, device) for size in sizes])


def checked_grid(name: str, count: int, generator: torch.Generator, shape: Shape, spacing_mm: float) -> Grid:
    """Make the lattice that both scans lie on; raises InputError, in the caller's `name`, for a bad request."""
    extent_mm = min(shape) * spacing_mm
    if count < 1 or extent_mm < SMALLEST_MM:
        raise InputError(
            f"{name} needs a count of 1 or more and a lattice of {SMALLEST_MM:g} mm or more along each axis, "
            f"got {count} and {extent_mm:g} mm: raise the shape or the spacing"
        )
    if generator.device.type != "cpu":
        raise InputError(f"{name} needs a CPU generator, got one on {generator.device}: use torch.Generator()")
    return Grid.centered((0.0, 0.0, 0.0), shape, (spacing_mm, spacing_mm, spacing_mm))


def chunk_size(grid: Grid, device: torch.device) -> int:
    """Choose how many pairs are made at once."""
    if device.type != "cpu":
        return CHUNK_GPU
    return min(CHUNK_CPU_MOST, max(CHUNK_CPU_LEAST, CHUNK_CPU_VOXELS // math.prod(grid.shape)))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Everything that was drawn for a chunk of pairs: what rendering needs, and nothing random but the noise."""

    anatomy: Anatomy
    deformation: Deformation
    poses: Poses
    mr: MRScan
    ultrasound: UltrasoundScan
    sector: Sector
    surface_mm: Tensor
    on_moving_mm: Tensor


def _draw(count: int, half_mm: Tensor, settings: SimulationSettings, generator: torch.Generator) -> _Drawn:
    anatomy = draw_anatomy(count, 0.72 * float(half_mm.min()), settings.anatomy, generator)
    deformation = draw_deformation(anatomy.half_axes_mm, settings.deformation, generator)
    surface = gland_surface(anatomy)
    deformed = deformation.invert(surface)
    reach = torch.maximum(surface.norm(dim=-1).amax(-1), deformed.norm(dim=-1).amax(-1))
    poses = draw_poses(reach, half_mm, settings.pose, generator)
    mr = draw_mr(anatomy, poses.patient_to_fixed.translation_mm, settings.mr, generator)
    on_moving = poses.patient_to_moving.apply(deformed)
    sector = draw_sector(on_moving, poses, settings.ultrasound, generator)
    ultrasound = draw_ultrasound(anatomy, sector, poses.turn, settings.ultrasound, generator)
    on_fixed = poses.patient_to_fixed.apply(surface)
    return _Drawn(anatomy, deformation, poses, mr, ultrasound, sector, on_fixed, on_moving)


def _simulate_chunk(
    count: int, generator: torch.Generator, settings: SimulationSettings, grid: Grid, device: torch.device
) -> SimulatedPairs:
    drawn = _draw(count, torch.tensor(grid.extent_mm()) / 2, settings, generator)
    noise = noise_generator(generator, device)
    fixed_to_moving = fit_rigid(drawn.surface_mm.double(), drawn.on_moving_mm.double(), prior_mm2=0.0)
    fixed_to_moving = fixed_to_moving.to("cpu", torch.float32)
    residual_mm = (fixed_to_moving.apply(drawn.surface_mm) - drawn.on_moving_mm).norm(dim=-1).mean(-1)
    drawn = to_device(drawn, device)
    fixed, fixed_gland = _see_fixed(drawn, grid, noise)
    moving, moving_gland = _see_moving(drawn, grid, settings, noise)
    return SimulatedPairs(
        fixed=fixed,
        moving=moving,
        fixed_gland=fixed_gland,
        moving_gland=moving_gland,
        fixed_grid=grid,
        moving_grid=grid,
        fixed_to_moving=fixed_to_moving.to(device, torch.float32),
        surface_mm=drawn.surface_mm,
        residual_mm=residual_mm.to(device),
    )


def lattice_nodes(grid: Grid, like: Tensor) -> Tensor:
    """Return the Chebyshev nodes over a grid's voxel centres, (b, nodes^3, 3), mm, for the batch of `like`."""
    half_mm = (grid.corners_mm()[-1] - grid.center_mm()).float()
    return (node_positions() * half_mm + grid.center_mm().float()).to(like.device).expand(len(like), -1, -1)


def _see_fixed(drawn: _Drawn, grid: Grid, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    anatomy, gland = drawn.anatomy, len(drawn.anatomy.outer_names)
    nodes = drawn.poses.patient_to_fixed.inverse().apply(lattice_nodes(grid, drawn.surface_mm))
    points = from_nodes(anatomy.shape.apply(nodes).mT, grid.shape)
    levels = memberships(anatomy.coefficients, points.flatten(2))
    levels[:, gland] = gland_level(anatomy.shape, points.flatten(2))
    label = (levels[:, gland] > 0.5).view(-1, 1, *grid.shape)
    return render_mr(levels, grid.shape, grid.spacing_mm[0], drawn.mr, noise), label


def _see_moving(
    drawn: _Drawn, grid: Grid, settings: SimulationSettings, noise: torch.Generator
) -> tuple[Tensor, Tensor]:
    rows, gland = drawn.anatomy.coefficients, len(drawn.anatomy.outer_names)
    beams = beam_shape(grid.shape)
    nodes = _to_anatomy(drawn.sector.beam_to_moving(node_positions().to(rows.device)), drawn)
    points = from_nodes(nodes.mT, beams).flatten(2)
    levels = memberships(rows, points)
    levels[:, gland] = gland_level(drawn.anatomy.shape, points)
    echoes = render_beams(levels, beams, drawn.sector, drawn.ultrasound, noise)
    lattice_mm = grid.points_mm().to(rows.device, torch.float32).expand(len(rows), *grid.shape, 3)
    spacing_mm = grid.spacing_mm[0]
    image = scan_convert(echoes, lattice_mm, spacing_mm, drawn.sector, drawn.ultrasound, settings.ultrasound)
    points = from_nodes(_to_anatomy(lattice_nodes(grid, rows), drawn).mT, grid.shape)
    label = gland_level(drawn.anatomy.shape, points.flatten(2)) > 0.5
    return image, label.view(-1, 1, *grid.shape)


def _to_anatomy(points_mm: Tensor, drawn: _Drawn) -> Tensor:
    """Map points (b, n, 3) of the moving frame to the frame of the ellipsoids."""
    patient = drawn.poses.patient_to_moving.inverse().apply(points_mm)
    return drawn.anatomy.shape.apply(drawn.deformation.apply(patient))


def join_pairs(parts: list[SimulatedPairs]) -> SimulatedPairs:
    """Put batches on one lattice together."""

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    return SimulatedPairs(
        fixed=joined("fixed"),
        moving=joined("moving"),
        fixed_gland=joined("fixed_gland"),
        moving_gland=joined("moving_gland"),
        fixed_grid=parts[0].fixed_grid,
        moving_grid=parts[0].moving_grid,
        fixed_to_moving=Rigid.cat([part.fixed_to_moving for part in parts]),
        surface_mm=joined("surface_mm"),
        residual_mm=joined("residual_mm"),
    )
