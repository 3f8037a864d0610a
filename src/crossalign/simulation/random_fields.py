"""Random numbers of the simulators, and smooth fields: interpolated and filtered along one axis after another."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from crossalign.simulation.settings import Range
from crossalign.types import Shape


def uniform(bounds: Range, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw from U(low, high), float32, on the CPU."""
    return torch.rand(shape, generator=generator) * (bounds[1] - bounds[0]) + bounds[0]


def signed_uniform(bounds: Range, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw magnitudes from U(low, high) with random signs."""
    sign = torch.randint(0, 2, shape, generator=generator).float() * 2 - 1
    return sign * uniform(bounds, shape, generator)


def bernoulli(probability: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw booleans that are true with this probability."""
    return torch.rand(shape, generator=generator) < probability


def random_directions(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw unit vectors (*shape, 3)."""
    return torch.nn.functional.normalize(torch.randn(*shape, 3, generator=generator), dim=-1)


def noise_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Make a generator on the device, seeded from the CPU generator: same seed and device, same noise."""
    seed = int(torch.randint(0, 2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw standard normal noise on the generator's device, float32."""
    return torch.randn(shape, generator=generator, device=generator.device)


CONTROL_POINTS = 16


@lru_cache(maxsize=64)
def _chebyshev(size: int, count: int) -> tuple[Tensor, Tensor]:
    """Return Chebyshev's nodes (count,) and the matrix (size, count) from values there to an even grid on [-1, 1]."""
    k = torch.arange(count, dtype=torch.float64)
    at = torch.cos(math.pi * (2 * k + 1) / (2 * count))
    weight = (-1.0) ** k * torch.sin(math.pi * (2 * k + 1) / (2 * count))
    grid = torch.linspace(-1, 1, size, dtype=torch.float64) if size > 1 else torch.zeros(1, dtype=torch.float64)
    gap = grid[:, None] - at
    exact = gap.abs() < 1e-12
    terms = weight / torch.where(exact, torch.ones_like(gap), gap)
    matrix = torch.where(exact.any(1, keepdim=True), exact.double(), terms / terms.sum(1, keepdim=True))
    return at.float(), matrix.float()


def unit_control_points(count: int = CONTROL_POINTS) -> Tensor:
    """Return Chebyshev's nodes (count^3, 3) in [-1, 1], ordered (x, y, z), x running fastest."""
    at = _chebyshev(2, count)[0]
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    return torch.stack((x, y, z), dim=-1).reshape(-1, 3)


def from_control_points(values: Tensor, shape: Shape) -> Tensor:
    """Interpolate smooth values (b, c, count^3) at control points to an even grid: (b, c, z, y, x).

    Exact for polynomials below degree `CONTROL_POINTS`; a test measures the error of the maps used here: under 0.05 mm.
    """
    count = round(values.shape[-1] ** (1 / 3))
    matrices = [_chebyshev(size, count)[1].to(values.device) for size in shape]
    return apply_separable(values.reshape(*values.shape[:2], count, count, count), *matrices)


def apply_separable(volume: Tensor, along_z: Tensor, along_y: Tensor, along_x: Tensor) -> Tensor:
    """Multiply each axis of a volume (b, c, z, y, x) with its matrix (n', n), or one for each pair (b, n', n)."""
    b, c, z, y, _ = volume.shape
    along_x, along_y, along_z = (m.expand(b, *m.shape[-2:]) for m in (along_x, along_y, along_z))
    x_new, y_new, z_new = along_x.shape[1], along_y.shape[1], along_z.shape[1]
    volume = torch.bmm(volume.reshape(b, -1, volume.shape[-1]), along_x.mT).view(b, c * z, y, x_new)
    volume = torch.matmul(along_y[:, None], volume).view(b, c, z, y_new * x_new)
    return torch.matmul(along_z[:, None], volume).view(b, c, z_new, y_new, x_new)


def blur_matrices(size: int, sigma_voxel: Tensor) -> Tensor:
    """Make Gaussian blurs (b, size, size) of these widths (b,), each row summing to 1 (the border value goes on)."""
    at = torch.arange(size, device=sigma_voxel.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((at[:, None] - at) / sigma_voxel.clamp(min=0.05)[:, None, None]) ** 2)
    return weights / weights.sum(-1, keepdim=True)


def slice_matrices(size: int, thickness_voxel: Tensor, phase: Tensor) -> Tensor:
    """Make matrices (b, size, size) that average into slices this thick (b,) and interpolate linearly between them."""
    at = torch.arange(size, device=phase.device, dtype=torch.float32)
    step = thickness_voxel.clamp(min=1.0)[:, None]
    # One slice more than voxels, the first before the grid: together they always reach past both ends.
    number = torch.arange(size + 1, device=phase.device, dtype=torch.float32)
    middle = (number + phase[:, None] - 1) * step
    profile = torch.exp(-0.5 * ((middle[:, :, None] - at) / (0.42 * step[:, :, None])) ** 2) + 1e-12
    average = profile / profile.sum(-1, keepdim=True)
    hat = (1 - (at[:, None] - middle[:, None, :]).abs() / step[:, :, None]).clamp(min=0)
    return torch.bmm(hat / hat.sum(-1, keepdim=True).clamp(min=1e-6), average)


@lru_cache(maxsize=64)
def linear_matrix(size: int, coarse: int) -> Tensor:
    """Make the matrix (size, coarse) of linear interpolation from a coarse grid over the same extent."""
    at = torch.linspace(0, coarse - 1, size)
    return (1 - (at[:, None] - torch.arange(coarse)).abs()).clamp(min=0)


def outer_product(along_z: Tensor, along_y: Tensor, along_x: Tensor) -> Tensor:
    """Multiply factors (b, z), (b, y) and (b, x) of each axis: (b, 1, z, y, x)."""
    return along_z[:, None, :, None, None] * along_y[:, None, None, :, None] * along_x[:, None, None, None]


def soft_box(shape: Shape, spacing_mm: float, center_mm: Tensor, half_mm: Tensor, edge_mm: Tensor) -> Tensor:
    """Make a box (b, 1, z, y, x) about `center_mm` (b, 3): 0 beyond `half_mm` (b, 3), linear to 1 over the edge."""
    factors = []
    for axis, size in enumerate(shape):
        at = (torch.arange(size, device=center_mm.device) - (size - 1) / 2) * spacing_mm
        inside = half_mm[:, 2 - axis, None] - (at - center_mm[:, 2 - axis, None]).abs()
        factors.append((inside / edge_mm[:, None]).clamp(0, 1))
    return outer_product(*factors)
