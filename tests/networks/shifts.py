"""A task for the networks' tests that no chance solves: how far along x a blob went."""

import torch
from torch import Tensor, nn

REACH = 0.25  # of the volume's size
SIZE = 8


def shifted_blobs(count: int, seed: int, size: int = SIZE) -> tuple[Tensor, Tensor, Tensor]:
    """Return fixed and moving volumes (count, 1, size, size, size), and the shift along x (count,), voxels."""
    generator = torch.Generator().manual_seed(seed)
    shift = (torch.rand(count, generator=generator) * 2 - 1) * REACH * size
    center = (torch.rand(count, 3, generator=generator) * 2 - 1) + (size - 1) / 2
    moved = center + torch.stack((torch.zeros(count), torch.zeros(count), shift), dim=-1)  # in z, y, x
    return blob(center, size), blob(moved, size), shift


def blob(center: Tensor, size: int) -> Tensor:
    axis = torch.arange(size)
    z, y, x = (torch.exp(-((axis - center[:, n, None]) / (size / 6)).square()) for n in range(3))
    return torch.einsum("bz,by,bx->bzyx", z, y, x)[:, None]


def correlation_after_training(model: nn.Module, steps: int, rate: float) -> float:
    """Teach the network to answer the shift in its first number; return how well it does so on pairs it never saw."""
    optimiser = torch.optim.Adam(model.parameters(), rate)
    for step in range(steps):
        fixed, moving, shift = shifted_blobs(16, step)
        loss = (model(fixed, moving)[:, 0] - shift).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fixed, moving, shift = shifted_blobs(64, 10_000)
    with torch.no_grad():
        answer = model.eval()(fixed, moving)[:, 0]
    return float(torch.corrcoef(torch.stack((answer, shift)))[0, 1])
