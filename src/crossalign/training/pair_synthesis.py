"""Pair synthesis: one case's fixed image and another's moving image, both deformed to one shape of the structure.

A network memorises a handful of real pairs. But which MR goes with which ultrasound is decided by the structure's shape
and position alone; deform both to a common shape, and any fixed image makes an exact pair with any moving one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Grid
from crossalign.simulation.ellipsoids import even_directions
from crossalign.training.dataset import PairDataset
from crossalign.training.settings import PairSynthesisSettings
from crossalign.types import PointGrid, Points, Volume

DEGREE = 6  # of the shapes' spherical polynomials: bumps of 30 degrees
RAYS = 642
LONGEST_MM = 60.0
RAY_STEP_MM = 0.5
FADE_MM = 30.0  # how far outside a structure the deformation fades to 1/e
SMALLEST_RADIUS_MM = 4.0  # a structure's radius is never drawn shorter
CHUNK = 8
CONTROL_SPACING_MM = 4.5  # of the points at which the deformations are computed
DEFAULTS = PairSynthesisSettings()


@dataclass(frozen=True, eq=False)
class RadialShapes:
    """Logarithms of structures' radii (mm) by direction about their centres, as polynomials: coefficients (b, k)."""

    coefficients: Tensor

    def radius_mm(self, directions: Tensor) -> Tensor:
        """Return the radii (b, n) along unit vectors (b, n, 3) or (n, 3)."""
        terms = _terms(directions)
        return (terms @ self.coefficients[..., None])[..., 0].exp().clamp(min=SMALLEST_RADIUS_MM)


def _terms(directions: Tensor) -> Tensor:
    """Return the monomials of degree DEGREE and DEGREE - 1: on the sphere they span every polynomial up to DEGREE."""
    x, y, z = directions.unbind(-1)
    return torch.stack(
        [
            x**i * y**j * z ** (degree - i - j)
            for degree in (DEGREE, DEGREE - 1)
            for i in range(degree + 1)
            for j in range(degree + 1 - i)
        ],
        -1,
    )


def fit_shapes(radii_mm: Tensor, directions: Points) -> RadialShapes:
    """Fit radii (b, n) along directions (n, 3) by least squares of their logarithm."""
    inverse = torch.linalg.pinv(_terms(directions.double()))
    fitted = radii_mm.clamp(min=SMALLEST_RADIUS_MM).log().double() @ inverse.mT
    return RadialShapes(fitted.float())


class PairSynthesis:
    """Draws new cases from a dataset whose cases have masks of both images. Raises InputError where one has none."""

    def __init__(self, dataset: PairDataset, settings: PairSynthesisSettings = DEFAULTS) -> None:
        if dataset.moving_mask is None or bool((dataset.moving_mask.amin(dim=(1, 2, 3, 4)) < 0).any()):
            raise InputError("pairs are synthesised from structures: every case needs a mask of its moving image too")
        self._dataset, self._settings, self._device = dataset, settings, dataset.fixed.device
        self._rays = even_directions(RAYS).to(self._device)
        every = torch.arange(len(dataset), device=self._device)
        self._fixed = fit_shapes(self._measured_mm(every, moving=False), self._rays)
        self._moving = fit_shapes(self._measured_mm(every, moving=True), self._rays)

    def draw(self, count: int, generator: torch.Generator, grid: Grid | None = None) -> PairDataset:
        """Make `count` new cases, in the frame of their structure's centre; the reference is the identity.

        `grid` is that of the new images, a cube about 0; None takes the size and the spacing of the dataset's.
        """
        step = float(self._dataset.spacing_mm) if grid is None else grid.spacing_mm[0]
        sizes = (self._dataset.fixed.shape[-1], self._dataset.moving.shape[-1])
        sizes = sizes if grid is None else (grid.shape[0], grid.shape[0])
        chunks = [min(CHUNK, count - first) for first in range(0, count, CHUNK)]
        parts = [self._draw_chunk(number, generator, sizes, step) for number in chunks]
        zero = torch.zeros(count, 3, device=self._device)
        return PairDataset(
            **{name: torch.cat([part[name] for part in parts]) for name in parts[0]},
            fixed_origin_mm=(zero - (sizes[0] - 1) / 2) * step,
            moving_origin_mm=(zero - (sizes[1] - 1) / 2) * step,
            center_mm=zero,
            rotation=torch.eye(3, device=self._device).repeat(count, 1, 1),
            translation_mm=zero.clone(),
            spacing_mm=torch.tensor(step, device=self._device),
        )

    def _draw_chunk(
        self, count: int, generator: torch.Generator, sizes: tuple[int, int], step_mm: float
    ) -> dict[str, Tensor]:
        fixed_shape, moving_shape = self._draw_shapes(count, generator)
        made = {}
        for name, shape, size in (("fixed", fixed_shape, sizes[0]), ("moving", moving_shape, sizes[1])):
            image, mask = self._image(shape, (size, step_mm), name == "moving", generator)
            made[name], made[f"{name}_mask"] = image.half(), mask.half()
        rays = even_directions(self._dataset.surface_mm.shape[1]).to(self._device)
        made["surface_mm"] = rays * fixed_shape.radius_mm(rays)[..., None]
        return made

    def _measured_mm(self, index: Tensor, moving: bool) -> Tensor:
        """Return radii (b, rays), mm: how much of each ray from the fixed structure's centre lies in the structure."""
        along = torch.arange(RAY_STEP_MM / 2, LONGEST_MM, RAY_STEP_MM, device=self._device)
        points = (self._rays[:, None] * along[:, None]).expand(len(index), -1, -1, -1)
        inside = self._at(index, points[:, None], moving, mask=True)
        return inside.float().clamp(0, 1).sum(-1)[:, 0, 0] * RAY_STEP_MM

    def _at(self, index: Tensor, offsets_mm: Tensor, moving: bool, mask: bool = False) -> Volume:
        """Sample cases at offsets (b, z, y, x, 3) from their structure's centre along the fixed image's axes."""
        dataset = self._dataset
        points = offsets_mm + dataset.center_mm[index][:, None, None, None]
        if not moving:
            return dataset.fixed_at(index, points, label=mask)
        moved = dataset.reference(index).apply(points.flatten(1, 3)).reshape(points.shape)
        return dataset.moving_mask_at(index, moved) if mask else dataset.moving_at(index, moved)

    def _draw_shapes(self, count: int, generator: torch.Generator) -> tuple[RadialShapes, RadialShapes]:
        """Draw fixed shapes between two cases', grown and bumpy; the moving one differs from it as some case's does."""
        first, second, other = (self._draw_cases(count, generator) for _ in range(3))
        weight = (torch.rand(count, 1, generator=generator) * 1.4 - 0.2).to(self._device)
        known = self._fixed.coefficients
        base = RadialShapes(known[first] * (1 - weight) + known[second] * weight).radius_mm(self._rays)
        change = torch.randn(count, 1, generator=generator).to(self._device) * self._settings.size_sd
        change = change + self._draw_bumps(count, generator)
        difference = self._moving.coefficients[other] - self._fixed.coefficients[other]
        fixed = fit_shapes(base * change.exp(), self._rays)
        return fixed, RadialShapes(fixed.coefficients + difference)

    def _draw_bumps(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw smooth changes by direction (b, rays), of sd `bump_sd`."""
        centers = F.normalize(torch.randn(count, 12, 3, generator=generator), dim=-1).to(self._device)
        heights = torch.randn(count, 12, generator=generator).to(self._device)
        near = ((self._rays @ centers.mT - 1) * 4).exp()  # (b, rays, 12)
        field = (near * heights[:, None]).sum(-1)
        return field / field.std(dim=1, keepdim=True).clamp(min=1e-3) * self._settings.bump_sd

    def _draw_cases(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self._dataset), (count,), generator=generator).to(self._device)

    def _image(
        self, shape: RadialShapes, cube: tuple[int, float], moving: bool, generator: torch.Generator
    ) -> tuple[Volume, Volume]:
        """Deform some case's image, or a blend of two cases', to a shape; `cube` is its size and spacing."""
        count = len(shape.coefficients)
        first, second = self._draw_cases(count, generator), self._draw_cases(count, generator)
        is_blended = torch.rand(count, generator=generator) < self._settings.blended_fraction
        weight = torch.where(is_blended, torch.rand(count, generator=generator) * 0.5, torch.zeros(count))
        weight = weight.to(self._device)[:, None, None, None, None]
        offsets = self._deformed(first, shape, cube, moving)
        image, mask = self._at(first, offsets, moving), self._at(first, offsets, moving, mask=True)
        if bool(is_blended.any()):
            other = self._at(second, self._deformed(second, shape, cube, moving), moving)
            image = image * (1 - weight) + other * weight
        return image, mask

    def _deformed(self, index: Tensor, shape: RadialShapes, cube: tuple[int, float], moving: bool) -> PointGrid:
        """Return where cases are sampled so that their structure takes a shape; outside, the deformation fades."""
        size, step = cube
        half = (size - 1) * step / 2
        count = round(2 * half / CONTROL_SPACING_MM) + 1
        coarse = _offsets_mm(count, half, self._device)
        own = RadialShapes((self._moving if moving else self._fixed).coefficients[index])
        radius = coarse.norm(dim=-1).flatten()
        directions = coarse.flatten(0, 2) / radius.clamp(min=1e-3)[:, None]
        target, source = shape.radius_mm(directions), own.radius_mm(directions)
        outside = ((target - radius).clamp(max=0) / FADE_MM).exp()
        longer = (source - target) * torch.where(radius < target, radius / target, outside)
        shift = (directions * longer[..., None]).mT.reshape(len(index), 3, count, count, count)
        fine = F.interpolate(shift, size=(size, size, size), mode="trilinear", align_corners=True)
        return _offsets_mm(size, half, self._device) + fine.movedim(1, -1)


def _offsets_mm(size: int, half_mm: float, device: torch.device) -> Tensor:
    axis = torch.linspace(-half_mm, half_mm, size, device=device)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack((x, y, z), -1)
