"""Random numbers for the simulator: parameters always from the CPU generator, noise volumes on the device."""

import torch
from torch import Tensor

from crossalign.simulate.settings import Range


def uniform(bounds: Range, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw from U(low, high), float32, on the CPU."""
    return torch.rand(shape, generator=generator) * (bounds[1] - bounds[0]) + bounds[0]


def signed(bounds: Range, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw magnitudes from U(low, high) with random signs."""
    sign = torch.randint(0, 2, shape, generator=generator).float() * 2 - 1
    return sign * uniform(bounds, shape, generator)


def chance(share: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw booleans that are true with this probability."""
    return torch.rand(shape, generator=generator) < share


def noise_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Make a generator on the device, seeded from the CPU generator: same seed and device, same noise."""
    seed = int(torch.randint(0, 2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw standard normal noise on the generator's device, float32."""
    return torch.randn(shape, generator=generator, device=generator.device)
