"""A simulated pair: one anatomy, where it lies in two scans of it, and the rigid answer. Shared by all simulators."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Grid, Rigid, euler_to_rotation
from crossalign.geometry.fit import fit_rigid
from crossalign.simulation.random_fields import bernoulli, noise_generator, signed_uniform, uniform, unit_control_points
from crossalign.simulation.settings import PoseSettings
from crossalign.simulation.tissues import to_device
from crossalign.types import Distances, Points, Shape, Volume

CHUNK_GPU = 32
# On a CPU larger chunks fall out of the cache and smaller ones spend their time on the draws (measured, 32^3 to 64^3).
CHUNK_CPU_VOXELS, CHUNK_CPU_LEAST, CHUNK_CPU_MOST = 2**18, 2, 8
SMALLEST_GRID_MM = 64.0


@dataclass(frozen=True, eq=False)
class SimulatedPairs:
    """Pairs (b): two images in [0, 1], float32, and the masks of the structure in them, bool, (b, 1, z, y, x).

    `fixed_to_moving` is the least-squares rigid over `surface_mm` (256 points of the structure's surface in the fixed
    image) under the true map, which deforms; `residual_mm` is the mean distance that it leaves there. The grids are
    LPS, one for all fixed and one for all moving volumes.
    """

    fixed: Volume
    moving: Volume
    fixed_mask: Tensor
    moving_mask: Tensor
    fixed_grid: Grid
    moving_grid: Grid
    fixed_to_moving: Rigid
    surface_mm: Points
    residual_mm: Distances


@runtime_checkable
class DrawnPairs(Protocol):
    """What a simulator drew for a chunk of pairs, a dataclass of tensors: all but the noise.

    `surface_mm` (b, 256, 3) are points of the structure's surface in the fixed image, `moving_surface_mm` the same
    points of the patient in the moving image.
    """

    @property
    def surface_mm(self) -> Tensor: ...  # noqa: D102

    @property
    def moving_surface_mm(self) -> Tensor: ...  # noqa: D102


D = TypeVar("D", bound=DrawnPairs)
Draw = Callable[[int, Tensor, torch.Generator], D]  # of so many pairs, in a grid of these half widths (3,), mm
Render = Callable[[D, Grid, torch.Generator], tuple[Tensor, Tensor]]  # an image and its mask


def simulate(
    count: int, generator: torch.Generator, grid: Grid, device: torch.device | str, draw: Draw[D],
    renderers: tuple[Render[D], Render[D]],
) -> SimulatedPairs:  # fmt: skip
    """Draw pairs in chunks and render the fixed and the moving image of each, in this order."""
    device, half_mm = torch.device(device), torch.tensor(grid.extent_mm()) / 2
    size = CHUNK_GPU
    if device.type == "cpu":
        size = min(CHUNK_CPU_MOST, max(CHUNK_CPU_LEAST, CHUNK_CPU_VOXELS // math.prod(grid.shape)))
    parts = []
    with torch.no_grad():
        for first in range(0, count, size):
            drawn = draw(min(size, count - first), half_mm, generator)
            noise = noise_generator(generator, device)
            answer = fit_rigid(drawn.surface_mm.double(), drawn.moving_surface_mm.double(), prior_mm2=0.0)
            answer = answer.to("cpu", torch.float32)
            residual_mm = (answer.apply(drawn.surface_mm) - drawn.moving_surface_mm).norm(dim=-1).mean(-1)
            drawn = to_device(drawn, device)
            (fixed, fixed_mask), (moving, moving_mask) = (render(drawn, grid, noise) for render in renderers)
            answer, residual_mm = answer.to(device, torch.float32), residual_mm.to(device)
            images = (fixed, moving, fixed_mask, moving_mask)
            parts.append(SimulatedPairs(*images, grid, grid, answer, drawn.surface_mm, residual_mm))
    return _joined(parts)


def _joined(parts: list[SimulatedPairs]) -> SimulatedPairs:
    names = ("fixed", "moving", "fixed_mask", "moving_mask", "surface_mm", "residual_mm")
    return SimulatedPairs(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in names},
        fixed_grid=parts[0].fixed_grid,
        moving_grid=parts[0].moving_grid,
        fixed_to_moving=Rigid.cat([part.fixed_to_moving for part in parts]),
    )


def checked_grid(name: str, count: int, generator: torch.Generator, shape: Shape, spacing_mm: float) -> Grid:
    """Make the grid that both scans lie on; raises InputError, in the caller's `name`, for a bad request."""
    extent_mm = min(shape) * spacing_mm
    if count < 1 or extent_mm < SMALLEST_GRID_MM:
        raise InputError(
            f"{name} needs a count of 1 or more and a grid of {SMALLEST_GRID_MM:g} mm or more along each axis, "
            f"got {count} and {extent_mm:g} mm: raise the shape or the spacing"
        )
    if generator.device.type != "cpu":
        raise InputError(f"{name} needs a CPU generator, got one on {generator.device}: use torch.Generator()")
    return Grid.centered((0.0, 0.0, 0.0), shape, (spacing_mm, spacing_mm, spacing_mm))


def control_points(grid: Grid, like: Tensor) -> Tensor:
    """Return control points over a grid's voxel centres, (b, points^3, 3), mm, for the batch of `like`."""
    half_mm = (grid.corners_mm()[-1] - grid.center_mm()).float()
    return (unit_control_points() * half_mm + grid.center_mm().float()).to(like.device).expand(len(like), -1, -1)


@dataclass(frozen=True, eq=False)
class Poses:
    """Rigid transforms (b) from the patient (structure's centre at 0) to both scans.

    `header_rotation` is what wrong headers add to both, `reach_mm` (b,) how far the structure reaches from its centre.
    """

    patient_to_fixed: Rigid
    patient_to_moving: Rigid
    header_rotation: Rigid
    reach_mm: Tensor


def draw_poses(
    surface_mm: Tensor, deformed_mm: Tensor, half_mm: Tensor, settings: PoseSettings, generator: torch.Generator
) -> Poses:
    """Draw poses that keep structures inside a grid of these half widths (3,), mm.

    Their surfaces (b, n, 3) are given in the patient's frame, as they are and as they are deformed in the moving scan.
    """
    count = len(surface_mm)
    reach_mm = torch.maximum(surface_mm.norm(dim=-1).amax(-1), deformed_mm.norm(dim=-1).amax(-1))
    quarters = torch.randint(1, 4, (count,), generator=generator)
    about_z = torch.zeros(count, 3)
    about_z[:, 2] = quarters * bernoulli(settings.rotated_fraction, (count,), generator) * (torch.pi / 2)
    header_rotation = euler_to_rotation(about_z)
    room = (half_mm - reach_mm[:, None] - 4.0).clamp(min=0)
    fixed_center = torch.minimum(uniform(settings.fixed_offset_mm, (count, 3), generator), room)
    fixed_center = fixed_center * (bernoulli(0.5, (count, 3), generator).float() * 2 - 1)
    shift = signed_uniform(settings.translation_mm, (count, 3), generator)
    moving_center = torch.minimum(torch.maximum(fixed_center + shift, -room), room)
    # One factor for all three angles: some patients lie alike in both scans, others turn far about every axis.
    angle = signed_uniform(settings.rotation_deg, (count, 3), generator) * torch.rand(count, 1, generator=generator)
    rotation = euler_to_rotation(angle * (torch.pi / 180))
    return Poses(
        patient_to_fixed=Rigid(header_rotation, fixed_center),
        patient_to_moving=Rigid(rotation @ header_rotation, moving_center),
        header_rotation=Rigid(header_rotation, torch.zeros(count, 3)),
        reach_mm=reach_mm,
    )
