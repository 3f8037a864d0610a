"""What simulated brains are drawn from."""

from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import euler_to_rotation, sample
from crossalign.simulation.deformation import draw_waves
from crossalign.simulation.random_fields import bernoulli, signed, uniform
from crossalign.simulation.settings import Range
from crossalign.types import Map, Scan, Shape, Volume


@dataclass(frozen=True)
class BrainSettings:
    """Heads, their MRI and their PET. The defaults are wide, so that real pairs lie inside them.

    `spacing_mm` is the voxel size. `bend_mm` and `fold_mm` are the rms displacements of long (50 to 120 mm) and short
    (14 to 30 mm) waves. `skull_share` of the heads keep skull and scalp, `mri_stripped_share` and
    `pet_stripped_share` of those lose them in one modality. Lesion counts are the most of each kind in a head.
    """

    spacing_mm: Range = (1.0, 2.2)
    turn_deg: float = 15.0
    stretch: float = 0.15
    bend_mm: Range = (2.0, 8.0)
    fold_mm: Range = (0.0, 1.5)
    skull_share: float = 0.6
    mri_stripped_share: float = 0.1
    pet_stripped_share: float = 0.25
    inverted_share: float = 0.15
    mri_blur_mm: Range = (0.0, 2.5)
    smooth_share: float = 0.25
    mri_noise: Range = (0.0, 0.03)
    mri_lesions: int = 4
    pet_blur_mm: Range = (4.0, 8.0)
    pet_noise: Range = (0.0, 0.12)
    hot_lesions: int = 2
    cold_lesions: int = 2
    hypometabolic_regions: int = 3

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple) and not (len(value) == 2 and 0 <= value[0] <= value[1] < 1e3):
                raise InputError(f"BrainSettings.{item.name} must be a range (low, high) from 0 upwards, got {value}")
            if item.name.endswith("_share") and not 0 <= value <= 1:
                raise InputError(f"BrainSettings.{item.name} must lie in 0..1, got {value}")
            if not isinstance(value, tuple) and value < 0:
                raise InputError(f"BrainSettings.{item.name} must be 0 or more, got {value}")
        if self.spacing_mm[0] <= 0:
            raise InputError(f"BrainSettings.spacing_mm must be over 0, got {self.spacing_mm}")


# Three maps whose shapes are compared by hand, so that the error teaches.
AnyScan: TypeAlias = Float[Tensor, "_ _ _"]

BRAIN = 0.5  # the share of tissue at which the brain ends
FAR_MM = 60.0
COARSE_MM = 3.0


@dataclass(frozen=True, eq=False)
class BrainMaps:
    """A template: its T1 and the shares of grey and white matter (z, y, x), on one isotropic grid, all in [0, 1].

    Axes run along L, P and S or any turn of them; the simulator does not care.
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


@dataclass(frozen=True, eq=False)
class Head:
    """Shares of tissue (1, 6, z, y, x): grey, white, CSF, bone, scalp, fat; and the template's T1."""

    tissues: Map
    t1: Volume
    spacing_mm: float

    @property
    def brain(self) -> Map:
        """Share of brain and CSF."""
        return self.tissues[:, :3].sum(1, keepdim=True)


class HeadMaker:
    """Draws heads from one template; what does not depend on the draw is computed once."""

    def __init__(self, maps: BrainMaps) -> None:
        inside = (maps.t1 > 0.05) | (maps.grey + maps.white > BRAIN)
        outside_mm = _distance_mm(inside, maps.spacing_mm)
        self._stack = torch.stack((maps.grey, maps.white, maps.t1, inside.float(), outside_mm))[None].float()
        self._spacing_mm = maps.spacing_mm
        where = inside.nonzero().float()
        self._center_voxel = where.mean(0).flip(0)

    def draw(self, shape: Shape, settings: BrainSettings, generator: torch.Generator) -> Head:
        """Draw one head on a lattice of this shape."""
        spacing = float(uniform(settings.spacing_mm, (), generator))
        points = _lattice_mm(shape, spacing)
        # Whatever part of the head the lattice cannot hold is cut off at a random side.
        slack = (torch.tensor([150.0, 180.0, 150.0]) - torch.tensor(shape[::-1]) * spacing).clamp(min=0) / 2
        points = points + signed((0.0, 1.0), (3,), generator) * (slack + 8.0)
        turn = euler_to_rotation(signed((0.0, settings.turn_deg), (3,), generator) * (torch.pi / 180))
        stretch = 1 + signed((0.0, settings.stretch), (3,), generator)
        flat = (points.reshape(1, -1, 3) * stretch) @ turn.mT
        bend = draw_waves(1, settings.bend_mm, (50.0, 120.0), generator)
        fold = draw_waves(1, settings.fold_mm, (14.0, 30.0), generator)
        flat = flat + bend.at(flat) + fold.at(flat)
        voxel = flat / self._spacing_mm + self._center_voxel
        found = sample(self._stack, voxel.reshape(1, *shape, 3))
        grey, white, t1, inside, outside_mm = found.chunk(5, dim=1)
        # Beyond the template nothing is known but that it is far from the brain.
        lost = (inside == 0) & (outside_mm == 0)
        outside_mm = torch.where(lost, torch.full_like(outside_mm, FAR_MM), outside_mm)
        power = float(uniform((1.0, 4.0), (), generator))
        brain = _sharpened(torch.cat((grey, white, (inside - grey - white).clamp(min=0)), 1), power) * inside
        around = _around(outside_mm, shape, generator) * (1 - inside)
        if not bool(bernoulli(settings.skull_share, (), generator)):
            around = around * 0
        return Head(torch.cat((brain, around), dim=1), t1, spacing)


def smooth_field(shape: Shape, knots: int, generator: torch.Generator) -> Volume:
    """Draw a smooth field (1, 1, z, y, x) of about unit variance: trilinear between `knots` random values an axis."""
    coarse = torch.randn(1, 1, knots, knots, knots, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True) * 1.5


def _around(outside_mm: Volume, shape: Shape, generator: torch.Generator) -> Map:
    """Shares (1, 3, z, y, x) of bone, scalp and fat in shells about the brain."""
    uneven = smooth_field(shape, 6, generator)
    at, shells = outside_mm + uneven, []
    gap = float(uniform((0.5, 4.0), (), generator))
    bone = gap + float(uniform((3.0, 8.0), (), generator)) * (1 + 0.3 * smooth_field(shape, 6, generator)).clamp(0.3, 2)
    fat = bone + float(uniform((1.0, 6.0), (), generator)) * (1 + 0.4 * smooth_field(shape, 6, generator)).clamp(0.2, 2)
    skin = fat + float(uniform((1.5, 6.0), (), generator))
    for low, high in ((gap, bone), (fat, skin), (bone, fat)):
        shells.append(torch.sigmoid((at - low) * 2) * torch.sigmoid((high - at) * 2))
    return torch.cat(shells, dim=1)


def _sharpened(shares: Volume, power: float) -> Volume:
    """Push shares towards 0 and 1, as one subject's are, keeping their sum where there is any."""
    raised = shares.clamp(min=0) ** power
    total = raised.sum(1, keepdim=True)
    return torch.where(total > 0, raised / total.clamp(min=1e-12), torch.zeros_like(raised))


def _lattice_mm(shape: Shape, spacing_mm: float) -> Float[Tensor, "z y x 3"]:
    z, y, x = torch.meshgrid(*((torch.arange(n) - (n - 1) / 2) * spacing_mm for n in shape), indexing="ij")
    return torch.stack((x, y, z), dim=-1)


def _distance_mm(inside: Float[Tensor, "z y x"] | Tensor, spacing_mm: float) -> Scan:
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
