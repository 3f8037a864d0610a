"""Volumes with smooth structure and noise, in [0, 1]."""

import torch

SHAPE = (17, 23, 20)


def volumes(count: int = 3, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> tuple[torch.Tensor, ...]:
    """Draw `count` volumes (1, 1, z, y, x)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 6, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")
    noisy = smooth + 0.1 * torch.rand(count, 1, *shape, generator=generator)
    return tuple(v[None] for v in noisy.clamp(0, 1))
