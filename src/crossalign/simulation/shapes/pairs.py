"""Any two modalities: pairs of unrelated images of random smooth shapes, so that a network learns shape, not organs."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from crossalign.geometry import Grid
from crossalign.simulation.deformation import Deformation, PlaneWaves, draw_deformation, draw_plane_waves
from crossalign.simulation.ellipsoids import EllipsoidModel, memberships
from crossalign.simulation.pairs import Poses, SimulatedPairs, checked_grid, control_points, draw_poses, simulate
from crossalign.simulation.random_fields import bernoulli, from_control_points
from crossalign.simulation.settings import ShapeSettings
from crossalign.simulation.shapes.modality import Modality, draw_modality, draw_properties, render_modality
from crossalign.simulation.shapes.scene import draw_orientations, draw_scene
from crossalign.simulation.tissues import Tissues
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
    """Draw pairs of random shapes: as `simulate_pairs`, with a main shape for the structure and any two modalities.

    `fixed` and `moving` are drawn alike; either may be 0 outside a field of view. The same seed, count, grid and device
    give the same pairs. Raises InputError for a grid under 64 mm or a generator that is not on the CPU.
    """
    grid = checked_grid("simulate_shapes", count, generator, shape, spacing_mm)
    return simulate(count, generator, grid, device, partial(_draw, settings=settings), (_render_fixed, _render_moving))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Everything that was drawn for a chunk of pairs but the noise; `orientation` (b, 3, 3) is scene to patient."""

    scene: EllipsoidModel
    waves: PlaneWaves
    deformation: Deformation
    orientation: Tensor
    poses: Poses
    fixed: Modality
    moving: Modality
    surface_mm: Tensor
    moving_surface_mm: Tensor


def _draw(count: int, half_mm: Tensor, generator: torch.Generator, settings: ShapeSettings) -> _Drawn:
    scene = draw_scene(count, 0.72 * float(half_mm.min()), settings, generator)
    # Shorter waves than a network's voxels would be noise to it.
    waves = draw_plane_waves(count, settings.texture, (10.0, 45.0), generator)
    deformation = draw_deformation(scene.half_axes_mm, settings.deformation, generator)
    orientation = draw_orientations(count, settings.rotation_deg, generator)
    surface = scene.surface_mm()
    deformed = deformation.invert(surface)
    poses = draw_poses(surface, deformed, half_mm, settings.pose, generator)
    related = bernoulli(settings.related_fraction, (count,), generator)
    first, second = draw_properties(scene, generator), draw_properties(scene, generator)
    second = _where(related, first, second)
    to_fixed, to_moving, reach = poses.patient_to_fixed, poses.patient_to_moving, poses.reach_mm
    return _Drawn(
        scene=scene,
        waves=waves,
        deformation=deformation,
        orientation=orientation,
        poses=poses,
        fixed=draw_modality(scene, first, to_fixed.translation_mm, reach, settings, generator),
        moving=draw_modality(scene, second, to_moving.translation_mm, reach, settings, generator),
        surface_mm=to_fixed.apply(surface @ orientation.mT),
        moving_surface_mm=to_moving.apply(deformed @ orientation.mT),
    )


def _where(condition: Tensor, one: Tissues, other: Tissues) -> Tissues:
    """Take `one` where a condition (b,) holds, else `other`."""
    return Tissues(
        background=torch.where(condition, one.background, other.background),
        outer=torch.where(condition[:, None], one.outer, other.outer),
        structure=torch.where(condition, one.structure, other.structure),
        capsule=one.capsule,
        inner=torch.where(condition[:, None], one.inner, other.inner),
    )


def _render_fixed(drawn: _Drawn, grid: Grid, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    points = drawn.poses.patient_to_fixed.inverse().apply(control_points(grid, drawn.surface_mm))
    return _render(points @ drawn.orientation, drawn, drawn.fixed, grid, noise)


def _render_moving(drawn: _Drawn, grid: Grid, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    points = drawn.poses.patient_to_moving.inverse().apply(control_points(grid, drawn.surface_mm))
    return _render(drawn.deformation.apply(points @ drawn.orientation), drawn, drawn.moving, grid, noise)


def _render(
    control_mm: Tensor, drawn: _Drawn, modality: Modality, grid: Grid, noise: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Render one image and the main shape's mask, given where the grid's control points lie in the scene."""
    scene, main = drawn.scene, len(drawn.scene.outer_names)
    points = from_control_points(scene.shape.apply(control_mm).mT, grid.shape).flatten(2)
    membership = memberships(scene.coefficients, points)
    label = (membership[:, main] > 0.5).view(-1, 1, *grid.shape)
    grid_mm = grid.points_mm().to(control_mm.device, torch.float32)
    texture = drawn.waves.at(points.mT)[..., 0]
    return render_modality(membership, texture, grid_mm, grid.spacing_mm[0], modality, noise), label
