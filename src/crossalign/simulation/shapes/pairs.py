"""Any two modalities: pairs of unrelated views of random smooth shapes, so that a network learns shape, not organs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.geometry import Grid
from crossalign.geometry.fit import fit_rigid
from crossalign.simulation.deformation import Deformation, Waves, draw_deformation, draw_waves
from crossalign.simulation.ellipsoids import memberships
from crossalign.simulation.fields import chance, from_nodes, noise_generator
from crossalign.simulation.pelvis.anatomy import Anatomy, gland_surface
from crossalign.simulation.pelvis.pairs import SimulatedPairs, checked_grid, chunk_size, join_pairs, lattice_nodes
from crossalign.simulation.pelvis.probe import Poses, draw_poses
from crossalign.simulation.shapes.scene import ShapeSettings, draw_orientations, draw_scene
from crossalign.simulation.shapes.view import View, draw_properties, draw_view, render_view
from crossalign.simulation.tissues import Tissues, to_device
from crossalign.types import Shape

DEFAULTS = ShapeSettings()


def simulate_shapes(
    count: int,
    generator: torch.Generator,
    settings: ShapeSettings = DEFAULTS,
    shape: Shape = (64, 64, 64),
    spacing_mm: float = 1.75,
    device: torch.device | str = "cpu",
) -> SimulatedPairs:
    """Draw pairs of random shapes: as `simulate_pairs`, with the main body for the gland and any two modalities.

    `fixed` and `moving` are drawn alike; either may be 0 outside a field of view. The same seed, count, lattice and
    device give the same pairs. Raises InputError for a lattice under 64 mm or a generator that is not on the CPU.
    """
    grid = checked_grid("simulate_shapes", count, generator, shape, spacing_mm)
    device = torch.device(device)
    size = chunk_size(grid, device)
    sizes = [min(size, count - first) for first in range(0, count, size)]
    with torch.no_grad():
        return join_pairs([_simulate_chunk(size, generator, settings, grid, device) for size in sizes])


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Everything that was drawn for a chunk of pairs but the noise; `orientation` (b, 3, 3) is scene to patient."""

    scene: Anatomy
    waves: Waves
    deformation: Deformation
    orientation: Tensor
    poses: Poses
    fixed: View
    moving: View
    surface_mm: Tensor
    on_moving_mm: Tensor


def _draw(count: int, half_mm: Tensor, settings: ShapeSettings, generator: torch.Generator) -> _Drawn:
    scene = draw_scene(count, 0.72 * float(half_mm.min()), settings, generator)
    # Shorter waves than a network's voxels would be noise to it.
    waves = draw_waves(count, settings.texture, (10.0, 45.0), generator)
    deformation = draw_deformation(scene.half_axes_mm, settings.deformation, generator)
    orientation = draw_orientations(count, settings.turn_deg, generator)
    surface = gland_surface(scene)
    deformed = deformation.invert(surface)
    reach = torch.maximum(surface.norm(dim=-1).amax(-1), deformed.norm(dim=-1).amax(-1))
    poses = draw_poses(reach, half_mm, settings.pose, generator)
    related = chance(settings.related_share, (count,), generator)
    first, second = draw_properties(scene, generator), draw_properties(scene, generator)
    second = _either(related, first, second)
    to_fixed, to_moving = poses.patient_to_fixed, poses.patient_to_moving
    return _Drawn(
        scene=scene,
        waves=waves,
        deformation=deformation,
        orientation=orientation,
        poses=poses,
        fixed=draw_view(scene, first, to_fixed.translation_mm, reach, settings, generator),
        moving=draw_view(scene, second, to_moving.translation_mm, reach, settings, generator),
        surface_mm=to_fixed.apply(surface @ orientation.mT),
        on_moving_mm=to_moving.apply(deformed @ orientation.mT),
    )


def _either(first: Tensor, one: Tissues, other: Tissues) -> Tissues:
    """Take `one` where `first` (b,), else `other`."""
    picked = (first[:, None], first)
    return Tissues(
        background=torch.where(picked[1], one.background, other.background),
        outer=torch.where(picked[0], one.outer, other.outer),
        gland=torch.where(picked[1], one.gland, other.gland),
        capsule=one.capsule,
        inner=torch.where(picked[0], one.inner, other.inner),
    )


def _simulate_chunk(
    count: int, generator: torch.Generator, settings: ShapeSettings, grid: Grid, device: torch.device
) -> SimulatedPairs:
    drawn = _draw(count, torch.tensor(grid.extent_mm()) / 2, settings, generator)
    noise = noise_generator(generator, device)
    fixed_to_moving = fit_rigid(drawn.surface_mm.double(), drawn.on_moving_mm.double(), prior_mm2=0.0)
    fixed_to_moving = fixed_to_moving.to("cpu", torch.float32)
    residual_mm = (fixed_to_moving.apply(drawn.surface_mm) - drawn.on_moving_mm).norm(dim=-1).mean(-1)
    drawn = to_device(drawn, device)
    nodes = lattice_nodes(grid, drawn.surface_mm)
    in_fixed = drawn.poses.patient_to_fixed.inverse().apply(nodes) @ drawn.orientation
    in_moving = drawn.poses.patient_to_moving.inverse().apply(nodes) @ drawn.orientation
    fixed, fixed_gland = _see(in_fixed, drawn, drawn.fixed, grid, noise)
    moving, moving_gland = _see(drawn.deformation.apply(in_moving), drawn, drawn.moving, grid, noise)
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


def _see(nodes_mm: Tensor, drawn: _Drawn, view: View, grid: Grid, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Render one view, given where the lattice's nodes (b, nodes^3, 3) lie in the scene; and the main body."""
    scene, main = drawn.scene, len(drawn.scene.outer_names)
    points = from_nodes(scene.shape.apply(nodes_mm).mT, grid.shape).flatten(2)
    levels = memberships(scene.coefficients, points)
    label = (levels[:, main] > 0.5).view(-1, 1, *grid.shape)
    lattice = grid.points_mm().to(nodes_mm.device, torch.float32)
    texture = drawn.waves.at(points.mT)[..., 0]
    return render_view(levels, texture, lattice, grid.spacing_mm[0], view, noise), label
