"""Training batches: crops cut from a dataset at perturbed initialisations, varied by augmentation."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, draw_perturbation, euler_to_rotation, sample
from crossalign.models.stage_settings import StageSettings
from crossalign.networks import crop_points
from crossalign.simulation.random_fields import outer_product
from crossalign.training.dataset import PairDataset
from crossalign.training.settings import NO_AUGMENTATION, Augmentation
from crossalign.types import Map, PointGrid, Points, Volume

WARP_POINTS = 5  # of the smooth displacement, along each axis
CUT_FRACTION = 0.5  # of the sides of a field of view
OUTLINE_REACH_MM = 120.0  # over which the control points of a changed outline lie


@dataclass(frozen=True, eq=False)
class Warp:
    """A smooth change of shape: offsets q from the crop's centre to offsets from the structure's centroid, mm.

    q -> A q + shift + u(q), the displacement u interpolated between control points over `reach_mm`.
    """

    matrix: Tensor  # (b, 3, 3)
    shift_mm: Tensor  # (b, 3)
    displacement_mm: Tensor  # (b, 3, k, k, k)
    moving_displacement_mm: Tensor  # (b, 3, k, k, k), added for the moving image only
    reach_mm: float

    def __call__(self, offsets_mm: PointGrid, moving: bool) -> PointGrid:
        """Map offsets (b, z, y, x, 3)."""
        values = self.displacement_mm + self.moving_displacement_mm if moving else self.displacement_mm
        unit = (offsets_mm / self.reach_mm + 0.5).clamp(0, 1)
        displacement = sample(values, unit * (WARP_POINTS - 1)).movedim(1, -1)
        affine = offsets_mm.flatten(1, 3) @ self.matrix.mT
        return affine.reshape(offsets_mm.shape) + self.shift_mm[:, None, None, None] + displacement

    def undo_affine(self, offsets_mm: Tensor) -> Tensor:
        """Map offsets (b, n, 3) from the structure's centroid back to the crop; the displacement is left out."""
        return torch.linalg.solve(self.matrix, (offsets_mm - self.shift_mm[:, None]).mT).mT


def draw_warp(
    count: int, extent_mm: float, settings: Augmentation, generator: torch.Generator, device: torch.device
) -> Warp:
    """Draw `count` warps for a crop of this extent."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * 2 - 1

    def displacement(sd_mm: float) -> Tensor:
        return torch.randn(count, 3, *[WARP_POINTS] * 3, generator=generator) * sd_mm

    rotation = euler_to_rotation(uniform(3) * torch.deg2rad(torch.tensor(settings.rotation_deg)))
    stretch = 1 + uniform(1) * settings.scale + uniform(3) * settings.scale / 3
    for axis in settings.mirror:
        flipped = torch.rand(count, generator=generator) < 0.5
        stretch[:, "xyz".index(axis)] *= torch.where(flipped, -1.0, 1.0)
    return Warp(
        matrix=(rotation * stretch[:, None, :]).to(device),
        shift_mm=(uniform(3) * settings.shift_mm).to(device),
        displacement_mm=displacement(settings.deformation_mm).to(device),
        moving_displacement_mm=displacement(settings.moving_deformation_mm).to(device),
        reach_mm=extent_mm * 1.5,
    )


def vary_intensity(volume: Volume, settings: Augmentation, generator: torch.Generator) -> Volume:
    """Change an image's gamma, gain over space and noise, and set a box to 0; the empty background (0) stays empty."""
    count, device = len(volume), volume.device

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1).to(device)

    empty = volume <= 0
    gamma = torch.exp(uniform(1, 1, 1, 1) * settings.gamma)
    varied = volume.clamp(min=1e-4) ** gamma
    coarse = uniform(1, 3, 3, 3) * settings.bias
    field = F.interpolate(coarse, size=volume.shape[2:], mode="trilinear", align_corners=True)
    noise_seed = int(torch.randint(2**62, (1,), generator=generator))
    noise = torch.randn(volume.shape, generator=torch.Generator(device).manual_seed(noise_seed), device=device)
    amount = (uniform(1, 1, 1, 1) + 1) / 2 * settings.noise
    varied = varied * torch.exp(field) + noise * amount
    removed = empty | _boxes(volume, settings.cutout, generator)
    return torch.where(removed, torch.zeros_like(varied), varied.clamp(0, 1.5))


def draw_field_of_view(extent_mm: Tensor, points_mm: PointGrid, cut_mm: float, generator: torch.Generator) -> Volume:
    """Cut boxes (b, 2, 3), mm, on half of their sides by 0 to `cut_mm`; 1 at points (b, z, y, x, 3) inside, else 0."""
    count, device = len(extent_mm), extent_mm.device
    cut = torch.rand(count, 2, 3, generator=generator) * cut_mm
    cut = (cut * (torch.rand(count, 2, 3, generator=generator) < CUT_FRACTION)).to(device)
    low = (extent_mm[:, 0] + cut[:, 0])[:, None, None, None]
    high = (extent_mm[:, 1] - cut[:, 1])[:, None, None, None]
    return ((points_mm >= low) & (points_mm <= high)).all(dim=-1)[:, None].to(points_mm)


def _boxes(volume: Volume, probability: float, generator: torch.Generator) -> Tensor:
    """Mark, in images drawn with a probability, a box of up to half the crop along each axis."""
    count = len(volume)
    has_box = torch.rand(count, generator=generator) < probability
    inside = []
    for size in volume.shape[2:]:
        length = torch.rand(count, generator=generator) * 0.4 + 0.1
        first = torch.rand(count, generator=generator) * (1 - length)
        position = (torch.arange(size) + 0.5) / size
        inside.append((position >= first[:, None]) & (position < (first + length)[:, None]))
    return (has_box[:, None, None, None, None] & outer_product(*inside)).to(volume.device)


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops (b, 1, z, y, x), the corrections to find, and surface points; in mm from the crop's centre.

    The moving crop has two channels, image and mask, for a stage that is given the moving mask. Masks of the structure,
    where they were asked for, are at half the crops' size, 0 to 1; -1 where a case has none.
    """

    fixed: Volume
    moving: Map
    correction: Rigid
    surface_mm: Points
    fixed_mask: Map | None = None
    moving_mask: Map | None = None

    def pairs(self, which: slice) -> "Batch":
        """Take some of the pairs."""
        masks = (None if mask is None else mask[which] for mask in (self.fixed_mask, self.moving_mask))
        correction = self.correction[which]
        return Batch(self.fixed[which], self.moving[which], correction, self.surface_mm[which], *masks)


def draw_batch(  # noqa: PLR0913 (what is drawn, from what, and how far: none of them goes with another)
    dataset: PairDataset,
    index: torch.Tensor,
    stage: StageSettings,
    initial_sre_mm: tuple[float, float],
    augmentation: Augmentation,
    generator: torch.Generator,
    masks: bool = False,
) -> Batch:
    """Cut one crop pair for each case in `index` (b,), at an initialisation of SRE U[initial_sre_mm].

    In the crop's frame the fixed image is F(q) = fixed(warp(q)) and the moving one, through the initialisation E, is
    M(q) = moving(reference(warp(E(q)))): the correction to find is E^-1 whatever the warp. The generator lives on the
    CPU, so that a seed gives the same pairs on every device, but for the augmentation's noise.
    """
    device, count = dataset.fixed.device, len(index)
    warp = draw_warp(count, stage.extent_mm(), augmentation, generator, device)
    surface = warp.undo_affine(dataset.surface_mm[index] - dataset.center_mm[index][:, None])
    low, high = initial_sre_mm
    target = low + (high - low) * torch.rand(count, generator=generator).to(device)
    initial = draw_perturbation(surface, surface.mean(1), target, generator, tolerance_mm=0.01)
    fixed_mm, moving_mm = _crop_points(dataset, index, stage, warp, initial)
    outlines = _outlines(dataset, index, stage, (fixed_mm, moving_mm), augmentation.outline_mm, generator)
    fixed = dataset.fixed_at(index, fixed_mm, label=False) if outlines[0] is None else outlines[0]
    moving = dataset.moving_at(index, moving_mm)
    if augmentation.cut_mm > 0:
        moving = moving * draw_field_of_view(dataset.moving_extent_mm[index], moving_mm, augmentation.cut_mm, generator)
        if stage.fixed_input == "image":
            extent_mm = dataset.fixed_extent_mm[index]
            fixed = fixed * draw_field_of_view(extent_mm, fixed_mm, augmentation.cut_mm, generator)
    if augmentation != NO_AUGMENTATION:
        if stage.fixed_input == "image":
            fixed = vary_intensity(fixed, augmentation, generator)
        moving = vary_intensity(moving, augmentation, generator)
    if outlines[1] is not None:
        moving = torch.cat((moving, outlines[1]), dim=1)
    both: tuple[Volume | None, Volume | None] = (None, None)
    if masks:
        fixed_mm, moving_mm = _crop_points(dataset, index, stage, warp, initial, coarser=2)
        both = dataset.fixed_at(index, fixed_mm, label=True), dataset.moving_mask_at(index, moving_mm)
    return Batch(fixed, moving, initial.inverse(), surface, *both)


def _outlines(
    dataset: PairDataset,
    index: torch.Tensor,
    stage: StageSettings,
    points_mm: tuple[PointGrid, PointGrid],
    change_mm: float,
    generator: torch.Generator,
) -> tuple[Volume | None, Volume | None]:
    """Sample the masks that a stage is given, fixed and moving, each changed by itself; None where it is given none.

    Raises InputError where the stage is given the moving mask and a case has none.
    """
    center = dataset.center_mm[index]
    radius = (dataset.surface_mm[index] - center[:, None]).norm(dim=-1).mean(1)
    fixed, moving = None, None
    if stage.fixed_input == "label":
        points = _changed_outline(points_mm[0], center, radius, change_mm, generator)
        fixed = dataset.fixed_at(index, points, label=True)
    if stage.takes_moving_mask():
        there = dataset.reference(index).apply(center[:, None])[:, 0]
        points = _changed_outline(points_mm[1], there, radius, change_mm, generator)
        moving = dataset.moving_mask_at(index, points)
        if bool((moving < 0).any()):
            raise InputError(
                "a network that is given the moving mask (moving_input image-label) needs one of every case, and some "
                "cases have none: add them (column moving_mask), or train with moving_input image"
            )
    return fixed, moving


def _changed_outline(
    points_mm: PointGrid, center_mm: Tensor, radius_mm: Tensor, change_mm: float, generator: torch.Generator
) -> PointGrid:
    """Return where a mask is sampled so that its outline changes as `Augmentation.outline_mm` says; the same for 0."""
    if change_mm == 0:
        return points_mm
    count, device = len(points_mm), points_mm.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator).to(device)

    thicker = (torch.rand(count, 1, generator=generator).to(device) * 2 - 1) * change_mm
    scale = (1 / (1 + thicker / radius_mm[:, None]).clamp(min=0.5))[:, None, None, None]
    offsets = (points_mm - center_mm[:, None, None, None]) * scale
    unit = (offsets / OUTLINE_REACH_MM + 0.5).clamp(0, 1)
    displacement = sample(normal(3, *[WARP_POINTS] * 3) * 0.6 * change_mm, unit * (WARP_POINTS - 1)).movedim(1, -1)
    shift = normal(3) * 0.3 * change_mm
    return center_mm[:, None, None, None] + offsets + shift[:, None, None, None] + displacement


def _crop_points(
    dataset: PairDataset, index: torch.Tensor, stage: StageSettings, warp: Warp, initial: Rigid, coarser: int = 1
) -> tuple[PointGrid, PointGrid]:
    """Where the crops' voxels lie in the fixed and in the moving space, mm; `coarser` takes fewer, larger voxels."""
    depth, height, width = (size // coarser for size in stage.crop_shape)
    offsets = crop_points((depth, height, width), stage.crop_spacing_mm * coarser).float().to(dataset.fixed.device)
    offsets = offsets.expand(len(index), -1, -1, -1, -1)
    center = dataset.center_mm[index][:, None, None, None]
    moved = initial.apply(offsets.flatten(1, 3)).reshape(offsets.shape)
    moving = dataset.reference(index).apply((warp(moved, moving=True) + center).flatten(1, 3))
    return warp(offsets, moving=False) + center, moving.reshape(offsets.shape)


def validation_batches(
    dataset: PairDataset, stage: StageSettings, initial_sre_mm: tuple[float, float], count: int, seed: int
) -> list[Batch]:
    """Cut `count` fixed crop pairs for every case of the dataset, without augmentation; one batch for each round."""
    index = torch.arange(len(dataset), device=dataset.fixed.device)
    generator = torch.Generator().manual_seed(seed)
    return [draw_batch(dataset, index, stage, initial_sre_mm, NO_AUGMENTATION, generator) for _ in range(count)]
