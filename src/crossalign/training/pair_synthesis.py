"""New pairs from a few: one case's fixed image and another's moving image, both bent to one gland's shape.

A handful of real pairs is learned by heart. But which MR goes with which ultrasound is decided by the gland's shape and
place alone; bring both to a common shape and any fixed image makes an exact pair with any moving one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.errors import InputError
from crossalign.simulation.ellipsoids import even_directions
from crossalign.training.dataset import PairDataset
from crossalign.types import PointLattice, Points, Volume

DEGREE = 6  # of the shapes' spherical polynomials: bumps of 30 degrees
RAYS = 642
LONGEST_MM = 60.0
RAY_STEP_MM = 0.5
FADE_MM = 30.0  # how far outside a gland its change of shape fades to 1/e
SMALLEST_MM = 4.0  # a gland's radius is never drawn shorter
CHUNK = 8
NODE_MM = 4.5  # of the lattice on which the bends are computed


@dataclass(frozen=True)
class Recombination:
    """How far new shapes go. `size` and `bump` are sds of the logarithm of the radius: whole, and by direction.

    `mixed_share` of the images are blends of two cases' images, bent to the same shape.
    """

    size: float = 0.10
    bump: float = 0.06
    mixed_share: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"recombination '{name}' must lie in 0..1, got {value}")


@dataclass(frozen=True, eq=False)
class GlandShapes:
    """Logarithms of glands' radii (mm) by direction about their centres, as polynomials: coefficients (b, k)."""

    coefficients: Tensor

    def radius_mm(self, directions: Tensor) -> Tensor:
        """Return the radii (b, n) along unit vectors (b, n, 3) or (n, 3)."""
        terms = _terms(directions)
        return (terms @ self.coefficients[..., None])[..., 0].exp().clamp(min=SMALLEST_MM)


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


def gland_shapes(radii_mm: Tensor, directions: Points) -> GlandShapes:
    """Fit radii (b, n) along directions (n, 3) by least squares of their logarithm."""
    inverse = torch.linalg.pinv(_terms(directions.double()))
    fitted = radii_mm.clamp(min=SMALLEST_MM).log().double() @ inverse.mT
    return GlandShapes(fitted.float())


class PairSynthesizer:
    """Draws new cases from a bank whose cases have masks of both images. Raises InputError where one has none."""

    def __init__(self, dataset: PairDataset, settings: Recombination = Recombination()) -> None:
        if dataset.moving_mask is None or bool((dataset.moving_mask.amin(dim=(1, 2, 3, 4)) < 0).any()):
            raise InputError("new pairs are made from glands: every case needs a mask of its moving image too")
        self._dataset, self._settings = dataset, settings
        self._rays = even_directions(RAYS).to(dataset.fixed.device)
        every = torch.arange(len(dataset), device=dataset.fixed.device)
        self._fixed = gland_shapes(self._measured(every, False), self._rays)
        self._moving = gland_shapes(self._measured(every, True), self._rays)

    def _measured(self, index: Tensor, moving: bool) -> Tensor:
        """Return radii (b, rays), mm: how much of each ray from the fixed gland's centre lies in the gland."""
        along = torch.arange(RAY_STEP_MM / 2, LONGEST_MM, RAY_STEP_MM, device=self._rays.device)
        points = (self._rays[:, None] * along[:, None]).expand(len(index), -1, -1, -1)
        inside = self._at(index, points[:, None], moving, mask=True)
        return inside.float().clamp(0, 1).sum(-1)[:, 0, 0] * RAY_STEP_MM

    def _at(self, index: Tensor, offsets_mm: Tensor, moving: bool, mask: bool = False) -> Volume:
        """Sample cases at offsets (b, z, y, x, 3) from their gland's centre along the fixed image's axes."""
        dataset = self._dataset
        points = offsets_mm + dataset.center_mm[index][:, None, None, None]
        if not moving:
            return dataset.fixed_at(index, points, label=mask)
        seen = dataset.reference(index).apply(points.flatten(1, 3)).reshape(points.shape)
        return dataset.moving_mask_at(index, seen) if mask else dataset.moving_at(index, seen)

    def draw(self, count: int, generator: torch.Generator, lattice: tuple[int, float] | None = None) -> PairDataset:
        """Make `count` new cases, in the frame of their gland's centre; the reference is the identity.

        `lattice` is the canvases' voxels along each axis and spacing, mm; None takes those of the bank.
        """
        step = float(self._dataset.spacing_mm) if lattice is None else lattice[1]
        sizes = (
            (self._dataset.fixed.shape[-1], self._dataset.moving.shape[-1]) if lattice is None else (lattice[0],) * 2
        )
        parts = [self._draw(min(CHUNK, count - first), generator, sizes, step) for first in range(0, count, CHUNK)]
        names = ("fixed", "fixed_mask", "moving", "moving_mask", "surface_mm")
        volumes = {name: torch.cat([part[name] for part in parts]) for name in names}
        device = self._rays.device
        middle = torch.zeros(count, 3, device=device)

        def origin(name: str) -> Tensor:
            size = torch.tensor(volumes[name].shape[:1:-1], device=device)
            return (-(size - 1) / 2 * step).expand(count, 3).clone()

        return PairDataset(
            **volumes,
            fixed_origin_mm=origin("fixed"),
            moving_origin_mm=origin("moving"),
            center_mm=middle,
            rotation=torch.eye(3, device=device).expand(count, 3, 3).clone(),
            translation_mm=middle.clone(),
            spacing_mm=torch.tensor(step, device=device),
        )

    def _draw(
        self, count: int, generator: torch.Generator, sizes: tuple[int, int], step_mm: float
    ) -> dict[str, Tensor]:
        fixed_shape, moving_shape = self._shapes(count, generator)
        made = {}
        both = (("fixed", fixed_shape, sizes[0]), ("moving", moving_shape, sizes[1]))
        for name, shape, size in both:
            image, mask = self._image(shape, (size, step_mm), name == "moving", generator)
            made[name] = image.half()
            made[f"{name}_mask"] = mask.half()
        rays = even_directions(self._dataset.surface_mm.shape[1]).to(self._rays.device)
        made["surface_mm"] = rays * fixed_shape.radius_mm(rays)[..., None]
        return made

    def _shapes(self, count: int, generator: torch.Generator) -> tuple[GlandShapes, GlandShapes]:
        """Draw fixed glands between two cases', grown and bent; the moving one differs from it as some case's does."""
        first, second, other = (self._pick(count, generator) for _ in range(3))
        device = self._rays.device
        share = (torch.rand(count, 1, generator=generator) * 1.4 - 0.2).to(device)
        known = self._fixed.coefficients
        base = GlandShapes(known[first] * (1 - share) + known[second] * share).radius_mm(self._rays)
        change = torch.randn(count, 1, generator=generator).to(device) * self._settings.size
        change = change + self._bumps(count, generator)
        differs = self._moving.coefficients[other] - self._fixed.coefficients[other]
        fixed = gland_shapes(base * change.exp(), self._rays)
        return fixed, GlandShapes(fixed.coefficients + differs)

    def _bumps(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw smooth changes by direction (b, rays), of sd `bump`."""
        knots = F.normalize(torch.randn(count, 12, 3, generator=generator), dim=-1)
        heights = torch.randn(count, 12, generator=generator)
        knots, heights = knots.to(self._rays.device), heights.to(self._rays.device)
        near = ((self._rays @ knots.mT - 1) * 4).exp()  # (b, rays, 12)
        field = (near * heights[:, None]).sum(-1)
        return field / field.std(dim=1, keepdim=True).clamp(min=1e-3) * self._settings.bump

    def _pick(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self._dataset), (count,), generator=generator).to(self._rays.device)

    def _image(
        self, shape: GlandShapes, lattice: tuple[int, float], moving: bool, generator: torch.Generator
    ) -> tuple[Volume, Volume]:
        count = len(shape.coefficients)
        first, second = self._pick(count, generator), self._pick(count, generator)
        chosen = torch.rand(count, generator=generator) < self._settings.mixed_share
        share = torch.where(chosen, torch.rand(count, generator=generator) * 0.5, torch.zeros(count))
        share = share.to(self._rays.device)[:, None, None, None, None]
        points = self._bent(first, shape, lattice, moving)
        image, mask = self._at(first, points, moving), self._at(first, points, moving, mask=True)
        if bool(chosen.any()):
            other = self._at(second, self._bent(second, shape, lattice, moving), moving)
            image = image * (1 - share) + other * share
        return image, mask

    def _bent(self, index: Tensor, shape: GlandShapes, lattice: tuple[int, float], moving: bool) -> PointLattice:
        """Return where to look in cases so that their gland takes this shape; outside, the change fades away."""
        size, step = lattice
        nodes = round((size - 1) * step / NODE_MM) + 1
        half = (size - 1) * step / 2
        coarse = _lattice(nodes, half, self._rays.device)
        own = GlandShapes((self._moving if moving else self._fixed).coefficients[index])
        radius = coarse.norm(dim=-1).flatten()
        directions = coarse.flatten(0, 2) / radius.clamp(min=1e-3)[:, None]
        wanted, there = shape.radius_mm(directions), own.radius_mm(directions)
        outside = ((wanted - radius).clamp(max=0) / FADE_MM).exp()
        longer = (there - wanted) * torch.where(radius < wanted, radius / wanted, outside)
        shift = (directions * longer[..., None]).mT.reshape(len(index), 3, nodes, nodes, nodes)
        fine = F.interpolate(shift, size=(size, size, size), mode="trilinear", align_corners=True)
        return _lattice(size, half, self._rays.device) + fine.movedim(1, -1)


def _lattice(size: int, half_mm: float, device: torch.device) -> Tensor:
    axis = torch.linspace(-half_mm, half_mm, size, device=device)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack((x, y, z), -1)
