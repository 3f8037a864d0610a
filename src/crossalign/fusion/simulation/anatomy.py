"""Anatomy of simulated heads: tissues of a template, deformed, with a skull and a scalp."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossalign.errors import InputError
from crossalign.extras import optional_module
from crossalign.fusion.simulation.settings import HeadSettings
from crossalign.geometry import euler_to_rotation, sample
from crossalign.simulation.deformation import draw_plane_waves
from crossalign.simulation.random_fields import bernoulli, signed_uniform, uniform
from crossalign.simulation.settings import Range
from crossalign.types import Map, Scan, Shape, Volume

# Three maps whose shapes are compared explicitly, so that the error says what to do.
AnyScan: TypeAlias = Float[Tensor, "_ _ _"]

BRAIN = 0.5  # the fraction of tissue at which the brain ends
FAR_MM = 60.0
COARSE_MM = 3.0


@dataclass(frozen=True, eq=False)
class TissueMaps:
    """A template: its T1 and the fractions of grey and white matter (z, y, x), on one isotropic grid, all in [0, 1].

    Axes run along L, P and S in any rotation by multiples of 90 degrees: the simulator does not depend on it.
    """

    t1: AnyScan
    grey: AnyScan
    white: AnyScan
    spacing_mm: float

    def __post_init__(self) -> None:
        if not self.t1.shape == self.grey.shape == self.white.shape:
            shapes = [tuple(v.shape) for v in (self.t1, self.grey, self.white)]
            raise InputError(f"the template's maps must have one shape, got {shapes}")
        if not self.spacing_mm > 0:
            raise InputError(f"the template's spacing must be over 0 mm, got {self.spacing_mm}")


def mni152_maps() -> TissueMaps:
    """Read the MNI152 T1, grey- and white-matter maps at 1 mm that nilearn carries; nothing is downloaded.

    Raises InputError where nilearn is not installed.
    """
    datasets = optional_module("nilearn.datasets", "simulated heads need nilearn", "fusion-template")
    loaders = (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    arrays = [loader(resolution=1).get_fdata().transpose(2, 1, 0).copy() for loader in loaders]
    t1, grey, white = (torch.from_numpy(array).float().clamp(0, 1) for array in arrays)
    return TissueMaps(t1, grey, white, spacing_mm=1.0)


@dataclass(frozen=True, eq=False)
class Head:
    """Fractions of tissue (1, 6, z, y, x): grey, white, CSF, bone, scalp, fat; and the template's T1."""

    tissues: Map
    t1: Volume
    spacing_mm: float

    @property
    def brain(self) -> Map:
        """Fraction of brain and CSF."""
        return self.tissues[:, :3].sum(1, keepdim=True)


class HeadTemplate:
    """A template to draw heads from; what does not depend on the draw is computed once."""

    def __init__(self, maps: TissueMaps) -> None:
        inside = (maps.t1 > 0.05) | (maps.grey + maps.white > BRAIN)
        outside_mm = _distance_mm(inside, maps.spacing_mm)
        self._stack = torch.stack((maps.grey, maps.white, maps.t1, inside.float(), outside_mm))[None].float()
        self._spacing_mm = maps.spacing_mm
        self._center_voxel = inside.nonzero().float().mean(0).flip(0)

    def draw(self, shape: Shape, settings: HeadSettings, generator: torch.Generator) -> Head:
        """Draw one head on a grid of this shape."""
        spacing = random_number(settings.spacing_mm, generator)
        template_voxels = self._template_voxels(shape, spacing, settings, generator)
        grey, white, t1, inside, outside_mm = sample(self._stack, template_voxels).chunk(5, dim=1)
        # Beyond the template nothing is known but that it is far from the brain.
        beyond = (inside == 0) & (outside_mm == 0)
        outside_mm = torch.where(beyond, torch.full_like(outside_mm, FAR_MM), outside_mm)
        power = random_number((1.0, 4.0), generator)
        brain = _sharpened(torch.cat((grey, white, (inside - grey - white).clamp(min=0)), 1), power) * inside
        shells = _shells(outside_mm, shape, generator) * (1 - inside)
        if not bool(bernoulli(settings.skull_fraction, (), generator)):
            shells = shells * 0
        return Head(torch.cat((brain, shells), dim=1), t1, spacing)

    def _template_voxels(
        self, shape: Shape, spacing: float, settings: HeadSettings, generator: torch.Generator
    ) -> Float[Tensor, "1 z y x 3"]:
        """Draw the map from a grid's voxels to voxels of the template."""
        axes = ((torch.arange(n) - (n - 1) / 2) * spacing for n in shape)
        z, y, x = torch.meshgrid(*axes, indexing="ij")
        points = torch.stack((x, y, z), dim=-1)
        # Whatever part of the head the grid cannot hold is cut off at a random side.
        slack = (torch.tensor([150.0, 180.0, 150.0]) - torch.tensor(shape[::-1]) * spacing).clamp(min=0) / 2
        points = points + signed_uniform((0.0, 1.0), (3,), generator) * (slack + 8.0)
        rotation = euler_to_rotation(signed_uniform((0.0, settings.rotation_deg), (3,), generator) * (torch.pi / 180))
        stretch = 1 + signed_uniform((0.0, settings.stretch), (3,), generator)
        points = (points.reshape(1, -1, 3) * stretch) @ rotation.mT
        long = draw_plane_waves(1, settings.long_waves_mm, (50.0, 120.0), generator)
        short = draw_plane_waves(1, settings.short_waves_mm, (14.0, 30.0), generator)
        points = points + long.at(points) + short.at(points)
        return (points / self._spacing_mm + self._center_voxel).reshape(1, *shape, 3)


def random_number(bounds: Range, generator: torch.Generator) -> float:
    """Draw from U(low, high)."""
    return float(uniform(bounds, (), generator))


def smooth_field(shape: Shape, knots: int, generator: torch.Generator) -> Volume:
    """Draw a smooth field (1, 1, z, y, x) of about unit variance: trilinear between `knots` random values an axis."""
    coarse = torch.randn(1, 1, knots, knots, knots, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True) * 1.5


def _shells(outside_mm: Volume, shape: Shape, generator: torch.Generator) -> Map:
    """Fractions (1, 3, z, y, x) of bone, scalp and fat in shells about the brain."""
    distance = outside_mm + smooth_field(shape, 6, generator)
    gap = random_number((0.5, 4.0), generator)
    bone = gap + random_number((3.0, 8.0), generator) * (1 + 0.3 * smooth_field(shape, 6, generator)).clamp(0.3, 2)
    fat = bone + random_number((1.0, 6.0), generator) * (1 + 0.4 * smooth_field(shape, 6, generator)).clamp(0.2, 2)
    skin = fat + random_number((1.5, 6.0), generator)
    bounds = (gap, bone), (fat, skin), (bone, fat)
    return torch.cat(
        [torch.sigmoid((distance - low) * 2) * torch.sigmoid((high - distance) * 2) for low, high in bounds], dim=1
    )


def _sharpened(fractions: Volume, power: float) -> Volume:
    """Push fractions towards 0 and 1, as one subject's are, preserving a sum of 1 where there is any tissue."""
    raised = fractions.clamp(min=0) ** power
    total = raised.sum(1, keepdim=True)
    return torch.where(total > 0, raised / total.clamp(min=1e-12), torch.zeros_like(raised))


def _distance_mm(inside: Bool[Tensor, "z y x"], spacing_mm: float) -> Scan:
    """Distance to the nearest voxel inside, mm, 0 inside: exact on a grid of about 3 mm, linear between."""
    step = max(1, round(COARSE_MM / spacing_mm))
    coarse = inside[::step, ::step, ::step]
    square = torch.where(coarse, 0.0, FAR_MM**2)
    for axis, size in enumerate(square.shape):
        gap = ((torch.arange(size)[:, None] - torch.arange(size)).float() * step * spacing_mm) ** 2
        rows = square.movedim(axis, -1)
        square = torch.stack([(rows + gap[k]).amin(-1) for k in range(size)], -1).movedim(-1, axis)
    fine = tuple((n - 1) * step + 1 for n in square.shape)
    distance = torch.nn.functional.interpolate(
        square.sqrt()[None, None], size=fine, mode="trilinear", align_corners=True
    )
    padding = [value for full, have in zip(inside.shape[::-1], fine[::-1], strict=True) for value in (0, full - have)]
    full = torch.nn.functional.pad(distance, padding, mode="replicate")[0, 0]
    return torch.where(inside, torch.zeros_like(full), full)
